"""DLP (ICML 2025, arXiv:2505.23807): blocks of small typical |W| * ||x|| keep more."""

from collections.abc import Mapping
from dataclasses import dataclass

from crunchmark import (
    Allocator,
    InputNorm,
    Plan,
    Trial,
    around,
    fraction,
    magnitudes,
    number,
    one_of,
    per_block,
)


@dataclass(frozen=True)
class DLP(Allocator):
    """Relative importance of a block: 1 - s / sum s, s the typical |W| * ||x|| of its layers.

    alpha: how far shares may lie around the mean. typical: "median" as the paper has it, or "mean" as its
        code computes it. least: smallest share.
    """

    alpha: float = 0.15
    typical: str = "median"
    least: float = 0.1

    needs = (InputNorm,)
    looks = True

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        number("allocate.alpha", self.alpha)
        one_of("allocate.typical", self.typical, ("median", "mean"))
        fraction("allocate.least", self.least)

    def allocate(self, trial: Trial, layers: Mapping[str, tuple[int, int]], total: int) -> Plan:
        """One share for all layers of a block."""
        sizes = []
        for names in trial.blocks:
            scores = magnitudes(trial, names)
            sizes.append(float(scores.median() if self.typical == "median" else scores.mean()))
        importance = [1 - size / sum(sizes) for size in sizes]
        shares = around(trial.share, importance, self.alpha, self.least)
        return trial.fit(per_block(trial, shares), typical=sizes)
