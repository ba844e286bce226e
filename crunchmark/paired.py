"""Paired statistics of scores against the dense parent's on the same items: plain arrays, no torch.

Scores, dense scores and weights are float64 (n,), in one order. What the scores amount to is their `kind`:
`mean` their weighted mean, `exp` exp of it (nats per token), `median` and `p95` quantiles (of equal weights).

Right or wrong answers are judged by score tests (`proportion`), others by resampling items (`resample`).
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import binom, binomtest, norm, t

from crunchmark.proportion import difference_variance, ratio_score, ratio_variance, tango, wilson
from crunchmark.resample import LEVEL, QUANTILES, Array, bootstrap, resampled, retained

__all__ = [  # with what a reader of the store needs
    "COVERAGE",
    "KINDS",
    "LEVEL",
    "MARGIN",
    "QUANTILES",
    "Array",
    "Comparison",
    "State",
    "bootstrap",
    "compare",
    "difference_variance",
    "error_of",
    "interval_of",
    "mcnemar",
    "ratio_score",
    "ratio_tails",
    "ratio_variance",
    "retained",
    "spared",
    "state_of",
    "tango",
    "value_of",
    "wilson",
    "yes_no",
]  # fmt: skip
MARGIN = 0.05  # LLM-KICK's rule (arXiv:2310.01382): within 5 % of dense counts as a match
COVERAGE = 0.95  # answers that are missing are not missing by chance: below, nothing is a match
KINDS = ("mean", "exp", *QUANTILES)
State = Literal["match", "fail", "undecided", "measured"]


@dataclass(frozen=True)
class Comparison:
    """A cell against its dense parent on the same items: delta = value - dense, with its 95 % interval."""

    dense: float
    delta: float
    low: float
    high: float
    p_value: float  # of no difference, two-sided
    p_match: float  # of a loss of the margin or more: small is evidence of a match; nan: not judged
    p_fail: float  # of a loss of the margin or less
    state: State
    lost: int | None = None  # items dense has right and the cell has not; None where scores are no 0/1
    gained: int | None = None


def value_of(score: Array, weight: Array, kind: str) -> float:
    """What the scores amount to."""
    if kind in QUANTILES:
        return float(np.quantile(score, QUANTILES[kind]))
    mean = float(score @ weight / weight.sum())
    return _exp(mean) if kind == "exp" else mean


def error_of(score: Array, weight: Array, kind: str) -> float:
    """Standard error of `value_of`; nan where one item tells nothing about spread.

    Of a mean over the items, of exp by the delta method, of a quantile from the bootstrap.
    """
    n, value = len(score), value_of(score, weight, kind)
    if n < 2 or not math.isfinite(value):
        return math.nan
    if kind in QUANTILES:
        return float(bootstrap(score[None], kind).std())
    share = weight / weight.sum()
    error = math.sqrt(float((share**2 * (score - score @ share) ** 2).sum()) * n / (n - 1))
    return value * error if kind == "exp" else error


def interval_of(score: Array, weight: Array, kind: str) -> tuple[float, float]:
    """95 % interval of `value_of`; nan where there is none.

    Wilson's for 0/1 scores, Student's t for means (of exp on the log scale), order statistics for quantiles.
    """
    n, value = len(score), value_of(score, weight, kind)
    if n < 2 or not math.isfinite(value):
        return math.nan, math.nan
    if kind in QUANTILES:
        first, last = binom.ppf([LEVEL, 1 - LEVEL], n, QUANTILES[kind]).astype(int)
        ranked = np.sort(score)
        return float(ranked[max(0, first - 1)]), float(ranked[min(n - 1, last)])
    if kind == "mean" and yes_no(score, score, weight):
        return wilson(value, n)
    width = float(t.isf(LEVEL, n - 1)) * error_of(score, weight, kind)
    if kind == "exp":
        return value * math.exp(-width / value), value * _exp(width / value)
    return value - width, value + width


def compare(
    score: Array,
    dense: Array,
    weight: Array,
    kind: str = "mean",
    higher: bool = True,
    margin: float | None = MARGIN,
    seed: int = 0,
) -> Comparison:
    """`match` where a loss of the relative margin or more is refuted at 2.5 %, `fail` where a smaller one is.

    higher: whether more is better.
    margin: share of dense that may be lost; None: told, never judged (`measured`).
    seed: of the bootstrap.
    """
    now, before = value_of(score, weight, kind), value_of(dense, weight, kind)
    lost = gained = None
    if not math.isfinite(now) or not math.isfinite(before):
        low = high = p_value = math.nan
        tails = (1.0, 0.0) if math.isfinite(before) else (math.nan, math.nan)
    elif kind == "mean" and yes_no(score, dense, weight):
        lost, gained, n = int((dense > score).sum()), int((score > dense).sum()), len(score)
        low, high = tango(gained / n, lost / n, n)
        p_value = mcnemar(lost, gained)
        tails = ratio_tails(ratio_score(score, dense, retained(higher, margin or 0.0)), higher)
    elif len(score) < 2:
        low = high = p_value = math.nan
        tails = (math.nan, math.nan)
    elif np.array_equal(score, dense):
        low, high, p_value, tails = 0.0, 0.0, 1.0, (spared(dense, kind, higher, margin or 0.0), 1.0)
    else:
        found = resampled(score, dense, weight, kind, higher, margin or 0.0, seed)
        low, high, p_value = found.low, found.high, found.p_value
        few = 2 * int((score != dense).sum()) <= len(score)
        least = spared(dense, kind, higher, margin or 0.0) if few else 0.0
        tails = max(found.p_match, least), found.p_fail
    p_match, p_fail = tails if margin is not None else (math.nan, math.nan)
    state = state_of(p_match, p_fail, margin)
    return Comparison(before, now - before, low, high, p_value, p_match, p_fail, state, lost, gained)


def state_of(p_match: float, p_fail: float, margin: float | None = MARGIN) -> State:
    """What the two p-values say."""
    if margin is None:
        return "measured"
    return "match" if p_match <= LEVEL else "fail" if p_fail <= LEVEL else "undecided"


def ratio_tails(z: float, higher: bool) -> tuple[float, float]:
    """P-values of match and fail of the score test against the margin."""
    z = z if higher else -z
    return float(norm.sf(z)), float(norm.cdf(z))


def mcnemar(lost: int, gained: int) -> float:
    """McNemar's exact test of no difference, two-sided."""
    return float(binomtest(lost, lost + gained, 0.5).pvalue) if lost + gained else 1.0


def yes_no(score: Array, dense: Array, weight: Array) -> bool:
    """Whether all items are answered right or wrong, and count the same."""
    return bool(np.isin(score, (0, 1)).all() and np.isin(dense, (0, 1)).all() and np.ptp(weight) == 0)


def spared(dense: Array, kind: str, higher: bool, margin: float) -> float:
    """P-value of a match where not one score differs, which says little of few items.

    Where a few differ it can be no smaller: resampling sees the losses there are, not the rare large ones.

    Of scores from 0 to 1, a loss of the margin would change at least that share of the items; of others, a
    loss that is as often above the margin as below it would spare all of them with chance 1 in 2^n.
    """
    bounded = kind == "mean" and higher and bool((dense >= 0).all() and (dense <= 1).all())
    share = max(0.5, 1 - margin * float(dense.mean())) if bounded else 0.5
    return float(share ** len(dense))


def _exp(x: float) -> float:
    return math.exp(x) if not x > 700 else math.inf
