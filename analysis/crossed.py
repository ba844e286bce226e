"""One cell over several calibration draws ("seeds"): the same items under each, so both are crossed.

A score is item + seed + what is left. The variance of the grand mean has a part of the items (n is large)
and a part of the seeds (k is 3 or 5), each multiplied by the quantile of Student's t of its own degrees of
freedom. Resampling seeds, or Satterthwaite's degrees of freedom, covers too seldom with so few.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtrit

from crunchmark.paired import (
    LEVEL,
    QUANTILES,
    Array,
    Comparison,
    bootstrap,
    compare,
    difference_variance,
    error_of,
    interval_of,
    ratio_variance,
    retained,
    spared,
    state_of,
    tango,
    value_of,
    wilson,
    yes_no,
)

LEFT = (
    0.75  # how much of what is left the seeds' part is relieved of: all covers 92.8 %, none 99 % of 3 seeds
)


@dataclass(frozen=True)
class Metric:
    """How scores amount to a value, and how much of dense may be lost."""

    kind: str = "mean"
    higher: bool = True
    margin: float | None = None


@dataclass(frozen=True)
class Spread:
    """Variance of a mean over seeds and items, in two parts: what n items leave open, and what k seeds do."""

    items: float
    seeds: float
    design: float  # `items` relative to the variance over items of one seed
    n: int
    k: int

    @classmethod
    def of(cls, items: float, rest: float, single: float, means: Array, n: int) -> Spread:
        """From the variance of the items' means, of what is left, of one seed, and the seeds' means (k,).

        What is left is in both, so it is taken from one: most from the seeds', whose quantile is large, the
        others from the items', never so much that the whole gets smaller than the items alone.
        """
        k = len(means)
        seeds = max(0.0, float(np.var(means, ddof=1)) / k - LEFT * rest)
        items = max(0.0, items - min((1 - LEFT) * rest, seeds))
        return cls(items, seeds, min(1.0, items / single) if single > 0 else 1.0, n, k)

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return math.sqrt(self.items + self.seeds)

    @property
    def quantiles(self) -> tuple[float, float]:
        """Of Student's t for a 95 % interval: of the items, of the seeds."""
        return -float(stdtrit(self.n - 1, LEVEL)), -float(stdtrit(self.k - 1, LEVEL))

    @property
    def width(self) -> float:
        """Half of a 95 % interval: each part with its own quantile."""
        one, two = self.quantiles
        return math.sqrt(one**2 * self.items + two**2 * self.seeds)

    @property
    def beside(self) -> float:
        """The variance of the seeds as it counts in a formula with the items' quantile."""
        one, two = self.quantiles
        return self.seeds * (two / one) ** 2

    def tail(self, estimate: float, items: float | None = None) -> float:
        """P-value of a truth of 0 or less: the level at which the interval would end there.

        items: variance of the items' part under the hypothesis, where it is another.
        """
        part, size = self.items if items is None else items, abs(estimate)
        if estimate == 0 or part + self.seeds <= 0:
            return 0.5 if estimate == 0 else float(estimate < 0)

        def short(log_level: float) -> float:
            level = math.exp(log_level)
            one, two = -float(stdtrit(self.n - 1, level)), -float(stdtrit(self.k - 1, level))
            return size - math.hypot(one * math.sqrt(part), two * math.sqrt(self.seeds))

        least, most = math.log(1e-300), math.log(0.5)
        level = 1e-300 if short(least) > 0 else math.exp(float(brentq(short, least, most)))
        return level if estimate > 0 else 1 - level


def spread(z: Array) -> Spread:
    """Of scores, or of pseudo-values (k, n) whose mean over items is the estimate of a seed."""
    k, n = z.shape
    means, columns = z.mean(1), z.mean(0)
    left = z - means[:, None] - columns + z.mean()
    rest = float((left**2).sum()) / ((n - 1) * (k - 1)) / (n * k)
    return Spread.of(float(np.var(columns, ddof=1)) / n, rest, float(z.var(1, ddof=1).mean()) / n, means, n)


def spread_of_draws(draws: Array, means: Array, n: int) -> Spread:
    """Of estimates (k, resamples) from the same resampled items, and of the estimates (k,) themselves."""
    k = len(means)
    left = draws - draws.mean(0)
    rest = float(left.var(1).sum()) / (k - 1) / k
    return Spread.of(float(draws.mean(0).var()), rest, float(draws.var(1).mean()), means, n)


def summarise(scores: Array, dense: Array | None, weight: Array, metric: Metric) -> dict[str, Any]:
    """Value and comparison with dense over seeds and items.

    Args:
        scores: (k, n), a row per seed.
        dense: (n,), the parent's; None where there is none to compare with.
        weight: (n,).
        metric: What the scores amount to.
    """
    values = np.array([value_of(row, weight, metric.kind) for row in scores])
    several, finite = len(scores) > 1 and scores.shape[1] > 1, bool(np.isfinite(values).all())
    found = {"seeds": len(scores), "n": scores.shape[1], "value": float(values.mean())}
    found["spread"] = float(values.std(ddof=1)) if len(scores) > 1 and finite else math.nan
    if several and finite:
        found |= _value(scores, values, weight, metric.kind)
    else:
        low, high = interval_of(scores[0], weight, metric.kind) if len(scores) == 1 else (math.nan, math.nan)
        error = error_of(scores[0], weight, metric.kind) if len(scores) == 1 else math.nan
        found |= {"stderr": error, "value_low": low, "value_high": high}
    if dense is None:
        return found | dict.fromkeys(f.name for f in fields(Comparison))
    before = value_of(dense, weight, metric.kind)
    changed = bool((scores != dense).any())
    if several and changed and finite and math.isfinite(before):
        return found | _against(scores, values, dense, weight, metric)
    worst = scores[int(np.argmin(np.isfinite(values)))]  # one seed, one that is not finite, or all as dense
    return found | vars(compare(worst, dense, weight, metric.kind, metric.higher, metric.margin))


def _value(scores: Array, values: Array, weight: Array, kind: str) -> dict[str, float]:
    """Standard error and interval of the mean over seeds."""
    found, value = _spread(scores, None, values, weight, kind), float(values.mean())
    width = found.width
    if kind == "mean" and yes_no(scores, scores, weight):
        low, high = wilson(value, scores.shape[1], found.quantiles[0], found.design, found.beside)
    elif kind == "exp":
        low, high = value * math.exp(-width / value), value * math.exp(min(700.0, width / value))
    else:
        low, high = value - width, value + width
    return {"stderr": found.error, "value_low": low, "value_high": high}


def _against(scores: Array, values: Array, dense: Array, weight: Array, metric: Metric) -> dict[str, Any]:
    """The comparison with dense: intervals and tests as of one seed, with the variance of several."""
    value, before = float(values.mean()), value_of(dense, weight, metric.kind)
    sign, margin = (1.0 if metric.higher else -1.0), metric.margin or 0.0
    delta = _spread(scores, dense, values, weight, metric.kind)
    if metric.kind == "exp":
        scaled = _spread(scores, dense, values, weight, metric.kind, (1 / value, 1 / before))
        slack = sign * (math.log(value / before) - math.log(retained(metric.higher, margin)))
    else:
        share = sign - margin * np.sign(before)
        scaled = _spread(scores, dense, values, weight, metric.kind, (sign, share))
        slack = sign * (value - before) + margin * abs(before)
    lost = gained = items = bar = None
    low, high = value - before - delta.width, value - before + delta.width
    if metric.kind == "mean" and yes_no(scores, np.broadcast_to(dense, scores.shape), weight):
        n, lost, gained = len(dense), float((dense > scores).mean()), float((scores > dense).mean())
        low, high = tango(gained, lost, n, delta.quantiles[0], delta.design, delta.beside)
        items = difference_variance(gained, lost, 0.0) * delta.design / n
        ratio = retained(metric.higher, margin)
        bar = ratio_variance(value, before, gained, lost, ratio) * scaled.design / n
        lost, gained = lost * n, gained * n
    p_value = min(1.0, 2 * delta.tail(abs(value - before), items))
    tails = scaled.tail(slack, bar), scaled.tail(-slack, bar)
    if bar is None and 2 * (scores != dense).any(0).sum() <= len(dense):
        tails = max(tails[0], spared(dense, metric.kind, metric.higher, margin)), tails[1]
    p_match, p_fail = tails if metric.margin is not None else (math.nan, math.nan)
    state = state_of(p_match, p_fail, metric.margin)
    found = Comparison(before, value - before, low, high, p_value, p_match, p_fail, state)
    return vars(found) | {"lost": lost, "gained": gained}


def _spread(
    scores: Array,
    dense: Array | None,
    values: Array,
    weight: Array,
    kind: str,
    factors: tuple[float, float] = (1.0, 1.0),
) -> Spread:
    """Of the first factor times the values, less the second times dense's."""
    one, two = factors
    if kind in QUANTILES:
        sides = scores if dense is None else np.vstack([scores, dense])
        drawn = bootstrap(sides, kind)
        draws = one * drawn[: len(scores)] - (0.0 if dense is None else two * drawn[-1])
        return spread_of_draws(draws, one * values, scores.shape[1])
    z = one * np.stack([_pseudo(row, weight, kind) for row in scores])
    return spread(z if dense is None else z - two * _pseudo(dense, weight, kind))


def _pseudo(score: Array, weight: Array, kind: str) -> Array:
    """What each item says (n,): their mean is the value, their spread its error (infinitesimal jackknife)."""
    share = weight / weight.sum()
    mean = float(score @ share)
    value = math.exp(mean) if kind == "exp" else mean
    pseudo: Array = value + len(score) * share * (score - mean) * (value if kind == "exp" else 1.0)
    return pseudo
