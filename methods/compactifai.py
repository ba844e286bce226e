"""CompactifAI, unhealed (Tomut et al., ESANN 2025, arXiv:2401.14109): matrix product operators."""

from collections.abc import Sequence
from dataclasses import dataclass

from crunchmark import ROLES, Chain, Layer, Method, Room, TensorTrain, Term, one_of, several, spectrum


@dataclass(frozen=True)
class CompactifAI(Method):
    """Reshape W to (J_1 I_1) x (J_2 I_2) x ..., cut the chain by truncated SVDs, keep bonds of equal size.

    With two cores it is the best sum of `bond` Kronecker products: of full rank, and neither better nor worse
    than SVD in general. The paper trains afterwards; this does not.
    cores: 2 or 3. exclude: roles left dense, so that the other layers keep less.
    """

    cores: int = 2
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        one_of("method.cores", self.cores, (2, 3))
        for role in several("method.exclude", self.exclude):
            one_of("method.exclude", role, ROLES)

    def leaves(self, role: str) -> bool:
        """Roles that are left out."""
        return role in self.exclude

    def sizes(self, shape: tuple[int, int], room: Room) -> Sequence[int]:
        """Of every bond below the one where the cores are as large as the weight."""
        return TensorTrain.sizes(Chain.balanced(shape, self.cores), room)

    def compress(self, layer: Layer, room: Room) -> Term:
        """Sweep from left to right at the largest bond that fits."""
        chain = Chain.balanced(layer.shape, self.cores)
        bonds = TensorTrain.fits(chain, room, layer.name)
        first = layer.memo("mpo", lambda: spectrum(chain.unfolded(layer.weight)))
        return TensorTrain.of(chain.sweep(layer.weight, bonds, first), room.dtype)
