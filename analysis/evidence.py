"""What hypotheses are decided on: states that hold over a family, limits with their doubt, paired gains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t

from analysis import crossed, kick_data, stats, style
from analysis.kick_data import Missing, Study
from crunchmark import paired

PRUNERS = ("magnitude", "sparsegpt", "wanda")  # the paper's
SEEDS = 3
STEP = 0.10  # of the paper's grid: across a wider hole nothing is known of a limit
UNREAD = ("truncated", "too_long")  # flags of items whose prompt did not fit; what an answer was is a score
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Reach:
    """Between which sparsities a contiguous limit lies: undecided cells as fails, and as matches.

    Where a grid has a hole wider than the paper's step, the upper end is a step below the cell behind it.
    """

    low: float
    high: float  # infinite where no cell of the grid fails

    def __str__(self) -> str:
        if self.high == self.low:
            return f"{100 * self.low:.3g} %"
        top = "beyond the grid" if np.isinf(self.high) else f"{100 * self.high:.3g} %"
        return f"{100 * self.low:.3g} % to {top}"


@dataclass(frozen=True)
class Gain:
    """A difference of two means over the same items, with its 95 % interval."""

    mean: float
    low: float
    high: float
    p: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


@dataclass
class Evidence:
    """One model of a study."""

    study: Study
    model: str

    @cached_property
    def points(self) -> pd.DataFrame:
        """The model's points."""
        return self.study.points[self.study.points["model"] == self.model]

    def of(self, role: str, metric: str = "") -> pd.DataFrame:
        """Points of the task that plays a role.

        Raises:
            Missing: none does.
        """
        (task,) = self.study.need(role)
        own = self.points[self.points["task"] == task]
        return own[own["metric"] == metric] if metric else own[own["headline"]]

    def dense(self, role: str) -> Any:
        """The dense point of a role."""
        return parent(self.of(role), self.model)

    def tasks(self) -> list[str]:
        """Tasks on which something can be kept, perplexities left out."""
        head = kick_data.small(self.points[self.points["headline"]])
        head = head[~kick_data.blind(head) & head["higher_is_better"] & (head["state"] != "measured")]
        return [
            str(t)
            for t, m in dict.fromkeys(zip(head["task"], head["metric"], strict=True))
            if style.kind_of(t, m) != "perplexity"
        ]

    def pruners(self, points: pd.DataFrame, only: Sequence[str] = PRUNERS) -> pd.DataFrame:
        """Points of the paper's pruning methods along budgets, told as one family.

        Raises:
            Missing: there is none.
        """
        line = kick_data.by_budget(points)
        line = line[line["method"].isin(only)]
        if line.empty:
            raise Missing(f"no unstructured cell of {', '.join(only)}")
        return told(line)

    def able(self, role: str) -> pd.DataFrame:
        """Points of a role on which dense itself beats chance: elsewhere nothing can be lost or gained.

        Raises:
            Missing: it does not, or no task plays the role.
        """
        own = self.of(role)
        if kick_data.blind(own[own["state"] != "dense"]).any():
            raise Missing(f"dense itself is at chance on {own['task'].iloc[0]}")
        return own

    def reach(self, line: pd.DataFrame) -> Reach:
        """How sparse one series may become on one task: its contiguous limit, in achieved sparsity."""
        judged = line[line["told"].isin(["match", "fail", "undecided"])].sort_values("budget")
        share = judged["achieved_nominal"].fillna(judged["budget"])
        held = share[~(judged["told"] != "match").cummax()]
        failed = (judged["told"] == "fail").cummax()
        low = float(held.iloc[-1]) if len(held) else 0.0
        if not failed.any():
            return Reach(low, np.inf)
        last = float(share[~failed].iloc[-1]) if not failed.all() else 0.0
        return Reach(low, max(last, round(float(share[failed].iloc[0]) - STEP, 6)))

    def scores(self, point: Any) -> dict[str, list[float]]:
        """Item -> its scores, one per calibration draw; of items read whole that every draw scored."""
        found: dict[str, list[float]] = {}
        cells = str(point.cells).split()
        for cell in cells:
            for name, metric, score, _, extra in self.study.items(cell, point.task):
                if metric == point.metric and score is not None and not {*extra.get("flags", ())} & {*UNREAD}:
                    found.setdefault(_bare(name), []).append(float(score))
        return {name: scores for name, scores in found.items() if len(scores) == len(cells)}

    def groups(self, point: Any) -> dict[str, str]:
        """Item -> its group, of items that name one."""
        items = self.study.items(str(point.cells).split()[0], point.task)
        return {
            _bare(name): str(extra["group"])
            for name, metric, _, _, extra in items
            if metric == point.metric and extra.get("group")
        }

    def gain(self, new: Any, old: Any) -> Gain:
        """Mean of new minus mean of old over the items both have; see `difference`.

        Raises:
            Missing: they share no stored item.
        """
        return self.mean_gain([new], [old])

    def mean_gain(self, new: Sequence[Any], old: Sequence[Any]) -> Gain:
        """The same of several points on each side, averaged per item and draw.

        Raises:
            Missing: they share no stored item.
        """
        one, two = self._averaged(new), self._averaged(old)
        names = [name for name in one if name in two]
        if len(names) < 2:
            raise Missing(f"no stored items that {new[0].task} and {old[0].task} share")
        return difference(np.array([one[n] for n in names]).T, np.array([two[n] for n in names]).T)

    def _averaged(self, points: Sequence[Any]) -> dict[str, list[float]]:
        """Item -> its mean score over the points, one per draw that all of them have."""
        every = [self.scores(point) for point in points]
        names = [name for name in every[0] if all(name in found for found in every)]
        few = min((len(draws) for found in every for draws in found.values()), default=0)
        return {name: np.mean([found[name][:few] for found in every], axis=0).tolist() for name in names}


def parent(points: pd.DataFrame, model: str) -> Any:
    """The dense point among these points of one task.

    Raises:
        Missing: there is none; another model of the study was asked the task.
    """
    own = points[points["state"] == "dense"]
    if own.empty:
        raise Missing(f"model {model!r} has no dense cell that was asked this")
    return next(own.itertuples())


def _bare(name: str) -> str:
    """An item's id without the task in front, so that variants of one task pair."""
    return name.partition("/")[2] or name


def told(points: pd.DataFrame) -> pd.DataFrame:
    """Points with `told`: the state that still holds over all of them (Holm)."""
    found = stats.family(points.assign(headline=True), by=()).assign(headline=points["headline"])
    return found.assign(told=found["state_holm"].mask(kick_data.blind(found), "chance"))


def difference(new: Array, old: Array) -> Gain:
    """Mean difference of scores (draws, items) on the same items, in either matrix any number of draws.

    Single draws of right and wrong: Tango's interval, McNemar's exact p. Else the variance has a part of the
    items and one of each side's draws, each with Student's quantile of its own degrees of freedom. What
    hardly differs shows no spread: the interval is never narrower than Tango's where no item changed.
    """
    n, mean = new.shape[1], float(new.mean() - old.mean())
    if len(new) == len(old) == 1 and paired.yes_no(new[0], old[0], np.ones(n)):
        lost, gained = int((new < old).sum()), int((new > old).sum())
        low, high = paired.tango(gained / n, lost / n, n)
        return Gain(mean, low, high, paired.mcnemar(lost, gained))
    crit = float(t.isf(paired.LEVEL, n - 1))
    least = float(np.ptp(np.vstack([new, old]))) * crit / (n + crit**2)
    items = max(float((new.mean(0) - old.mean(0)).var(ddof=1)) / n, least**2)
    draws = [crossed.spread(side) for side in (new, old) if len(side) > 1]
    few = min((part.k for part in draws), default=n)
    found = crossed.Spread(items, sum(part.seeds for part in draws), 1.0, n, few)
    return Gain(mean, mean - found.width, mean + found.width, min(1.0, 2 * found.tail(abs(mean))))


def thin(points: pd.DataFrame) -> list[str]:
    """Series that look at calibration tokens and were drawn fewer than three times."""
    few = points[(points["state"] != "dense") & points["drawn"].astype(bool) & (points["seeds"] < SEEDS)]
    return sorted(set(few["series"]))


def percent(values: Iterable[float]) -> str:
    """Values as per cent: +1.2 % [+0.3, +2.1]."""
    mean, low, high = (value + 0.0 if abs(value) > 5e-5 else 0.0 for value in values)
    return f"{100 * mean:+.1f} % [{100 * low:+.1f}, {100 * high:+.1f}]"


def at_most(reach: Reach, edge: float) -> str:
    """Whether a limit is at most that sparsity, whatever undecided cells are."""
    return "supported" if reach.high <= edge else "refuted" if reach.low > edge else "undecided"
