"""From a study (a folder of rows, or a group of W&B runs) to one pandas frame."""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import protocols, schema, unscored
from analysis.label import settle
from analysis.pool import POINT, POOLED, beside_rows
from analysis.style import GONE, JUDGED, budget_name, is_perplexity, known, short_task
from crunchmark.store import Store

COLUMNS = (
    *("study", "cell", "model", "method", "knobs", "budget", "accounting", "calib_seed", "state", "reason"),
    *("reasons", "flags", "coverage"),
    *("nearest_budget", "task", "metric", "headline", "n", "value", "stderr", "chance", "higher_is_better"),
    *("value_low", "value_high", "kind", "margin", "dense", "delta", "low", "high", "p_value", "p_match"),
    *("p_fail", "lost", "gained", "protocol", "achieved_bytes", "achieved_nominal"),
    *("scope_bytes", "dense_scope_bytes", "file_bytes", "dense_file_bytes", "bits_scope", "bits_model"),
    *("simulated", "compress_seconds", "allocate_seconds", "eval_seconds", "peak_memory_bytes"),
    *("method_deterministic", "executed_by", "limit"),
)
NUMBERS = (
    *("budget", "nearest_budget", "n", "value", "stderr", "chance", "dense", "delta", "low", "high"),
    *("p_value", "p_match", "p_fail", "lost", "gained", "value_low", "value_high"),
    *("achieved_bytes", "achieved_nominal", "scope_bytes", "dense_scope_bytes", "file_bytes"),
    *("dense_file_bytes", "bits_scope", "bits_model", "compress_seconds", "eval_seconds"),
    *("peak_memory_bytes", "coverage", "allocate_seconds", "limit"),
)
BADGES = ("compute_bound", "memory_bound", "launch_bound")  # flags that are no warnings
TEXTS = ("model", "method", "knobs", "accounting", "state", "reason", "task", "metric", "protocol")
TEXTS += ("executed_by",)


class AnalysisError(ValueError):
    """What was asked for cannot be shown; the message is one line and names the field."""


def frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a frame with every column of the contract, typed, labelled and in reading order.

    Raises:
        AnalysisError: a row is of a newer schema than this code knows.
    """
    try:
        data = pd.DataFrame(schema.current(rows))
    except ValueError as newer:
        raise AnalysisError(str(newer)) from None
    for column in COLUMNS:
        if column not in data:
            data[column] = None
    for column in NUMBERS:
        data[column] = pd.to_numeric(data[column], errors="coerce").astype(float)
    for column in TEXTS:
        data[column] = data[column].map(lambda v: str(v) if known(v) else "").astype(object)
    for column in ("headline", "higher_is_better", "simulated"):  # no scores: none of them
        data[column] = [known(v) and bool(v) for v in data[column]]
    told = ["; ".join(dict.fromkeys(unscored.reasons(row).values())) for row in data.itertuples()]
    data["reason"] = [every or one for every, one in zip(told, data["reason"], strict=True)]
    data["budget"] = data["budget"].fillna(0.0).round(6)
    data["compress_seconds"] += data["allocate_seconds"].fillna(0.0)  # what a search took is no less spent
    dense = data[data["method"] == "dense"].groupby("model")["file_bytes"].max()
    data["dense_file_bytes"] = data["dense_file_bytes"].fillna(data["model"].map(dense))
    data.loc[at_chance(data) & data["state"].isin(JUDGED), "state"] = "chance"
    return protocols.one_each(settle(data))


def at_chance(points: pd.DataFrame) -> pd.Series:
    """Where dense itself hardly beats chance, so that there is nothing to keep."""
    return points["higher_is_better"] & (points["dense"] <= points["chance"].fillna(0.0) * 1.25 + 0.02)


def load(study: str, store_root: str | Path = "results") -> pd.DataFrame:
    """All rows of a study in a store."""
    root = Path(store_root)
    if not root.is_dir():
        raise AnalysisError(f"store={str(root)!r}: no such folder; run a sweep first or pass --store")
    store = Store(root)
    try:
        names = store.studies()
        rows = store.rows(study) if study in names else []
        data = beside_rows(frame(rows), store, study) if rows else None
    except ValueError as damaged:
        raise AnalysisError(str(damaged)) from None
    if data is not None:
        return data
    if study in names:
        ask = shlex.join(["python", "-m", "analysis.status", study, "--store", str(root)])
        raise AnalysisError(f"study={study!r}: no task of it is finished yet; see {ask}")
    raise AnalysisError(missing("study", study, names, str(root)))


def missing(field: str, name: str, names: list[str], where: str) -> str:
    """One line: what is missing, what is there, and what was probably meant."""
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{field}={name!r}: no rows in {where}; known: {', '.join(names[:20]) or 'none'}{hint}"


def load_wandb(where: str, study: str, api: Any = None) -> pd.DataFrame:
    """Rows from the summaries of the runs of one group: `where` is wandb:entity/project.

    Of a cell that several runs hold, the rows written last count.
    """
    kind, _, path = where.partition(":")
    if kind != "wandb" or path.count("/") != 1 or not all(path.split("/")):
        raise AnalysisError(f"--from={where!r}: valid is wandb:entity/project")
    try:
        runs, groups = _runs(api, path, study)
    except Exception as problem:  # the client's own kinds of error, its transport's, and ValueError
        text = " ".join(f"{type(problem).__name__}: {problem}".split())
        hint = "check entity/project, the key (`wandb login`) and the network"
        raise AnalysisError(f"--from={where!r}: no answer from W&B ({text}); {hint}") from None
    rows = [row for name, _, text in runs if text is not None for row in _summary_rows(name, text)]
    if runs and not rows:
        states = ", ".join(dict.fromkeys(state for _, state, _ in runs))
        raise AnalysisError(
            f"study={study!r}: none of its {len(runs)} runs in {where} has rows yet ({states})"
        )
    if not rows:
        raise AnalysisError(missing("study", study, groups, where))
    return frame(_newest(rows))


def _runs(api: Any, path: str, study: str) -> tuple[list[tuple[str, str, Any]], list[str]]:
    """Name, state and stored rows of each run of the group; where it has no run, all groups there are."""
    if api is None:
        import wandb

        # Without bounds of their own, requests nobody answers keep the process alive after the error.
        wandb.setup(wandb.Settings(silent=True, x_graphql_timeout_seconds=20, x_graphql_retry_max=1))
        api = wandb.Api(timeout=20)
    found = api.runs(path, filters={"group": study}, lazy=False)
    runs = [(run.name, run.state, run.summary.get("rows")) for run in found]
    groups = [] if runs else sorted({str(run.group) for run in api.runs(path) if run.group})
    return runs, groups


def _summary_rows(name: str, text: Any) -> list[dict[str, Any]]:
    """The rows a run left in its summary."""
    try:
        return [dict(row) for row in json.loads(text)]
    except (TypeError, ValueError) as problem:
        raise AnalysisError(f"run {name!r}: summary 'rows' is not a JSON list of rows ({problem})") from None


def _newest(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per cell what was written last, each metric once; of two equally old rows the later run's."""
    last: dict[Any, float] = {}
    for row in rows:
        last[row.get("cell")] = max(last.get(row.get("cell"), 0.0), row.get("written") or 0.0)
    fresh = [row for row in rows if (row.get("written") or 0.0) == last[row.get("cell")]]
    return list({(row.get("cell"), row.get("task"), row.get("metric")): row for row in fresh}.values())


def check_protocols(data: pd.DataFrame) -> None:
    """Refuse to put numbers of different protocols into one column.

    Raises:
        AnalysisError: a task of these rows was asked under two; names both ids, their cells and the remedy.
    """
    mixed = protocols.lines(data, "mixed")
    if mixed:
        more = f" (and of {len(mixed) - 1} more tasks)" if len(mixed) > 1 else ""
        raise AnalysisError(f"{mixed[0]}{more}; {protocols.REMEDY}")


def select(data: pd.DataFrame, metrics: Sequence[str] = (), tasks: Sequence[str] = ()) -> pd.DataFrame:
    """Measured rows of the wanted metrics (headline ones by default) and tasks."""
    measured = data[data["task"] != ""]
    for field, wanted in (("metric", metrics), ("task", tasks)):
        there = list(dict.fromkeys(measured[field]))
        for name in wanted:
            if name not in there and name != "all" and f"nano_{name}" not in there:
                raise AnalysisError(f"--{field}={name!r}: not in this study; valid: all, {', '.join(there)}")
    if tasks and "all" not in tasks:
        wanted = {task if task in there else f"nano_{task}" for task in tasks}
        measured = measured[measured["task"].isin(wanted)]
    if not metrics:
        return measured[measured["headline"]]
    return measured if "all" in metrics else measured[measured["metric"].isin(metrics)]


def points(measured: pd.DataFrame) -> pd.DataFrame:
    """One line per (model, label, budget, task, metric): calibration seeds become mean and spread.

    Interval, p-values and state are those of all seeds and items together where the items were at hand; else
    seeds that disagree are undecided.
    """
    grouped = measured.groupby(POINT, sort=False)
    lines = grouped[list(_FACTS)].mean()
    lines["higher_is_better"] = grouped["higher_is_better"].first()
    lines["seeds"] = grouped.size()
    lines["spread"] = grouped["value"].std(ddof=1)
    lines["broken"] = broken(measured, POINT)
    lines["flags"] = grouped["flags"].agg(lambda flags: " ".join(f"{k}={n}" for k, n in _most(flags).items()))
    lines["state"] = grouped["state"].first().where(grouped["state"].nunique() == 1, "undecided")
    for name in POOLED:
        one = grouped[name].first().where(lines["seeds"] == 1) if name != "state" else lines["state"]
        both = grouped[f"pooled_{name}"].first() if f"pooled_{name}" in measured else None
        lines[name] = one if both is None else both.where(both.notna(), one)
    return lines.reset_index()


def broken(measured: pd.DataFrame, keys: Sequence[str]) -> pd.Series:
    """By these keys which calibration seeds of several have no finite score."""
    several = measured.groupby(list(keys), sort=False, dropna=False)["cell"].transform("size") > 1
    odd = measured[several & (measured["state"] == "fail") & ~np.isfinite(measured["value"])]
    seeds = odd.groupby(list(keys), dropna=False)["calib_seed"]
    return seeds.agg(lambda own: ", ".join(f"{seed:g}" for seed in own))


def broken_note(point: Any, name: str) -> str:
    """The footnote of a cell that broke under a seed."""
    if not known(point.broken):
        return ""
    at = f"{name} at {budget_name(point.budget)}, {short_task(point.task)}"
    whole = ", which is a fail of all" if point.state == "fail" else ""
    return f"{at}: no finite score with seed {point.broken} ({point.seeds} seeds){whole}"


_FACTS = (
    *("value", "stderr", "dense", "chance", "n", "achieved_bytes", "achieved_nominal"),
    *("file_bytes", "dense_file_bytes", "coverage"),
)


def gain(both: pd.DataFrame) -> pd.Series:
    """What `value` is better by than `value_plain`: in per cent of a plain perplexity, else in points."""
    ppl = [is_perplexity(t, m) for t, m in zip(both["task"], both["metric"], strict=True)]
    sign = np.where(both["higher_is_better"], 1.0, -1.0)
    points = 100 * sign * (both["value"] - both["value_plain"])
    lower = 100 * (1 - both["value"].where(ppl, 1.0) / both["value_plain"].where(ppl, 1.0))
    return lower.where(ppl, points)


def gone(data: pd.DataFrame) -> pd.DataFrame:
    """Cells without scores, once each: skipped, unreachable, failed."""
    lost = data[data["state"].isin(GONE)]
    return lost.drop_duplicates(["model", "label", "budget"], keep="last")


def _most(flags: Iterable[Any]) -> dict[str, int]:
    """How many items carry each flag in the row that has most of them."""
    most: dict[str, int] = {}
    for found in flags:
        for flag, count in (found if isinstance(found, dict) else {}).items():
            most[flag] = max(most.get(flag, 0), int(count))
    return dict(sorted(most.items()))


def flagged(measured: pd.DataFrame) -> list[str]:
    """A line per task whose items carry flags or lack scores: the most that any of its cells has."""
    lines = []
    for task, group in measured.groupby("task", sort=False):
        most = _most(group["flags"])
        parts = [f"{flag} {count}" for flag, count in most.items() if flag not in BADGES]
        least = group["coverage"].min()
        parts += [f"scores for {least:.0%}"] if least < 1 else []
        items = (group["n"] / group["coverage"].where(group["coverage"] > 0)).max()
        of = f" of {items:.0f} items" if items == items else ""
        lines += [f"{task}: {', '.join(parts)}{of}"] if parts else []
    return lines
