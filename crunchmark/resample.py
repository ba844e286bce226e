"""The bootstrap over items: studentised for means (Efron and Tibshirani 1993), percentile for quantiles.

Percentile intervals of a mean leave 5 to 8 % of the truths on one side where losses are rare or skewed;
dividing by each resample's own standard error takes most of that away.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

Array = NDArray[np.float64]
RESAMPLES = 2000
CHUNK = 4_000_000  # random indices drawn at a time
LEVEL = 0.025  # one-sided, of a match and of a fail
QUANTILES = {"median": 0.5, "p95": 0.95}
LEAST = 1 / 3  # of the sample's standard error: what a resample's own is taken to be at least
EDGE = 0.005  # share of the resamples that the tail of a p-value is read from
FLAT = 1e-9  # of the size of what is estimated: a standard error below is rounding


@dataclass(frozen=True)
class Drawn:
    """What resampling says: of delta its 95 % interval and of no difference a p-value; of the margin two."""

    low: float
    high: float
    p_value: float
    p_match: float
    p_fail: float


def resampled(
    score: Array, dense: Array, weight: Array, kind: str, higher: bool, margin: float, seed: int
) -> Drawn:
    """Compare scores with dense by resampling items; see `paired.compare`."""
    if kind in QUANTILES:
        now, before = bootstrap(np.stack([score, dense]), kind, seed)
        slack = slack_of(now, before, kind, higher, margin)
        low, high = np.quantile(now - before, [LEVEL, 1 - LEVEL])
        p_value = 2 * min(_share(now >= before), _share(now <= before))
        return Drawn(float(low), float(high), min(1.0, p_value), _share(slack < 0), _share(slack >= 0))
    own = _Moments.of(np.ones((1, len(score))), score, dense, weight)
    parts = [_Moments.of(counts, score, dense, weight) for counts in _samples(len(score), seed)]
    drawn = _Moments(*(np.concatenate(part) for part in zip(*(vars(p).values() for p in parts), strict=True)))
    low, high, over, under = _studentised(own.delta(kind), drawn.delta(kind), len(score))
    bar = own.slack(kind, higher, margin), drawn.slack(kind, higher, margin)
    _, _, match, fail = _studentised(*bar, len(score))
    return Drawn(low, high, min(1.0, 2 * min(over, under)), match, fail)


def bootstrap(scores: Array, kind: str, seed: int = 0) -> Array:
    """Quantiles of each row of scores (k, n) over the same resampled items: (k, RESAMPLES)."""
    found = [
        np.stack([np.quantile(row[pick], QUANTILES[kind], axis=1) for row in scores])
        for pick in _picks(scores.shape[1], seed)
    ]
    return np.concatenate(found, axis=1)


def retained(higher: bool, margin: float) -> float:
    """The ratio to dense at the margin."""
    return 1 - margin if higher else 1 + margin


def slack_of(now: Array, before: Array, kind: str, higher: bool, margin: float) -> Array:
    """How far values are inside the margin, positive is good; kind exp takes logs and gives one."""
    sign = 1.0 if higher else -1.0
    if kind == "exp":
        return np.asarray(sign * (now - before - math.log(retained(higher, margin))))
    return np.asarray(sign * (now - before) + margin * np.abs(before))


@dataclass(frozen=True)
class _Moments:
    """Weighted means of both sides and the variances and covariance of these, each (resamples,)."""

    now: Array
    before: Array
    var_now: Array
    var_before: Array
    both: Array

    @classmethod
    def of(cls, counts: Array, score: Array, dense: Array, weight: Array) -> Self:
        """Of samples that hold each item counts (resamples, n) times."""
        at, base = float(score @ weight / weight.sum()), float(dense @ weight / weight.sum())
        x, y, square = score - at, dense - base, weight**2  # centred, so that squares do not cancel
        means = [weight, weight * x, weight * y]
        squares = [square, square * x, square * y, square * x * x, square * y * y, square * x * y]
        sums = counts @ np.stack([*means, *squares], axis=1)
        total, sx, sy, s, qx, qy, qxx, qyy, qxy = sums.T
        x, y, n = sx / total, sy / total, len(score)
        scale = n / max(1, n - 1) / total**2
        var_now, var_before = qxx - 2 * x * qx + x * x * s, qyy - 2 * y * qy + y * y * s
        both = qxy - x * qy - y * qx + x * y * s
        return cls(x + at, y + base, var_now * scale, var_before * scale, both * scale)

    def delta(self, kind: str) -> tuple[Array, Array]:
        """Now less before, and its standard error."""
        if kind == "exp":
            now, before = np.exp(self.now), np.exp(self.before)
            return now - before, self._error(now, before)
        one = np.ones_like(self.now)
        return self.now - self.before, self._error(one, one)

    def slack(self, kind: str, higher: bool, margin: float) -> tuple[Array, Array]:
        """How far inside the margin, and its standard error."""
        one = np.ones_like(self.now)
        sign = 1.0 if higher else -1.0
        share = sign * one if kind == "exp" else sign - margin * np.sign(self.before)
        return slack_of(self.now, self.before, kind, higher, margin), self._error(sign * one, share)

    def _error(self, one: Array, two: Array) -> Array:
        """Standard error of one * now - two * before."""
        parts = one**2 * self.var_now + two**2 * self.var_before
        spread = np.sqrt(np.maximum(parts - 2 * one * two * self.both, 0.0))
        size = np.abs(one * self.now) + np.abs(two * self.before)
        return np.where(spread <= FLAT * size, 0.0, spread)


def _studentised(
    own: tuple[Array, Array], drawn: tuple[Array, Array], n: int
) -> tuple[float, float, float, float]:
    """Interval of an estimate, and p-values of the truth being 0 or less, and 0 or more.

    A resample that misses the few items that differ has no spread of its own; LEAST bounds what it may say.
    """
    (value,), (error,) = (part.tolist() for part in own)
    if error == 0.0:  # every item differs by the same
        floor = 1 / (RESAMPLES + 1)
        return value, value, floor if value > 0 else 1.0, floor if value < 0 else 1.0
    ratio = (drawn[0] - value) / np.maximum(drawn[1], LEAST * error)
    first, last = np.quantile(ratio, [LEVEL, 1 - LEVEL])
    over, under = _tail(ratio, value / error, n), _tail(-ratio, -value / error, n)
    return value - float(last) * error, value - float(first) * error, over, under


def _tail(ratio: Array, seen: float, n: int) -> float:
    """P-value of what was seen; beyond the resamples' last 0.5 % it is Student's tail, scaled to meet them.

    So many cells are judged at once that a p-value has to tell 1e-3 from 1e-6, which counting cannot.
    """
    share, edge = _share(ratio >= seen), float(np.quantile(ratio, 1 - EDGE))
    if share > EDGE or edge <= 0 or seen <= edge:
        return share
    return float(t.sf(seen * float(t.isf(EDGE, n - 1)) / edge, n - 1))


def _share(hits: NDArray[np.bool_]) -> float:
    """Share of the resamples, the sample itself counted among them."""
    return float((hits.sum() + 1) / (len(hits) + 1))


def _picks(n: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Resampled indices (.., n), RESAMPLES rows in all."""
    rng, step = np.random.default_rng(seed), max(1, CHUNK // n)
    for start in range(0, RESAMPLES, step):
        yield rng.integers(0, n, (min(step, RESAMPLES - start), n))


def _counts(pick: NDArray[np.int64]) -> Array:
    """How often each row of pick (rows, n) holds each item."""
    rows, n = pick.shape
    flat = (pick + n * np.arange(rows)[:, None]).ravel()
    return np.bincount(flat, minlength=rows * n).reshape(rows, n).astype(float)


def _samples(n: int, seed: int) -> Iterator[Array]:
    """How often each sample holds each item (.., n); small ones are kept for the next cell of the task."""
    if n * RESAMPLES <= CHUNK:
        yield _kept(n, seed)
    else:
        yield from map(_counts, _picks(n, seed))


@lru_cache(maxsize=4)
def _kept(n: int, seed: int) -> Array:
    return np.concatenate([_counts(pick) for pick in _picks(n, seed)])
