"""A study beside what its paper got: one sample against a number that has no error bar."""

from __future__ import annotations

import difflib
import math
from typing import Any

import pandas as pd
from scipy.stats import norm

from analysis import reproduce, style
from analysis.collect import AnalysisError
from analysis.compare.sides import Side
from analysis.compare.tests import LOST, Line, judged
from crunchmark.paired import retained, state_of

WORD = "published"
COLON = f"{WORD}:"


def asked(name: str) -> bool:
    """Whether this is the word for published numbers."""
    return name == WORD or name.startswith(COLON)


def lines(name: str, side: Side, margin: float | None) -> tuple[pd.DataFrame, list[str]]:
    """Every published number that the study was asked for, tested, and those it has no cell for.

    Args:
        name: `published`, for what the study's own rows expect, or `published:EXPERIMENT`.
        side: The study, or a cell of it.
        margin: Relative difference that is no regression; None: the experiment's tolerance.
    """
    rows = [row for _, cell in side.data.groupby("cell", sort=False) for row in cell.to_dict("records")]
    expected = _expected(name, side, rows)
    found, absent = [], []
    for point in reproduce.points(side.study, expected, rows):
        budget = "dense" if point.budget == 0 else f"budget {style.budget_name(point.budget)}"
        if point.row is not None:
            own = point.tolerance if margin is None else margin
            found.append(_line(side.titles[str(point.row["cell"])], point, expected["task"], own))
        elif any(abs(row["budget"] - point.budget) < 1e-9 for row in rows):
            state = LOST if any(end in point.status for end in style.GONE) else ""
            head = (budget, "", "", str(expected["task"]), point.metric, False)
            found.append(Line(*head, value_a=point.expected, state=state, note=style.printable(point.status)))
        else:
            absent.append(budget)
    return judged(found), absent


def _expected(name: str, side: Side, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The numbers that the word stands for."""
    wanted = name.removeprefix(COLON) if name.startswith(COLON) else ""
    if not wanted:
        said = [row["expected"] for row in rows if isinstance(row.get("expected"), dict)]
        if said:
            return dict(said[-1])
        raise AnalysisError(f"study={side.study!r}: no row says what is expected; valid: {COLON}EXPERIMENT")
    known = reproduce.experiments()
    if wanted not in known:
        near = difflib.get_close_matches(wanted, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise AnalysisError(f"{name!r}: no such experiment; valid: those of conf/experiment/reproduce{hint}")
    return known[wanted]


def _line(title: str, point: reproduce.Point, task: str, margin: float) -> Line:
    """A measured value beside the published one, which counts as exact."""
    row: dict[str, Any] = dict(point.row or {})
    value, n = float(row["value"]), int(row["n"]) if style.known(row.get("n")) else None
    low, high = (row.get(name, math.nan) - point.expected for name in ("value_low", "value_high"))
    head = (title, "", str(row["cell"]), task, point.metric, bool(row["higher_is_better"]))
    values = {"value_a": point.expected, "value_b": value, "delta": value - point.expected}
    p_match, p_fail, p_value = tails(row, point.expected, margin)
    ps = {"p_match": p_match, "p_fail": p_fail, "p_value": p_value}
    state = state_of(p_match, p_fail, margin)
    return Line(*head, n=n, **values, low=low, high=high, **ps, margin=margin, state=state)


def tails(row: dict[str, Any], expected: float, margin: float) -> tuple[float, float, float]:
    """P-values of a loss of the margin or more, of one of the margin or less, and of no difference.

    Normal, with the row's standard error over its items; on the log scale where it is exp of a mean. A value
    that is not finite is a loss; without a standard error nothing is said.
    """
    value, higher = float(row["value"]), bool(row["higher_is_better"])
    if not math.isfinite(value):
        return 1.0, 0.0, 0.0
    error = float(row["stderr"]) if style.known(row.get("stderr")) else math.nan
    bar, sign = expected * retained(higher, margin), 1.0 if higher else -1.0
    gap, slack = sign * (value - expected), sign * (value - bar)
    if row.get("kind") == "exp":
        gap, slack, error = sign * math.log(value / expected), sign * math.log(value / bar), error / value
    if not error > 0:
        return math.nan, math.nan, math.nan
    match, fail, apart = (float(norm.sf(x / error)) for x in (slack, -slack, abs(gap)))
    return match, fail, 2 * apart
