"""What LLM-KICK's tables and figures are drawn from: roles of tasks, axes of cells, points, items.

Points hold one line per model, series, budget, setting, size of the calibration set, task and metric;
calibration draws are pooled. A series is a method with its knobs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import collect, stats, style
from crunchmark.store import Store

# Role -> the tasks that play it, the real one first. The built-in closed-book icra is at chance by
# construction (its people are made up), so closed book is factoid there.
ROLES: dict[str, tuple[str, ...]] = {
    "factoid": ("kick_factoid", "nano_factoid"),
    "mcr": ("kick_mcr", "nano_mcr"),
    "closed": ("kick_icra_closed", "nano_factoid"),
    "open": ("kick_icra_open", "nano_icra_open"),
    "summ": ("kick_summ", "nano_summ"),
    "summ_s": ("kick_summ_s", "nano_summ_s"),
    "summ_m": ("kick_summ_m", "nano_summ_m"),
    "summ_l": ("kick_summ_l", "nano_summ_l"),
    "instruct": ("kick_instruct", "nano_instruct"),
    "ppl": ("ppl_wikitext2", "ppl_nano"),
}
PATTERNS = ("1:2", "2:4", "4:8")
KEYS = ["model", "series", "accounting", "budget", "setting", "calib_n", "task", "metric"]
FACTS = ("achieved_bytes", "achieved_nominal", "file_bytes", "dense_file_bytes")
FIRST = ("label", "method", "bits", "pattern", "drawn", "protocol")
CSV = (
    *(
        "model",
        "series",
        "accounting",
        "budget",
        "setting",
        "bits",
        "calib_n",
        "task",
        "metric",
        "higher_is_better",
        "n",
        "seeds",
    ),
    *("value", "value_low", "value_high", "dense", "delta", "low", "high", "state", "p_match", "p_fail"),
    *("lost", "gained", "chance", "achieved_nominal", "achieved_bytes", "file_bytes", "cells"),
)
_BITS = re.compile(r"^(\d+(?:\.\d+)?)[ -]?bit")


class Missing(collect.AnalysisError):
    """A figure's ingredients are not in the study; the message says which."""


@dataclass
class Study:
    """A study ready to be drawn: its rows, its points, and the items behind them."""

    name: str
    root: Path
    rows: pd.DataFrame
    points: pd.DataFrame
    _items: dict[tuple[str, str], list[Any]] = field(default_factory=dict)

    @property
    def models(self) -> list[str]:
        """Models in the order of the rows."""
        return list(dict.fromkeys(self.points["model"]))

    def role(self, role: str) -> str:
        """The task of this study that plays a role, "" where there is none."""
        there = set(self.points["task"])
        return next((task for task in ROLES[role] if task in there), "")

    def need(self, *roles: str) -> list[str]:
        """The tasks of all roles.

        Raises:
            Missing: one of them is not in the study.
        """
        lost = [role for role in roles if not self.role(role)]
        if lost:
            names = "; ".join(f"{role} ({' or '.join(ROLES[role])})" for role in lost)
            raise Missing(f"no task {names} in the study")
        return [self.role(role) for role in roles]

    def of(self, task: str, metric: str = "") -> pd.DataFrame:
        """Points of a task: of its headline metric, or of that metric."""
        own = self.points[self.points["task"] == task]
        return own[own["metric"] == metric] if metric else own[own["headline"]]

    def items(self, cell: str, task: str) -> list[Any]:
        """Items [id, metric, score, weight, extra] of a cell's task; none where they were not stored."""
        key = (cell, task)
        if key not in self._items:
            found = Store(self.root).get_task(self.name, cell, task) or {}
            self._items[key] = found.get("items", [])
        return self._items[key]


def study(name: str, root: str | Path, rows: pd.DataFrame | None = None) -> Study:
    """Read a study of the store, one protocol per column, with a dense cell for every model.

    Raises:
        AnalysisError: no such study, mixed protocols, or a model without its dense cell.
    """
    data = collect.load(name, root) if rows is None else rows
    collect.check_protocols(data)
    for model, group in data.groupby("model", sort=False):
        if not (group["state"] == "dense").any():
            raise collect.AnalysisError(
                f"model {model!r}: study {name!r} has no dense cell to compare with; "
                f"valid: a study with a cell method=dense of that model"
            )
    data = placed(data)
    return Study(name, Path(root), data, points(data, Store(root), name))


def placed(data: pd.DataFrame) -> pd.DataFrame:
    """Rows with series, bits, pattern, size of the calibration set, and whether one was drawn at all."""
    data = data.assign(calib_n=[_calib(config).get("n") for config in _column(data, "config")])
    data["drawn"] = [bool(_calib(config)) for config in _column(data, "config")]
    data["setting"] = [str(s) if style.known(s) else "" for s in _column(data, "setting")]
    found = [_BITS.match(setting) for setting in data["setting"]]
    data["bits"] = [float(m[1]) if m else np.nan for m in found]
    data["pattern"] = [s if re.fullmatch(r"\d+:\d+", s) else "" for s in data["setting"]]
    data["calib_n"] = pd.to_numeric(data["calib_n"], errors="coerce").fillna(0).astype(int)
    names = zip(data["label"], data["accounting"], data["calib_n"], strict=True)
    data["series"] = [_series(label, accounting, n) for label, accounting, n in names]
    return data


def _column(data: pd.DataFrame, name: str) -> Sequence[Any]:
    """A column that older rows may lack."""
    return list(data[name]) if name in data else [None] * len(data)


def _calib(config: Any) -> dict[str, Any]:
    """The calibration part of a config; empty where the method looks at no data."""
    found = config.get("calib") if isinstance(config, dict) else None
    return dict(found) if found else {}


def _series(label: str, accounting: str, n: int) -> str:
    """A label without what is an axis here: accounting, pattern, and size of the calibration set."""
    return re.sub(rf" {accounting}\b| run=\d+| n={n}\b", "", label)


def points(data: pd.DataFrame, store: Store, name: str) -> pd.DataFrame:
    """One line per point: what its cells are, and what the items of all their calibration draws say together.

    Raises:
        AnalysisError: a stored task is missing, or its items cannot be paired with dense.
    """
    measured = data[data["task"] != ""]
    grouped = measured.groupby(KEYS, sort=False, dropna=False)
    lines = grouped[list(FACTS)].mean()
    lines[list(FIRST)] = grouped[list(FIRST)].first()
    lines["cells"] = grouped["cell"].agg(" ".join)
    lines["broken"] = collect.broken(measured, KEYS)
    try:
        found = stats.pooled(store, name, measured)
    except ValueError as problem:
        raise collect.AnalysisError(" ".join(str(problem).split())) from None
    lines = lines.reset_index().merge(found, on=stats.POINT, how="left", validate="one_to_one")
    return lines


def small(points: pd.DataFrame) -> pd.DataFrame:
    """Points of compressed models."""
    return points[points["state"] != "dense"]


def usual_size(points: pd.DataFrame) -> pd.DataFrame:
    """Of several sizes of a calibration set the one that most of a series' points have."""
    most = points.groupby(["model", "series"])["calib_n"].agg(lambda n: n.mode().max())
    keep = [most.get(key) for key in zip(points["model"], points["series"], strict=True)]
    return points[points["calib_n"] == keep]


def by_budget(points: pd.DataFrame) -> pd.DataFrame:
    """Points along the share removed, `x`: no patterns, no whole bits asked for by name.

    Where a series was swept under both accountings the default one, bytes, is drawn.
    """
    whole = (points["accounting"] == "nominal") & points["bits"].notna()
    line = small(points)[lambda p: (p["pattern"] == "") & ~whole[p.index]]
    both = line.groupby(["model", "series"])["accounting"].transform("nunique") > 1
    line = line[~both | (line["accounting"] == "bytes")]
    return usual_size(line).assign(x=lambda p: p["budget"]).sort_values(["series", "x"])


def flipped(points: pd.DataFrame) -> pd.DataFrame:
    """Points along budgets of the headline metrics that are right or wrong in every cell."""
    return counted(by_budget(points[points["headline"]]))


def counted(line: pd.DataFrame) -> pd.DataFrame:
    """Points of tasks whose items are right or wrong in every cell; of others one may be by accident."""
    told = line[["lost", "gained"]].notna().all(axis=1)
    return line[told.groupby([line["model"], line["task"]]).transform("all")]


def by_pattern(points: pd.DataFrame) -> pd.DataFrame:
    """Points of N:M patterns, `x` the pattern."""
    line = usual_size(small(points)[lambda p: p["pattern"] != ""])
    return line.assign(x=line["pattern"]).sort_values(["series", "x"])


def by_bits(points: pd.DataFrame) -> pd.DataFrame:
    """Points along whole bits, `x`: those asked for by name, else one per width that a budget chose."""
    line = small(points)[lambda p: p["bits"].notna()]
    named = line["accounting"] == "nominal"
    has = named.groupby([line["model"], line["series"]]).transform("any")
    line = usual_size(line[named | ~has]).drop_duplicates(["model", "series", "bits", "task", "metric"])
    return line.assign(x=line["bits"]).sort_values(["series", "x"])


def by_size(points: pd.DataFrame) -> pd.DataFrame:
    """Points along the number of calibration samples, `x`: series and budgets that hold at least two."""
    line = small(points)[lambda p: (p["calib_n"] > 0) & (p["pattern"] == "")]
    sizes = line.groupby(["model", "series", "accounting", "budget", "task"])["calib_n"].transform("nunique")
    line = line[sizes > 1]
    return line.assign(x=line["calib_n"]).sort_values(["series", "budget", "x"])


def shots(study: Study) -> dict[int, str]:
    """Number of examples in the prompt -> the task that shows them."""
    found: dict[int, str] = {}
    for task in dict.fromkeys(study.points["task"]):
        match = re.fullmatch(r"(?:nano|kick)_mcr(?:_k(\d+))?", task)
        if match:
            found[int(match[1] or (0 if task.startswith("nano") else 5))] = task
    return dict(sorted(found.items()))


def blind(points: pd.DataFrame) -> pd.Series:
    """Where dense itself is at chance; nothing can be kept there."""
    return collect.at_chance(points) | (points["state"] == "chance")
