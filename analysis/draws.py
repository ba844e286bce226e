"""Calibration draws of a setting that ended without a score, beside those that have one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis import style, unscored

SETTING = ["model", "label", "budget"]
Key = tuple[str, str, float, str]  # model, label, budget, task


@dataclass(frozen=True)
class Lost:
    """How many of a setting's draws have no score on a task, and why."""

    draws: int
    why: tuple[str, ...]

    @property
    def counted(self) -> str:
        """`1 of 2 draws failed`."""
        states = Counter(text.partition(":")[0] for text in self.why)
        return ", ".join(f"{count} of {self.draws} draws {state}" for state, count in states.items())

    def __str__(self) -> str:
        reasons = dict.fromkeys(text.partition(": ")[2] for text in self.why)
        return f"{self.counted}: {'; '.join(reasons)}"


def lost(data: pd.DataFrame) -> dict[Key, Lost]:
    """What is lost of settings and tasks that have a score by another draw."""
    scored: dict[tuple[Any, ...], dict[str, set[str]]] = {}
    for key, cells in data[data["task"] != ""].groupby([*SETTING, "task"], sort=False)["cell"]:
        *setting, task = key
        scored.setdefault(tuple(setting), {})[task] = set(cells)
    gone: dict[Key, list[str]] = {}
    for row in data[data["state"].isin(style.GONE)].drop_duplicates("cell", keep="last").itertuples():
        for task, cells in scored.get((row.model, row.label, row.budget), {}).items():
            why = "" if row.cell in cells else unscored.reason_of(row, task)
            if why:
                gone.setdefault((row.model, row.label, row.budget, task), []).append(why)
    return {
        (*setting, task): Lost(len(scored[tuple(setting)][task]) + len(why), tuple(why))
        for (*setting, task), why in gone.items()
    }


def note(found: dict[Key, Lost], point: Any) -> str:
    """Beside a point's score: `1 of 2 draws failed: no memory`; empty where none is lost."""
    own = found.get((point.model, point.label, point.budget, point.task))
    return "" if own is None else str(own)


def standing(data: pd.DataFrame) -> pd.DataFrame:
    """A row per cell that stands for its setting: those with scores, and all of a setting that has none."""
    cells = data.drop_duplicates("cell")
    scored = cells["cell"].isin(data.loc[data["task"] != "", "cell"])
    return cells[scored | ~scored.groupby([cells[name] for name in SETTING]).transform("any")]
