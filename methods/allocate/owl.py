"""OWL (ICML 2024, arXiv:2310.05175): blocks with more outliers keep more."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from crunchmark import Allocator, InputNorm, Plan, Trial, around, number, positive


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
        number("allocate.least", self.least)

    def allocate(self, trial: Trial, layers: Mapping[str, tuple[int, int]], total: int) -> Plan:
        """One share for all layers of a block."""
        outliers = []
        for names in trial.blocks:
            found = [trial.layer(name) for name in names]
            scores = torch.cat([(x.weight.abs() * x[InputNorm].value).flatten() for x in found])
            outliers.append(float((scores > self.threshold * scores.mean()).double().mean()))
        shares = around(trial.share, outliers, self.lam, self.least)
        keeps = {n: share for names, share in zip(trial.blocks, shares, strict=True) for n in names}
        return trial.fit(keeps, outliers=outliers)
