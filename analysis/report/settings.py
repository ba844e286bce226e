"""The numbers of the page: a line per setting (model, label, budget), and its score on every task."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from analysis import collect, style, tables
from analysis.collect import AnalysisError

KEY = ["model", "label", "budget"]
BESIDE = ("kl", "agreement")  # metrics worth an axis though no headline
SPEED = "decode_tps_"
FACTS = (  # column of the page, column of the rows
    ("achieved", "achieved_bytes"),
    ("nominal", "achieved_nominal"),
    ("file", "file_bytes"),
    ("dense_file", "dense_file_bytes"),
    ("scope", "scope_bytes"),
    ("model_bytes", "model_bytes"),
    ("bits_scope", "bits_scope"),
    ("bits", "bits_model"),
    ("compress", "compress_seconds"),
    ("peak", "peak_memory_bytes"),
    ("near", "nearest_budget"),
)
Columns = dict[str, list[Any]]


def plain(value: Any, digits: int = 5) -> Any:
    """A number JSON can hold, in as many figures as a page shows; what is no number is None, or "inf"."""
    if not style.known(value):
        return None
    number = float(value)
    if math.isinf(number):
        return "inf" if number > 0 else "-inf"
    return int(number) if number.is_integer() and abs(number) < 1e15 else float(f"{number:.{digits}g}")


def measured(data: pd.DataFrame) -> pd.DataFrame:
    """Rows with scores that the page shows: headlines, fidelity beside them, decoding speed."""
    metric = data["metric"]
    wanted = data["headline"] | metric.isin(BESIDE) | metric.str.startswith(SPEED)
    chosen = data[(data["task"] != "") & wanted]
    collect.check_protocols(chosen)
    return chosen


def settings(data: pd.DataFrame) -> tuple[Columns, list[tuple[str, str, float]]]:
    """Columns of the settings in reading order, and their keys.

    Raises:
        AnalysisError: there is no cell at all.
    """
    if data.empty:
        raise AnalysisError("study: no cell to show; run a sweep into it first")
    keys: list[tuple[str, str, float]] = []
    out: Columns = {name: [] for name in (*_TEXTS, *(name for name, _ in FACTS), *_OWN)}
    for key, group in data.groupby(KEY, sort=False):
        keys.append(key)
        _line(out, group)
    return out, keys


_TEXTS = ("model", "label", "method", "accounting", "setting", "executed_by")
_OWN = ("budget", "evaluate", "seeds", "cell", "state", "reason", "simulated", "commit")


def _line(out: Columns, group: pd.DataFrame) -> None:
    """One setting: facts are means over its calibration seeds."""
    cells = group.drop_duplicates("cell")
    first, last = cells.iloc[0], group.iloc[-1]
    for name in _TEXTS:
        out[name].append(str(first[name]) if style.known(first.get(name)) else "")
    for name, column in FACTS:
        found = pd.to_numeric(cells[column], errors="coerce") if column in cells else pd.Series(dtype=float)
        out[name].append(plain(found.mean(), 12 if "bytes" in column else 5))
    lost = group[group["state"].isin(style.GONE)]
    scored = bool((group["task"] != "").any())
    out["budget"].append(plain(first["budget"]))
    out["evaluate"].append(plain(tables.eval_seconds(group[group["task"] != ""])))
    out["seeds"].append(len(cells))
    out["cell"].append(str(first["cell"]))
    out["state"].append("dense" if first["method"] == "dense" else "" if scored else str(last["state"]))
    out["reason"].append(collect.why(lost.iloc[-1]) if len(lost) else "")
    out["simulated"].append(int(bool(group["simulated"].any())))
    out["commit"].append(str(first["git"])[:12] if style.known(first.get("git")) else "")


def tasks(points: pd.DataFrame) -> list[dict[str, Any]]:
    """Task and metric of every score column, headlines first, with what a reader must know of it."""
    found = []
    for (task, metric), group in points.groupby(["task", "metric"], sort=False):
        kind = "speed" if metric.startswith(SPEED) else style.kind_of(task, metric)
        log = style.is_perplexity(task, metric) or metric == "kl"
        told = {"task": task, "metric": metric, "kind": kind, "log": log}
        told["higher"] = bool(group["higher_is_better"].iloc[0])
        told["judged"] = bool(group["state"].isin(style.JUDGED).any())
        found.append(told | {"n": plain(group["n"].max()), "chance": plain(group["chance"].max())})
    names = style.short_tasks(dict.fromkeys(t["task"] for t in found))
    for one in found:
        one["name"] = names[one["task"]]
    return sorted(found, key=lambda t: t["kind"] == "speed")


def scores(points: pd.DataFrame, told: list[dict[str, Any]], keys: list[tuple[str, str, float]]) -> Columns:
    """Columns of the scores; `s` and `t` are places in the settings and the tasks."""
    place = {key: i for i, key in enumerate(keys)}
    column = {(t["task"], t["metric"]): i for i, t in enumerate(told)}
    parts = (points[name] for name in (*KEY, "task", "metric"))
    at = [(place[m, name, b], column[t, k]) for m, name, b, t, k in zip(*parts, strict=True)]
    out: Columns = {"s": [s for s, _ in at], "t": [t for _, t in at], "state": list(points["state"])}
    for name, source in (("v", "value"), ("dense", "dense"), ("lo", "value_low"), ("hi", "value_high")):
        out[name] = _each(points[source])
    for name, source in (("dlo", "low"), ("dhi", "high"), ("n", "n"), ("sd", "spread"), ("seeds", "seeds")):
        out[name] = _each(points[source], 4)
    return out


def _each(values: Iterable[Any], digits: int = 5) -> list[Any]:
    """`plain` of every value."""
    return [plain(value, digits) for value in values]


def add_shares(table: Columns, found: Columns, told: list[dict[str, Any]]) -> None:
    """How many judged tasks match dense, of how many; and the measured tokens per second."""
    count = len(table["label"])
    table["match"], table["judged"], table["tps"] = [0] * count, [0] * count, [None] * count
    for s, t, state, value in zip(found["s"], found["t"], found["state"], found["v"], strict=True):
        if state in style.JUDGED:
            table["judged"][s] += 1
            table["match"][s] += state == "match"
        if told[t]["kind"] == "speed" and table["tps"][s] is None:
            table["tps"][s] = value
