"""Settings that could be the answer: their size, and what they keep of the tasks that matter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis import collect, draws, pool, style
from analysis.collect import AnalysisError
from crunchmark.store import Store

KEPT = ("match", "dense")


@dataclass(frozen=True)
class Cell:
    """A setting with a file and a score on every task that matters; of several draws the largest file."""

    label: str
    budget: float
    file_bytes: float
    scores: Mapping[str, Any]  # by task: value, dense, low, high, state, higher_is_better
    row: Mapping[str, Any]  # of its first draw that has all the scores
    seeds: int  # draws that have them
    lost: tuple[draws.Lost, ...] = ()  # what became of the others

    @property
    def status(self) -> str:
        """`kept` where every task is, `lost` where one is lost, else `undecided`."""
        states = {score.state for score in self.scores.values()}
        return "kept" if states <= set(KEPT) else "lost" if "fail" in states else "undecided"

    @property
    def said(self) -> str:
        """The status, never without the draws that ended without a score."""
        return ", ".join([self.status, *dict.fromkeys(lost.counted for lost in self.lost)])

    @property
    def draw(self) -> str:
        """Which draw its row is, where there were several."""
        gone = "; ".join(dict.fromkeys(map(str, self.lost)))
        if not gone:
            return f" (draw {self.row['calib_seed']} of {self.seeds})" if self.seeds > 1 else ""
        return f" (draw {self.row['calib_seed']}; {gone})"

    @property
    def loss(self) -> float:
        """What it loses of dense, relative, on the mean over the tasks."""
        signs = [(1.0 if s.higher_is_better else -1.0) * (1 - ratio(s)) for s in self.scores.values()]
        return sum(signs) / len(signs)

    @property
    def name(self) -> str:
        """Method and budget."""
        return self.label if self.label == "dense" else f"{self.label} {style.budget_name(self.budget)}"


def ratio(score: Any) -> float:
    """A score over dense's; 1 is as good, nan where one of them is not there."""
    if score.state == "dense":
        return 1.0
    return score.value / score.dense if style.known(score.value) and style.known(score.dense) else math.nan


def cells(data: pd.DataFrame, keep: Mapping[str, float], store: Store | None, study: str) -> list[Cell]:
    """Every setting that was asked all these tasks and whose size is known, the best first.

    Args:
        data: Rows of one model.
        keep: Share of dense to be kept, by task.
        store: Where the items are, which another share than the rows were judged by needs; None: nowhere.
        study: Its name.
    """
    scores: dict[tuple[str, float], dict[str, Any]] = {}
    for task, share in keep.items():
        for score in judged(data, task, share, store, study).itertuples():
            scores.setdefault((score.label, score.budget), {})[task] = score
    asked = data[data["headline"] & data["task"].isin(list(keep))].groupby("cell")["task"].nunique()
    whole = data[data["cell"].isin(asked[asked == len(keep)].index)].drop_duplicates("cell")
    lost, found = draws.lost(data), []
    for (model, label, budget), group in whole.groupby(draws.SETTING, sort=False):
        own, size = scores[label, budget], group["file_bytes"].max()
        gone = tuple(lost[key] for task in keep if (key := (model, label, budget, task)) in lost)
        if size == size:
            first = group.iloc[0].to_dict()
            found.append(Cell(label, budget, float(size), own, first, len(group), gone))
    return sorted(found, key=_order)


def _order(cell: Cell) -> tuple[bool, float, float]:
    """The least loss first, a loss that is no number last; of equal ones the smaller file."""
    broken = not cell.loss < float("inf")
    return broken, 0.0 if broken else cell.loss, cell.file_bytes


def judged(data: pd.DataFrame, task: str, share: float, store: Store | None, study: str) -> pd.DataFrame:
    """The points of a task's headline, with the state that this share gives: the rows' where it is theirs."""
    chosen = collect.select(data, (), [task])
    collect.check_protocols(chosen)
    states, margin = set(chosen["state"]), 1 - share
    if states & {"chance", "measured"}:
        why = "dense is at chance there" if "chance" in states else "it is told, never judged"
        raise AnalysisError(f"--keep={task}={share:g}: nothing to keep: {why}")
    if ((chosen["margin"].astype(float) - margin).abs() < 1e-9).all():
        found = collect.points(chosen)
    elif store is None:
        raise AnalysisError(f"--keep={task}={share:g}: W&B has no items; valid there is the rows' 0.95")
    else:
        try:
            found = pool.pooled(store, study, chosen.assign(margin=margin))
        except ValueError as problem:
            raise AnalysisError(f"--keep={task}={share:g}: {problem}") from None
    small = found[found["state"] != "dense"]
    if len(small) and small["dense"].isna().all():
        raise AnalysisError(f"--keep={task}={share:g}: the study has no score of dense to compare with")
    return found
