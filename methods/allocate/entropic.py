"""MoDeGPT's global allocation (ICLR 2025, arXiv:2408.09632): blocks that change little give most."""

from collections.abc import Mapping
from dataclasses import dataclass

from crunchmark import Allocator, Plan, Trial, entropic, fraction, number, per_block


@dataclass(frozen=True)
class Entropic(Allocator):
    """Removed of block l: L * budget * softmax(-s / eps), s = 1 - E cos(input, output).

    eps: weight of the entropy, larger is more even. cap: most that is removed of a block; what lies above
        goes to the others; a budget above it lifts it.
    """

    eps: float = 0.1
    cap: float = 0.8

    looks = True

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        number("allocate.eps", self.eps, 1e-6)
        fraction("allocate.cap", self.cap, one=True)

    def allocate(self, trial: Trial, layers: Mapping[str, tuple[int, int]], total: int) -> Plan:
        """One share for all layers of a block."""
        influence = trial.influence()
        removed = entropic(influence, 1 - trial.share, self.eps, self.cap)
        return trial.fit(per_block(trial, [1 - phi for phi in removed]), influence=list(influence))
