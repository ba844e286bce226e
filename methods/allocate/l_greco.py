"""L-GreCo's dynamic programme (MLSys 2024, arXiv:2210.17357), for weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf, isinf

import torch

from crunchmark import SLACK, Allocator, Gram, Level, Plan, Trial, goal_of, levels, shares, whole


@dataclass(frozen=True)
class LGreCo(Allocator):
    """Least sum of relative errors tr((W-Q) C (W-Q)^T) / tr(W C W^T) at the budget, exact up to a bucket.

    The paper minimises size under an error; a budget asks the other way round, on the same table.
    shares: what a layer may keep besides all and the budget's own share (the nearest below that the method
        can make).
    buckets: steps the budget is divided into; costs are rounded up to them (where equal shares do
        better for it, they are taken).
    """

    shares: Sequence[float] = field(default=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9))
    buckets: int = 10000

    needs = (Gram,)
    looks = True
    tries = True

    def __post_init__(self) -> None:
        """Check what a config can get wrong; a list of a config is kept as a tuple."""
        object.__setattr__(self, "shares", shares("allocate.shares", self.shares))
        whole("allocate.buckets", self.buckets)

    def allocate(self, trial: Trial, layers: Mapping[str, tuple[int, int]], total: int) -> Plan:
        """Errors and costs of every level of every unit, then the programme."""
        if goal_of(trial, layers) <= 0:  # equal shares say what there would have to be
            return trial.fit(dict.fromkeys(layers, trial.share))
        goal, tried = goal_of(trial, layers), (*self.shares, trial.share)
        options = [levels(trial, layers, unit, tried) for unit in trial.units]
        bucket = goal / self.buckets
        costs = [[ceil(level.nbytes / bucket - 1e-9) for level in unit] for unit in options]
        errors = [[sum(trial.error(n, k) for n, k in o.keeps.items()) for o in unit] for unit in options]
        chosen, equal = cheapest(errors, costs, self.buckets), _equal(trial, layers, options)
        spent = sum(unit[k].nbytes for unit, k in zip(options, equal, strict=True))
        if chosen is None:  # sizes or buckets round up to too much: equal shares say by how much
            return trial.fit(dict.fromkeys(layers, trial.share))
        if spent <= goal + SLACK and _sum(errors, equal) < _sum(errors, chosen):
            chosen = equal
        found = [unit[k] for unit, k in zip(options, chosen, strict=True)]
        return trial.fit({name: keep for level in found for name, keep in level.keeps.items()})


def _equal(trial: Trial, layers: Mapping[str, tuple[int, int]], options: list[list[Level]]) -> list[int]:
    """The option of every unit that is at the budget's own share."""
    sizes = [levels(trial, layers, unit, (trial.share,))[0].nbytes for unit in trial.units]
    return [
        [round(o.nbytes) for o in unit].index(round(size)) for unit, size in zip(options, sizes, strict=True)
    ]


def _sum(errors: Sequence[Sequence[float]], chosen: Sequence[int]) -> float:
    return sum(error[k] for error, k in zip(errors, chosen, strict=True))


def cheapest(
    errors: Sequence[Sequence[float]], costs: Sequence[Sequence[int]], limit: int
) -> list[int] | None:
    """One option per unit with the least sum of errors, costing at most limit together; None: there is none.

    f[c] = min over options o of f[c - cost(o)] + error(o), unit by unit, for all c up to the limit.
    """
    best = torch.zeros(limit + 1, dtype=torch.float64)  # (limit + 1,)
    picks = []
    for error, cost in zip(errors, costs, strict=True):
        tried = torch.full((len(error), limit + 1), inf, dtype=torch.float64)
        for k, (e, c) in enumerate(zip(error, cost, strict=True)):
            if c <= limit:
                tried[k, c:] = best[: limit + 1 - c] + e
        best, pick = tried.min(0)
        picks.append(pick)
    if isinf(float(best[limit])):
        return None
    at, chosen = limit, []
    for pick, cost in zip(reversed(picks), reversed(costs), strict=True):
        chosen.append(int(pick[at]))
        at -= cost[chosen[-1]]
    return chosen[::-1]
