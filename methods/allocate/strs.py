"""Sensitivity-based truncation rank search of ASVD (arXiv:2312.05821)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from crunchmark import Allocator, Plan, Trial, dense_bytes, goal_of, levels, reaching, shares, whole


@dataclass(frozen=True)
class STRS(Allocator):
    """Try every layer alone at every ratio; give what hurts least until the budget is met.

    ratios: shares that are tried (the released code's; the nearest below that the method can make),
        and the budget's own where it is below them.
    samples: calibration sequences the loss is measured on.
    """

    ratios: Sequence[float] = field(default=(0.4, 0.5, 0.6, 0.7, 0.8, 0.9))
    samples: int = 32

    looks = True
    tries = True

    def __post_init__(self) -> None:
        """Check what a config can get wrong; a list of a config is kept as a tuple."""
        object.__setattr__(self, "ratios", shares("allocate.ratios", self.ratios))
        whole("allocate.samples", self.samples)

    def allocate(self, trial: Trial, layers: Mapping[str, tuple[int, int]], total: int) -> Plan:
        """Walk up the losses; a layer is at the smallest ratio met so far."""
        ratios = reaching(self.ratios, trial)
        options = [levels(trial, layers, unit, ratios) for unit in trial.units]
        samples = range(min(self.samples, trial.samples))
        tried = [(trial.loss(level.keeps, samples, "nll"), level) for unit in options for level in unit[:-1]]
        keeps, goal = dict.fromkeys(layers, 1.0), goal_of(trial, layers)
        for _, level in sorted(tried, key=itemgetter(0)):
            keeps |= {name: min(keeps[name], keep) for name, keep in level.keeps.items()}
            if sum(keep * dense_bytes(layers[name]) for name, keep in keeps.items()) <= goal:
                break
        return trial.fit(keeps)
