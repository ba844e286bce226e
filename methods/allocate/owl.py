"""OWL (ICML 2024, arXiv:2310.05175): blocks with more outliers keep more."""

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
    per_block,
    positive,
)


@dataclass(frozen=True)
class OWL(Allocator):
    """D of a block: share of its |W| * ||x|| above `threshold` times their mean.

    lam: how far shares may lie around the mean. threshold: M of the paper. least: smallest share.
    """

    lam: float = 0.08
    threshold: float = 5.0
    least: float = 0.1

    needs = (InputNorm,)
    looks = True

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        number("allocate.lam", self.lam)
        positive("allocate.threshold", self.threshold)
        fraction("allocate.least", self.least)

    def allocate(self, trial: Trial, layers: Mapping[str, tuple[int, int]], total: int) -> Plan:
        """One share for all layers of a block."""
        outliers = []
        for names in trial.blocks:
            scores = magnitudes(trial, names)
            outliers.append(float((scores > self.threshold * scores.mean()).double().mean()))
        shares = around(trial.share, outliers, self.lam, self.least)
        return trial.fit(per_block(trial, shares), outliers=outliers)
