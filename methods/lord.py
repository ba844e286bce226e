"""LoRD (Kaushal et al., 2023, arXiv:2309.14021): one-shot low rank from outputs on the domain's text."""

from dataclasses import dataclass

from crunchmark import Centred, one_of

MLP = ("gate", "up", "down")
ROLES = ("all", "mlp", "attn")


@dataclass(frozen=True)
class LoRD(Centred):
    """PCA of the outputs on text of one domain (the paper: code), ranks that suit tensor cores.

    roles: all, mlp or attn; the other layers stay dense, and these make up for them.
    """

    align: int = 128
    roles: str = "all"

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        super().__post_init__()
        one_of("method.roles", self.roles, ROLES)

    def leaves(self, role: str) -> bool:
        """Layers of the other kind stay dense."""
        return self.roles != "all" and (role in MLP) != (self.roles == "mlp")
