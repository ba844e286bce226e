"""An integer programme: an option for each, together within a limit (LQ-LoRA, arXiv:2311.12023)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from crunchmark.budget import SLACK

Table = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Assignment:
    """What was chosen, and how far from the least cost it may be."""

    picks: Sequence[int]  # of each, the index of its option
    cost: float
    gap: float | None  # share of the cost that may be too much; None: the time was over before that was known


def assign(costs: Table, sizes: Table, limit: float, seconds: float) -> Assignment | None:
    """The least sum of costs with a sum of sizes up to the limit; None: there is none, or no time for one.

    Found by HiGHS. It costs no more than the best choice of equal options, those next below one size for all.

    Args:
        costs: of each option of each, finite.
        sizes: of the same options, ascending.
        limit: of the sum of sizes.
        seconds: that the solver may take.
    """
    solved = _solved(costs, sizes, limit, seconds)
    tried = [*_equal(sizes), *([] if solved.x is None else [_picks(solved.x, costs)])]
    fitting = [picks for picks in tried if _sum(sizes, picks) <= limit + SLACK]
    if not fitting:
        return None
    best = min(fitting, key=lambda picks: _sum(costs, picks))
    cost, bound = _sum(costs, best), solved.mip_dual_bound
    if bound is None or not np.isfinite(bound):
        return Assignment(best, cost, None)
    over = cost - float(bound) * _unit(costs)
    return Assignment(best, cost, max(0.0, over / cost) if cost else 0.0)


def _solved(costs: Table, sizes: Table, limit: float, seconds: float) -> Any:
    """What HiGHS says of one binary number per option; its tolerances want numbers near 1."""
    cost, size = (np.concatenate([np.asarray(row, float) for row in table]) for table in (costs, sizes))
    owner = np.repeat(np.arange(len(costs)), [len(row) for row in costs])
    one = coo_array((np.ones(len(cost)), (owner, np.arange(len(cost)))), shape=(len(costs), len(cost)))
    within = LinearConstraint(size[None] / limit, -np.inf, 1 + SLACK / limit)
    return milp(
        cost / _unit(costs),
        constraints=[within, LinearConstraint(one.tocsr(), 1, 1)],
        integrality=np.ones(len(cost)),
        bounds=Bounds(0, 1),
        options={"time_limit": seconds},
    )


def _unit(costs: Table) -> float:
    return max(max(abs(cost) for row in costs for cost in row), 1e-300)


def _picks(chosen: Any, costs: Table) -> list[int]:
    ends = list(accumulate(len(row) for row in costs))
    return [int(np.argmax(chosen[end - len(row) : end])) for end, row in zip(ends, costs, strict=True)]


def _equal(sizes: Table) -> list[list[int]]:
    """For every share of the largest size, the options next below it, or the smallest."""
    shares = sorted({size / max(row[-1], 1e-300) for row in sizes for size in row})
    return [
        [max(0, sum(size <= share * row[-1] * (1 + 1e-12) for size in row) - 1) for row in sizes]
        for share in shares
    ]


def _sum(table: Table, picks: Sequence[int]) -> float:
    return float(sum(row[k] for row, k in zip(table, picks, strict=True)))
