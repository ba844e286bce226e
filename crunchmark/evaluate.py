"""From per-item scores to rows: aggregates, error bars, and the paired comparison with dense.

Every task yields `Item`s; all statistics happen here, once, and no task brings its own.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from crunchmark.interface import Item, Metric

MARGIN = 0.05  # LLM-KICK's rule: within 5 % of dense counts as a match
Z = 1.959964  # of a 95 % interval
RESAMPLES = 2000
CHUNK = 4_000_000  # random indices drawn at a time
State = Literal["match", "fail", "undecided"]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Aggregate:
    """One metric over its items; stderr is nan where one item tells nothing about spread."""

    n: int
    value: float
    stderr: float


@dataclass(frozen=True)
class Comparison:
    """A cell against its dense parent on the same items: delta = value - dense, with its 95 % interval."""

    dense: float
    delta: float
    low: float
    high: float
    p_value: float
    state: State


def aggregate(items: Iterable[Item], metrics: Mapping[str, Metric]) -> dict[str, Aggregate]:
    """Weighted mean of each metric's scores, or exp of it, with its standard error over items."""
    groups = _by_metric(items, metrics)
    return {name: _aggregate(groups[name], metric) for name, metric in metrics.items()}


def compare(items: Iterable[Item], dense_items: Iterable[Item], metric: Metric, seed: int = 0) -> Comparison:
    """Compare paired by id; `match` or `fail` only if the whole 95 % interval is on that side of the margin.

    Args:
        items: Of the compressed model; items of other metrics are passed over.
        dense_items: Of the dense parent, the same ids.
        metric: What is compared.
        seed: Of the bootstrap.

    Raises:
        ValueError: The two do not hold the same ids with the same weights.
    """
    score, dense, weight = _paired(items, dense_items, metric.name)
    now, before = _value(score, weight, metric), _value(dense, weight, metric)
    yes_no = _yes_no(score, dense, weight)
    if np.array_equal(score, dense):
        same: State = "match" if len(score) > 1 else "undecided"
        return Comparison(before, 0.0, 0.0, 0.0, 1.0, _ratio_state(score, dense, metric) if yes_no else same)
    if not math.isfinite(now) or not math.isfinite(before):
        state: State = "undecided" if not math.isfinite(before) else "fail"
        return Comparison(before, now - before, math.nan, math.nan, math.nan, state)
    draws = _bootstrap(np.stack([score, dense]), weight, seed)
    gain = np.exp(draws[0]) - np.exp(draws[1]) if metric.kind == "exp" else draws[0] - draws[1]
    low, high = np.quantile(gain, [0.025, 0.975])
    if yes_no:
        state = _ratio_state(score, dense, metric)
    else:
        state = _state(_slack(draws[0], draws[1], metric)) if len(score) > 1 else "undecided"
    return Comparison(before, now - before, float(low), float(high), _p_value(score, dense, gain), state)


def rows(
    task_name: str,
    protocol: str,
    items: Sequence[Item],
    metrics: Mapping[str, Metric],
    dense_items: Sequence[Item] | None,
) -> list[dict[str, Any]]:
    """One flat row per metric, headline first; without dense items the cell is the dense one itself."""
    found = []
    for position, (name, result) in enumerate(aggregate(items, metrics).items()):
        metric = metrics[name]
        row: dict[str, Any] = {
            "task": task_name,
            "metric": name,
            "protocol": protocol,
            "n": result.n,
            "value": result.value,
            "stderr": result.stderr,
            "chance": metric.chance,
            "higher_is_better": metric.higher_is_better,
            "headline": position == 0,
        }
        if dense_items is None:
            row |= dict.fromkeys(("dense", "delta", "low", "high", "p_value")) | {"state": "dense"}
        else:
            row |= vars(compare(items, dense_items, metric))
        found.append({key: _plain(value) for key, value in row.items()})
    return found


def _plain(value: Any) -> Any:
    """Keep everything JSON can hold; a nan becomes None (inf stays: a model that broke)."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _by_metric(items: Iterable[Item], metrics: Mapping[str, Metric]) -> dict[str, list[Item]]:
    groups: dict[str, list[Item]] = {name: [] for name in metrics}
    for item in items:
        if item.metric not in groups:
            raise ValueError(
                f"item {item.id!r} carries the metric {item.metric!r}, which the task does not name"
            )
        groups[item.metric].append(item)
    for name, group in groups.items():
        if not group:
            raise ValueError(f"no items for the metric {name!r}")
    return groups


def _arrays(items: Sequence[Item]) -> tuple[Array, Array]:
    return np.array([i.score for i in items], dtype=float), np.array([i.weight for i in items], dtype=float)


def _value(score: Array, weight: Array, metric: Metric) -> float:
    mean = float(score @ weight / weight.sum())
    return _exp(mean) if metric.kind == "exp" else mean


def _exp(x: float) -> float:
    return math.exp(x) if not x > 700 else math.inf


def _aggregate(items: Sequence[Item], metric: Metric) -> Aggregate:
    """The delta method: the error of exp(mean) is exp(mean) times the error of the mean."""
    score, weight = _arrays(items)
    n, value = len(score), _value(score, weight, metric)
    if n < 2 or not math.isfinite(value):
        return Aggregate(n, value, math.nan)
    share = weight / weight.sum()
    error = math.sqrt(float((share**2 * (score - score @ share) ** 2).sum()) * n / (n - 1))
    return Aggregate(n, value, value * error if metric.kind == "exp" else error)


def _index(items: Iterable[Item], name: str) -> dict[str, Item]:
    found: dict[str, Item] = {}
    for item in items:
        if item.metric == name:
            if item.id in found:
                raise ValueError(f"two items of {name!r} have the id {item.id!r}")
            found[item.id] = item
    if not found:
        raise ValueError(f"no items for the metric {name!r}")
    return found


def _paired(items: Iterable[Item], dense_items: Iterable[Item], name: str) -> tuple[Array, Array, Array]:
    """Scores, dense scores and the weights they share, in the order of `items`."""
    ours, theirs = _index(items, name), _index(dense_items, name)
    for here, there, where in ((theirs, ours, "compressed"), (ours, theirs, "dense")):
        missing = next((key for key in here if key not in there), None)
        if missing is not None:
            raise ValueError(f"{name}: the {where} items lack the id {missing!r}, so they can not be paired")
    score, weight = _arrays(list(ours.values()))
    dense, other = _arrays([theirs[key] for key in ours])
    if not np.array_equal(weight, other):
        odd = next(key for key in ours if ours[key].weight != theirs[key].weight)
        raise ValueError(f"{name}: item {odd!r} weighs {ours[odd].weight}, in dense {theirs[odd].weight}")
    return score, dense, weight


def _bootstrap(scores: Array, weight: Array, seed: int) -> Array:
    """Weighted means of each row of scores (k, n) over the same resampled items, (k, RESAMPLES)."""
    rng, n = np.random.default_rng(seed), scores.shape[1]
    step = max(1, CHUNK // n)
    means = []
    for start in range(0, RESAMPLES, step):
        pick = rng.integers(0, n, (min(step, RESAMPLES - start), n))
        total = weight[pick].sum(1)
        means.append(np.stack([(row * weight)[pick].sum(1) / total for row in scores]))
    return np.concatenate(means, axis=1)


def _slack(score: Array, dense: Array, metric: Metric) -> Array:
    """How far resampled means are inside the margin: positive is good, on the log scale for kind exp."""
    sign = 1.0 if metric.higher_is_better else -1.0
    if metric.kind == "exp":
        return sign * (score - dense) - sign * math.log1p(-sign * MARGIN)
    slack: Array = sign * (score - dense) + MARGIN * np.abs(dense)
    return slack


def _yes_no(score: Array, dense: Array, weight: Array) -> bool:
    """Whether all items are answered right or wrong, and count the same."""
    return bool(np.isin(score, (0, 1)).all() and np.isin(dense, (0, 1)).all() and np.ptp(weight) == 0)


def _ratio_state(score: Array, dense: Array, metric: Metric) -> State:
    """The score test of a ratio of paired proportions against the margin (Nam and Blackwelder, 2002).

    Resampling would see no spread where hardly an item changes, and call a handful of items a match.
    """
    sign = 1.0 if metric.higher_is_better else -1.0
    z = sign * ratio_score(score, dense, 1 - sign * MARGIN)
    return "match" if z >= Z else "fail" if z <= -Z else "undecided"


def ratio_score(score: Array, dense: Array, ratio: float) -> float:
    """Z of P(score = 1) = ratio * P(dense = 1) over paired 0/1 items; 0 where they say nothing.

    The variance is that of the most likely table that obeys the equation.
    """
    n, one, two = len(score), float(score.mean()), float(dense.mean())
    gained, lost = float((score > dense).mean()), float((score < dense).mean())
    root = math.sqrt((one - ratio**2 * two) ** 2 + 4 * ratio**2 * gained * lost)
    gain = (-one + ratio**2 * (two + 2 * gained) + root) / (2 * ratio * (ratio + 1))
    loss = ratio * gain - (ratio - 1) * (two + gained)  # two + gained: all that either answered
    if gain + loss <= 0:
        return 0.0
    return math.sqrt(n) * (one - ratio * two) / math.sqrt(ratio * (gain + loss))


def _state(slack: Array) -> State:
    low, high = np.quantile(slack, [0.025, 0.975])
    return "match" if low >= 0 else "fail" if high < 0 else "undecided"


def _p_value(score: Array, dense: Array, gain: Array) -> float:
    """Two-sided, of no difference: McNemar's exact test for 0/1 scores, else from the paired bootstrap."""
    if np.isin(score, (0, 1)).all() and np.isin(dense, (0, 1)).all():
        lost = int((dense > score).sum())
        odd = int((dense != score).sum())
        return float(binomtest(lost, odd, 0.5).pvalue) if odd else 1.0
    tail = min(int((gain <= 0).sum()), int((gain >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(gain) + 1))
