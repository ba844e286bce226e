"""What a study's rows say together: one error rate over all of them, limits of a method, seeds as an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.pool import POINT, pooled
from crunchmark.paired import LEVEL

__all__ = ["LEVEL", "LIMIT_KEYS", "POINT", "family", "holm", "limit_text", "limits", "pooled"]

LIMIT_KEYS = ["model", "label", "task", "metric"]


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """P-values adjusted over their family by Holm's step-down method; nan stays nan and is not counted."""
    raw = np.asarray(p, dtype=float)
    adjusted = np.full(raw.shape, np.nan)
    there = ~np.isnan(raw)
    if there.any():
        # statsmodels has this too, but takes seconds to import and collects garbage at every call
        order = raw[there].argsort()  # (m,)
        steps = raw[there][order] * np.arange(
            there.sum(), 0, -1
        )  # the smallest times m, the next times m - 1
        falls = np.empty_like(steps)
        falls[order] = np.maximum.accumulate(steps).clip(max=1)
        adjusted[there] = falls
    return adjusted


def family(data: pd.DataFrame, by: Sequence[str] = ("model",)) -> pd.DataFrame:
    """Add `p_holm` and `state_holm`: what is still a match or a fail after Holm over the family.

    A family is every judged cell of a study's headline metrics, model by model: all methods, budgets, tasks.
    A cell cannot be both a match and a fail, so it enters once, with the smaller of `p_match` and `p_fail`;
    of the family, the chance of any wrong match or fail is at most 2.5 %.

    Args:
        data: Rows or pooled points; what is not judged (dense, told only, not headline) keeps its state.
        by: Columns whose values separate families.
    """
    data = data.copy()
    judged = data["state"].isin(["match", "fail", "undecided"]) & data[["p_match", "p_fail"]].notna().any(
        axis=1
    )
    if "headline" in data:
        judged &= data["headline"].astype(bool)
    smaller = data.loc[judged, ["p_match", "p_fail"]].astype(float).min(axis=1)
    keys = [data.loc[judged, column] for column in by]
    adjusted = smaller.groupby(keys).transform(holm) if by else pd.Series(holm(smaller), index=smaller.index)
    data["p_holm"] = adjusted.astype(float) if judged.any() else np.nan
    lost = judged & ~(data["p_holm"] <= LEVEL)
    data["state_holm"] = data["state"].mask(lost, "undecided")
    return data


def limits(points: pd.DataFrame, state: str = "state") -> pd.DataFrame:
    """How far each method may go: one row per (model, label, task, metric).

    Budget 0 is dense, a match by definition. Cells that are not judged (dense, told only, dense at chance)
    and those without scores are no tested budgets.

    | column | meaning |
    | --- | --- |
    | `contiguous` | largest budget that matches, as do all smaller tested ones; 0 where the first does not |
    | `largest` | largest budget that matches, whatever smaller ones do |
    | `possible` | `contiguous` were every undecided cell a match: the limit is between the two |
    | `first_fail` | smallest budget that fails, nan where none does |
    | `tested`, `undecided` | budgets, rising |

    Args:
        points: One line per (model, label, budget, task, metric), as `pooled` or `collect.points` give.
        state: The column that is read; `state_holm` for what holds over the family.

    Raises:
        ValueError: Two lines of one budget.
    """
    judged = points[points[state].isin(["match", "fail", "undecided"])]
    twice = judged.duplicated(POINT)
    if twice.any():
        one = judged[twice].iloc[0]
        raise ValueError(f"points: {one['label']!r} has two lines at budget {one['budget']}; valid is one")
    groups = judged.sort_values("budget").groupby(LIMIT_KEYS, sort=False)
    found = [
        dict(zip(LIMIT_KEYS, key, strict=True)) | _limit(group["budget"].tolist(), group[state].tolist())
        for key, group in groups
    ]
    columns = [*LIMIT_KEYS, "contiguous", "largest", "possible", "first_fail", "tested", "undecided"]
    return pd.DataFrame(found, columns=columns)


def _limit(budgets: list[float], states: list[str]) -> dict[str, object]:
    """Limits of one curve, budgets rising."""
    pairs = list(zip(budgets, states, strict=True))
    matching = [budget for budget, state in pairs if state == "match"]
    failing = [budget for budget, state in pairs if state == "fail"]
    return {
        "contiguous": _reach(pairs, ("match",)),
        "largest": max(matching, default=0.0),
        "possible": _reach(pairs, ("match", "undecided")),
        "first_fail": min(failing, default=float("nan")),
        "tested": budgets,
        "undecided": [budget for budget, state in pairs if state == "undecided"],
    }


def _reach(pairs: list[tuple[float, str]], good: tuple[str, ...]) -> float:
    """The last budget before the first one whose state is not good."""
    reached = 0.0
    for budget, state in pairs:
        if state not in good:
            break
        reached = budget
    return reached


def limit_text(line: Any) -> str:
    """A limit as it stands in matrix and table: 30, 10 (30), 40+10."""
    text = f"{100 * line.contiguous:.3g}"
    if line.largest > line.contiguous:
        text += f" ({100 * line.largest:.3g})"
    if line.possible > line.contiguous:
        text += f" +{100 * (line.possible - line.contiguous):.3g}"
    return text
