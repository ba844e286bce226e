"""Paired statistics of scores against the dense parent's on the same items: plain arrays, no torch.

Scores, dense scores and weights are float64 (n,), in one order. What the scores amount to is their `kind`:
`mean` their weighted mean, `exp` exp of it (nats per token), `median` and `p95` quantiles (of equal weights).
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

MARGIN = 0.05  # LLM-KICK's rule (arXiv:2310.01382): within 5 % of dense counts as a match
COVERAGE = 0.95  # answers that are missing are not missing by chance: below, nothing is a match
Z = 1.959964  # of a 95 % interval
RESAMPLES = 2000
CHUNK = 4_000_000  # random indices drawn at a time
QUANTILES = {"median": 0.5, "p95": 0.95}
KINDS = ("mean", "exp", *QUANTILES)
State = Literal["match", "fail", "undecided", "measured"]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """A cell against its dense parent on the same items: delta = value - dense, with its 95 % interval."""

    dense: float
    delta: float
    low: float
    high: float
    p_value: float
    state: State


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
        return float(bootstrap(score[None], weight, kind).std())
    share = weight / weight.sum()
    error = math.sqrt(float((share**2 * (score - score @ share) ** 2).sum()) * n / (n - 1))
    return value * error if kind == "exp" else error


def compare(
    score: Array,
    dense: Array,
    weight: Array,
    kind: str = "mean",
    higher: bool = True,
    margin: float | None = MARGIN,
    seed: int = 0,
) -> Comparison:
    """`match` or `fail` only if the whole 95 % interval is on that side of the relative margin.

    higher: whether more is better.
    margin: share of dense that may be lost; None: told, never judged (`measured`).
    seed: of the bootstrap.
    """
    now, before = value_of(score, weight, kind), value_of(dense, weight, kind)
    yes_no = kind == "mean" and _yes_no(score, dense, weight)
    if np.array_equal(score, dense):
        same: State = "match" if len(score) > 1 else "undecided"
        state = _ratio_state(score, dense, higher, margin) if yes_no and margin is not None else same
        return Comparison(before, 0.0, 0.0, 0.0, 1.0, "measured" if margin is None else state)
    if not math.isfinite(now) or not math.isfinite(before):
        state = "undecided" if not math.isfinite(before) else "fail"
        state = "measured" if margin is None else state
        return Comparison(before, now - before, math.nan, math.nan, math.nan, state)
    draws = bootstrap(np.stack([score, dense]), weight, kind, seed)
    gain = np.exp(draws[0]) - np.exp(draws[1]) if kind == "exp" else draws[0] - draws[1]
    low, high = np.quantile(gain, [0.025, 0.975])
    if margin is None:
        state = "measured"
    elif yes_no:
        state = _ratio_state(score, dense, higher, margin)
    else:
        state = _state(_slack(draws[0], draws[1], kind, higher, margin)) if len(score) > 1 else "undecided"
    return Comparison(before, now - before, float(low), float(high), p_value(score, dense, gain), state)


def bootstrap(scores: Array, weight: Array, kind: str = "mean", seed: int = 0) -> Array:
    """Each row of scores (k, n) over the same resampled items: (k, RESAMPLES); of kind exp the log of it."""
    rng, n = np.random.default_rng(seed), scores.shape[1]
    step = max(1, CHUNK // n)
    found = []
    for start in range(0, RESAMPLES, step):
        pick = rng.integers(0, n, (min(step, RESAMPLES - start), n))
        if kind in QUANTILES:
            found.append(np.stack([np.quantile(row[pick], QUANTILES[kind], axis=1) for row in scores]))
        else:
            total = weight[pick].sum(1)
            found.append(np.stack([(row * weight)[pick].sum(1) / total for row in scores]))
    return np.concatenate(found, axis=1)


def ratio_score(score: Array, dense: Array, ratio: float) -> float:
    """Z of P(score = 1) = ratio * P(dense = 1) over paired 0/1 items; 0 where they say nothing.

    The score test of a ratio of paired proportions (Nam and Blackwelder, 2002); the variance is that of the
    most likely table that obeys the equation.
    """
    n, one, two = len(score), float(score.mean()), float(dense.mean())
    gained, lost = float((score > dense).mean()), float((score < dense).mean())
    root = math.sqrt((one - ratio**2 * two) ** 2 + 4 * ratio**2 * gained * lost)
    gain = (-one + ratio**2 * (two + 2 * gained) + root) / (2 * ratio * (ratio + 1))
    loss = ratio * gain - (ratio - 1) * (two + gained)  # two + gained: all that either answered
    if gain + loss <= 0:
        return 0.0
    return math.sqrt(n) * (one - ratio * two) / math.sqrt(ratio * (gain + loss))


def p_value(score: Array, dense: Array, gain: Array) -> float:
    """Two-sided, of no difference: McNemar's exact test for 0/1 scores, else from the paired bootstrap."""
    if np.isin(score, (0, 1)).all() and np.isin(dense, (0, 1)).all():
        lost = int((dense > score).sum())
        odd = int((dense != score).sum())
        return float(binomtest(lost, odd, 0.5).pvalue) if odd else 1.0
    tail = min(int((gain <= 0).sum()), int((gain >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(gain) + 1))


def _exp(x: float) -> float:
    return math.exp(x) if not x > 700 else math.inf


def _slack(score: Array, dense: Array, kind: str, higher: bool, margin: float) -> Array:
    """How far resampled values are inside the margin: positive is good, on the log scale for kind exp."""
    sign = 1.0 if higher else -1.0
    if kind == "exp":
        return sign * (score - dense) - sign * math.log1p(-sign * margin)
    slack: Array = sign * (score - dense) + margin * np.abs(dense)
    return slack


def _yes_no(score: Array, dense: Array, weight: Array) -> bool:
    """Whether all items are answered right or wrong, and count the same."""
    return bool(np.isin(score, (0, 1)).all() and np.isin(dense, (0, 1)).all() and np.ptp(weight) == 0)


def _ratio_state(score: Array, dense: Array, higher: bool, margin: float) -> State:
    """The score test against the margin.

    Resampling would see no spread where hardly an item changes, and call a handful of items a match.
    """
    sign = 1.0 if higher else -1.0
    z = sign * ratio_score(score, dense, 1 - sign * margin)
    return "match" if z >= Z else "fail" if z <= -Z else "undecided"


def _state(slack: Array) -> State:
    low, high = np.quantile(slack, [0.025, 0.975])
    return "match" if low >= 0 else "fail" if high < 0 else "undecided"
