"""From per-item scores to rows: aggregates, error bars, and the paired comparison with dense.

Every task yields `Item`s; all statistics happen here and in `paired`, once, and no task brings its own.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from crunchmark.paired import COVERAGE, Comparison, error_of, interval_of, state_of, value_of
from crunchmark.paired import compare as compare_arrays
from crunchmark.resample import Array
from crunchmark.task import Item, Metric


@dataclass(frozen=True)
class Aggregate:
    """One metric over its scored items; stderr is nan where one item tells nothing about spread."""

    n: int
    value: float
    stderr: float
    low: float  # 95 % interval of value
    high: float
    coverage: float = 1.0  # share of the items that have a score


def aggregate(items: Iterable[Item], metrics: Mapping[str, Metric]) -> dict[str, Aggregate]:
    """What each metric's scores amount to, with its standard error over items."""
    groups = _by_metric(items, metrics)
    return {name: _aggregate(groups[name], metric) for name, metric in metrics.items()}


def compare(items: Iterable[Item], dense_items: Iterable[Item], metric: Metric, seed: int = 0) -> Comparison:
    """Compare paired by id, over the items that both sides have a score for.

    Args:
        items: Of the compressed model; items of other metrics are passed over.
        dense_items: Of the dense parent, the same ids.
        metric: What is compared.
        seed: Of the bootstrap.

    Raises:
        ValueError: The two do not hold the same ids with the same weights.
    """
    ours, theirs = _index(items, metric.name), _index(dense_items, metric.name)
    score, dense, weight = _paired(ours, theirs, metric.name)
    if not len(score):
        none = math.nan
        return Comparison(none, none, none, none, none, none, none, state_of(none, none, metric.margin))
    found = compare_arrays(
        score, dense, weight, metric.kind, metric.higher_is_better, metric.margin, seed=seed
    )
    thin = len(score) < COVERAGE * len(ours) and found.state == "match"
    return replace(found, p_match=math.nan, state="undecided") if thin else found


def rows(
    task_name: str,
    protocol: str,
    items: Sequence[Item],
    metrics: Mapping[str, Metric],
    dense_items: Sequence[Item] | None,
) -> list[dict[str, Any]]:
    """One flat row per metric, headline first; without dense items the cell is the dense one itself."""
    found = []
    flags = _flags(items)
    for position, (name, result) in enumerate(aggregate(items, metrics).items()):
        metric = metrics[name]
        row: dict[str, Any] = {
            "task": task_name,
            "metric": name,
            "protocol": protocol,
            "n": result.n,
            "value": result.value,
            "stderr": result.stderr,
            "value_low": result.low,
            "value_high": result.high,
            "coverage": result.coverage,
            "flags": flags.get(name, {}),
            "chance": metric.chance,
            "kind": metric.kind,
            "margin": metric.margin,
            "higher_is_better": metric.higher_is_better,
            "headline": position == 0,
        }
        if dense_items is None:
            row |= dict.fromkeys(f.name for f in fields(Comparison)) | {"state": "dense"}
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


def _flags(items: Iterable[Item]) -> dict[str, dict[str, int]]:
    """How many items of each metric carry each flag; `empty` are those with nothing said in a turn."""
    found: dict[str, Counter[str]] = {}
    for item in items:
        said = item.extra.get("prediction")
        turns = said if isinstance(said, list) else [said]
        silent = bool(turns) and all(isinstance(turn, str) and not turn.strip() for turn in turns)
        empty = ["empty"] if silent else []
        found.setdefault(item.metric, Counter()).update({*item.extra.get("flags", ()), *empty})
    return {name: dict(sorted(count.items())) for name, count in found.items()}


def _aggregate(items: Sequence[Item], metric: Metric) -> Aggregate:
    scored = [i for i in items if i.score is not None]
    if not scored:
        return Aggregate(0, math.nan, math.nan, math.nan, math.nan, 0.0)
    score = np.array([i.score for i in scored], dtype=float)
    weight = np.array([i.weight for i in scored], dtype=float)
    value, error = value_of(score, weight, metric.kind), error_of(score, weight, metric.kind)
    low, high = interval_of(score, weight, metric.kind)
    return Aggregate(len(scored), value, error, low, high, len(scored) / len(items))


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


def _paired(ours: Mapping[str, Item], theirs: Mapping[str, Item], name: str) -> tuple[Array, Array, Array]:
    """Scores, dense scores and the weights they share, in the order of `ours`, where both have a score."""
    for here, there, where in ((theirs, ours, "compressed"), (ours, theirs, "dense")):
        missing = next((key for key in here if key not in there), None)
        if missing is not None:
            raise ValueError(f"{name}: the {where} items lack the id {missing!r}, so they can not be paired")
    both = [k for k in ours if ours[k].score is not None and theirs[k].score is not None]
    odd = next((key for key in both if ours[key].weight != theirs[key].weight), None)
    if odd is not None:
        raise ValueError(f"{name}: item {odd!r} weighs {ours[odd].weight}, in dense {theirs[odd].weight}")
    score = np.array([ours[k].score for k in both], dtype=float)
    # what the parent scored in the same moment, where the task measured both, else what it scored by itself
    dense = np.array([ours[k].extra.get("dense", theirs[k].score) for k in both], dtype=float)
    return score, dense, np.array([ours[k].weight for k in both], dtype=float)
