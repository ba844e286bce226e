"""What hypotheses are decided on: states that hold over a family, limits with their doubt, paired gains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from analysis import kick_data, stats, style
from analysis.kick_data import Missing, Study
from crunchmark import paired

PRUNERS = ("magnitude", "sparsegpt", "wanda")  # the paper's
SEEDS = 3
RESAMPLES = 2000
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Reach:
    """Between which sparsities a contiguous limit lies: undecided cells as fails, and as matches."""

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
        return next(self.of(role)[lambda p: p["state"] == "dense"].itertuples())

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

    def reach(self, line: pd.DataFrame) -> Reach:
        """How sparse one series may become on one task: its contiguous limit, in achieved sparsity."""
        judged = line[line["told"].isin(["match", "fail", "undecided"])].sort_values("budget")
        share = judged["achieved_nominal"].fillna(judged["budget"])
        edges = []
        for good in (("match",), ("match", "undecided")):
            bad = ~judged["told"].isin(good)
            held = share[~bad.cummax()]
            edges.append(float(held.iloc[-1]) if len(held) else 0.0)
        ends = (judged["told"] == "fail").any()
        return Reach(edges[0], edges[1] if ends else np.inf)

    def scores(self, point: Any) -> dict[str, list[float]]:
        """Item -> its scores, one per calibration draw; of items without flags that every draw scored."""
        found: dict[str, list[float]] = {}
        cells = str(point.cells).split()
        for cell in cells:
            for name, metric, score, _, extra in self.study.items(cell, point.task):
                if metric == point.metric and score is not None and not extra.get("flags"):
                    found.setdefault(_bare(name), []).append(float(score))
        return {name: scores for name, scores in found.items() if len(scores) == len(cells)}

    def gain(self, new: Any, old: Any) -> Gain:
        """Mean of new minus mean of old over the items both have; draws and items are resampled.

        Raises:
            Missing: they share no stored item.
        """
        one, two = self.scores(new), self.scores(old)
        names = [name for name in one if name in two]
        if len(names) < 2:
            raise Missing(f"no stored items that {new.task} and {old.task} share")
        return difference(np.array([one[n] for n in names]).T, np.array([two[n] for n in names]).T)


def _bare(name: str) -> str:
    """An item's id without the task in front, so that variants of one task pair."""
    return name.partition("/")[2] or name


def told(points: pd.DataFrame) -> pd.DataFrame:
    """Points with `told`: the state that still holds over all of them (Holm)."""
    found = stats.family(points, by=())
    return found.assign(told=found["state_holm"].mask(kick_data.blind(found), "chance"))


def difference(new: Array, old: Array) -> Gain:
    """Mean difference of scores (draws, items) on the same items, in either matrix any number of draws.

    The interval is that of a bootstrap over draws and items; p is McNemar's exact one for single draws of
    right and wrong, else that of the normal with the bootstrap's spread.
    """
    items = _shares(new.shape[1], 0)
    sides = [((_shares(len(side), i) @ side) * items).sum(1) for i, side in enumerate((new, old), 1)]
    found, mean = sides[0] - sides[1], float(new.mean() - old.mean())
    low, high = np.quantile(found, [0.025, 0.975])
    if len(new) == len(old) == 1 and paired.yes_no(new[0], old[0], np.ones(new.shape[1])):
        p = paired.mcnemar(int((new < old).sum()), int((new > old).sum()))
        return Gain(mean, float(low), float(high), p)
    error = float(found.std())
    return Gain(
        mean, float(low), float(high), float(2 * norm.sf(abs(mean) / error)) if error else float(not mean)
    )


@lru_cache(maxsize=64)
def _shares(n: int, seed: int) -> Array:
    """How much each of n weighs in each resample, (RESAMPLES, n)."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLES) / n


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
