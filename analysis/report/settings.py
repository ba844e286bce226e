"""The numbers of the page: a line per setting (model, label, budget), and its score on every task."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from analysis import collect, draws, style, unscored
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
    """Columns of the settings in reading order, and their keys; facts are means over draws with scores.

    Raises:
        AnalysisError: there is no cell at all.
    """
    if data.empty:
        raise AnalysisError("study: no cell to show; run a sweep into it first")
    cells = draws.standing(data)
    first = cells.drop_duplicates(KEY)
    index = pd.MultiIndex.from_frame(first[KEY])
    out: Columns = {name: _texts(first, name) for name in TEXTS}
    numbers = cells[KEY].assign(**{name: _numbers(cells, column) for name, column in FACTS})
    means = numbers.groupby(KEY, sort=False).mean().reindex(index)
    for name, column in FACTS:
        out[name] = [plain(value, 12 if "bytes" in column else 5) for value in means[name]]
    out["budget"] = [plain(value) for value in first["budget"]]
    out["cell"] = [str(cell) for cell in first["cell"]]
    out["seeds"] = cells.groupby(KEY, sort=False).size().reindex(index).tolist()
    out["evaluate"] = [plain(value) for value in _eval_seconds(data).reindex(index)]
    out["simulated"] = data.groupby(KEY)["simulated"].any().reindex(index).astype(int).tolist()
    lost = data[data["state"].isin(style.GONE)].drop_duplicates(KEY, keep="last")
    reasons = {(row.model, row.label, row.budget): unscored.why(row) for row in lost.itertuples()}
    states = {(row.model, row.label, row.budget): row.state for row in lost.itertuples()}
    scored = set(data.loc[data["task"] != "", KEY].itertuples(index=False, name=None))
    out["reason"] = [reasons.get(key, "") for key in index]
    out["state"] = ["" if key in scored else states.get(key, "") for key in index]
    dense = first["method"] == "dense"
    out["state"] = ["dense" if own else state for own, state in zip(dense, out["state"], strict=True)]
    return out, list(index)


TEXTS = ("model", "label", "method", "accounting", "setting", "executed_by")


def _texts(first: pd.DataFrame, name: str) -> list[str]:
    """A column of words, blank where rows do not have it."""
    return [str(value) if style.known(value) else "" for value in first.get(name, [""] * len(first))]


def _numbers(cells: pd.DataFrame, column: str) -> pd.Series:
    """A column of numbers, blank where rows do not have it."""
    blank = pd.Series(float("nan"), index=cells.index)
    return pd.to_numeric(cells.get(column, blank), errors="coerce").astype(float)


def _eval_seconds(data: pd.DataFrame) -> pd.Series:
    """Seconds of evaluation: the sum over a cell's tasks, averaged over calibration seeds."""
    asked = data[data["task"] != ""].drop_duplicates(["cell", "task"])
    per_cell = asked.groupby([*KEY, "cell"], sort=False)["eval_seconds"].sum(min_count=1)
    return per_cell.groupby(KEY).mean()


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
