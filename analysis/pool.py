"""Calibration seeds as an axis: one answer per cell over its seeds and its items, from the stored items."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from analysis import crossed
from analysis.style import known
from crunchmark.paired import COVERAGE, KINDS, Array, value_of
from crunchmark.store import Store

POINT = ["model", "label", "budget", "task", "metric"]
KEPT = [
    "kind",
    "margin",
    "higher_is_better",
    "headline",
    "chance",
]  # facts of a metric, the same on all its rows
FOUND = [
    *("seeds", "n", "value", "value_low", "value_high", "stderr", "spread", "dense", "delta", "low", "high"),
    *("p_value", "p_match", "p_fail", "state", "lost", "gained"),
]
POOLED = ("value_low", "value_high", "low", "high", "p_match", "p_fail", "state")  # beside the rows
Side = dict[str, tuple[float | None, float, float | None]]  # by item: score, weight, dense's in that moment


def pooled(store: Store, study: str, data: pd.DataFrame) -> pd.DataFrame:
    """One line per (model, label, budget, task, metric), over its calibration seeds and its items.

    `value` is the mean over seeds, `spread` their standard deviation; `seeds` and `n` count seeds and items.
    `value_low` .. `value_high` and `low` .. `high` (of `delta` = value - dense) are 95 % intervals for
    another draw of both; `p_value` is of no difference, `p_match` and `p_fail` are one-sided against the
    margin, and `state` is what they say at 2.5 % (`dense`, `chance` and `measured` stay). `lost` and `gained`
    are means over seeds. With one seed every figure is what the row says.

    Args:
        store: Where the study is.
        study: Its name.
        data: Rows as `analysis.collect.load` gives them (labelled, one protocol per task), or some of these;
            the dense rows among them are what the others are compared with.

    Raises:
        ValueError: Items of a seed and of dense cannot be paired, or a task was stored without items.
    """
    measured = data[data["task"] != ""]
    reader = Reader(store, study)
    dense = measured[measured["state"] == "dense"].drop_duplicates(["model", "task", "metric"], keep="last")
    parents = {(row.model, row.task, row.metric): row.cell for row in dense.itertuples()}
    lines = []
    for key, group in measured.groupby(POINT, sort=False):
        point = dict(zip(POINT, key, strict=True))
        first = group.iloc[0]
        kept = {name: first.get(name) for name in KEPT} | {"margin": _margin(group)}
        parent = parents.get((point["model"], point["task"], point["metric"]))
        lines.append(point | kept | _line(reader, group, parent))
    return pd.DataFrame(lines, columns=[*POINT, *KEPT, *FOUND])


def beside_rows(data: pd.DataFrame, store: Store, study: str) -> pd.DataFrame:
    """Beside the rows of cells with several calibration seeds, what these say together: `pooled_...`.

    A cell of one seed is its row. Without the store (rows from W&B) there are no items to pool.
    """
    seeds = data.groupby(POINT)["cell"].transform("nunique")
    several = (data["task"] != "") & (seeds > 1)
    if not several.any():
        return data
    found = pooled(store, study, data[several | (data["state"] == "dense")])
    found = found[found["seeds"] > 1].set_index(POINT)[list(POOLED)].add_prefix("pooled_")
    return data.join(found, on=POINT)


@dataclass
class Reader:
    """Scores of stored tasks, each file read once."""

    store: Store
    study: str
    seen: dict[tuple[str, str], dict[str, Side]] = field(default_factory=dict)

    def side(self, cell: str, task: str, metric: str) -> Side:
        """Score, weight, and dense's score of the same moment, of each item of a metric."""
        if (cell, task) not in self.seen:
            self.seen[cell, task] = self._read(cell, task)
        if metric not in self.seen[cell, task]:
            where = f"study {self.study!r}: task {task!r} of cell {cell[:24]!r}"
            raise ValueError(f"{where} has no stored items of its metric {metric!r}")
        return self.seen[cell, task][metric]

    def _read(self, cell: str, task: str) -> dict[str, Side]:
        stored = self.store.get_task(self.study, cell, task) or {}
        if not stored.get("items"):
            raise ValueError(f"study {self.study!r}: task {task!r} of cell {cell[:24]!r} has no stored items")
        found: dict[str, Side] = {}
        for name, metric, score, weight, *extra in stored["items"]:
            beside = (extra[0] or {}).get("dense") if extra else None
            found.setdefault(metric, {})[name] = (_number(score), float(weight), _number(beside))
        return found


def _number(score: Any) -> float | None:
    """None is a score that could not be had; nan is one, of a model that broke."""
    return None if score is None else float(score)


def _line(reader: Reader, group: pd.DataFrame, parent: str | None) -> dict[str, Any]:
    """What the seeds of one cell say together."""
    first, states = group.iloc[0], set(group["state"])
    names = zip(group["cell"], group["task"], group["metric"], strict=True)  # rows are wide: no itertuples
    sides = [reader.side(*name) for name in names]
    own = bool(states & {"dense"})
    dense = None if own or parent is None else reader.side(parent, first["task"], first["metric"])
    scores, before, weight = arrays(sides, dense, f"{first['task']} of {first['label']!r}")
    metric = crossed.Metric(
        kind_of(first, sides[0]),
        bool(first["higher_is_better"]),
        _margin(group),
    )
    if not len(weight):
        nothing = dict.fromkeys(FOUND) | {"seeds": len(sides), "n": 0}
        return nothing | {"state": "dense" if own else "undecided" if metric.margin else "measured"}
    found = crossed.summarise(scores, before, weight, metric)
    if found["state"] == "match" and len(weight) < COVERAGE * len(sides[0]):
        found |= {"p_match": math.nan, "state": "undecided"}
    fixed = "dense" if own else "chance" if "chance" in states else found["state"]
    return found | {"state": fixed}


def _margin(group: pd.DataFrame) -> float | None:
    """Relative loss that is allowed; None: told only."""
    margin = group.iloc[0].get("margin")
    return float(margin) if known(margin) and margin is not pd.NA else None


def kind_of(row: Mapping[str, Any] | pd.Series, side: Side) -> str:
    """What the scores amount to; a row of an older harness does not say, but its value does."""
    if known(row.get("kind")):
        return str(row["kind"])
    score, weight = np.array([[s, w] for s, w, _ in side.values() if s is not None], dtype=float).T
    for kind in KINDS:
        if math.isclose(value_of(score, weight, kind), row["value"], rel_tol=1e-6):
            return kind
    raise ValueError(f"task {row['task']!r}: no kind ({', '.join(KINDS)}) makes {row['value']} of its items")


def arrays(sides: list[Side], dense: Side | None, where: str) -> tuple[Array, Array | None, Array]:
    """Scores (k, n), dense scores (n,) and weights (n,) of the items that all have a score for.

    A dense score is the one of the same moment where the task measured both, the mean over seeds of these.
    """
    every = sides if dense is None else [*sides, dense]
    names = list(every[-1])
    for side in every:
        odd = next(iter(set(side) ^ set(names)), None)
        if odd is not None:
            raise ValueError(f"{where}: item {odd!r} is not in every seed and in dense")
    weights = np.array([[side[name][1] for name in names] for side in every])
    if (weights != weights[0]).any():
        name = names[int((weights != weights[0]).any(0).argmax())]
        raise ValueError(f"{where}: item {name!r} does not weigh the same in every seed and in dense")
    names = [name for name in names if all(side[name][0] is not None for side in every)]
    kept = np.array([[side[name][0] for name in names] for side in sides], dtype=float)
    weight = np.array([every[0][name][1] for name in names])
    if dense is None:
        return kept, None, weight
    return kept, np.array([_before(sides, dense, name) for name in names], dtype=float), weight


def _before(sides: list[Side], dense: Side, name: str) -> Any:
    """What dense scored on an item."""
    beside = [side[name][2] for side in sides]
    there = [score for score in beside if score is not None]
    return float(np.mean(there)) if there else dense[name][0]
