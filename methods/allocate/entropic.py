"""MoDeGPT's global allocation (ICLR 2025, arXiv:2408.09632): blocks that change little give most."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp

from crunchmark import Allocator, Plan, Trial, positive


@dataclass(frozen=True)
class Entropic(Allocator):
    """Removed of block l: L * budget * softmax(-s / eps), s = 1 - E cos(input, output).

    eps: weight of the entropy, larger is more even. cap: most that is removed of a block; what lies above
        goes to the others.
    """

    eps: float = 0.1
    cap: float = 0.8

    looks = True

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        positive("allocate.eps", self.eps)
        positive("allocate.cap", self.cap)
        if self.cap > 1:
            raise ValueError(f"allocate.cap={self.cap} is out of range; valid: above 0, at most 1")

    def allocate(self, trial: Trial, layers: Mapping[str, tuple[int, int]], total: int) -> Plan:
        """One share for all layers of a block."""
        influence = trial.influence()
        removed = self.removed(influence, 1 - trial.share)
        keeps = {n: 1 - phi for names, phi in zip(trial.blocks, removed, strict=True) for n in names}
        return trial.fit(keeps, influence=list(influence))

    def removed(self, influence: Sequence[float], mean: float) -> list[float]:
        """Shares to remove of that mean, the cap met where the mean allows it."""
        least = min(influence)
        pull = [exp((least - s) / self.eps) for s in influence]
        cap, count = max(self.cap, mean), len(pull)
        full: set[int] = set()
        while True:
            left = count * mean - cap * len(full)
            scale = left / max(1e-300, sum(p for i, p in enumerate(pull) if i not in full))
            phi = [cap if i in full else scale * p for i, p in enumerate(pull)]
            over = {i for i, value in enumerate(phi) if value > cap + 1e-12}
            if not over:
                return phi
            full |= over
