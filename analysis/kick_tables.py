"""LLM-KICK's Tables 2 and 3, the match matrix, and flips, each as a table without a format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from analysis import collect, kick_data, kick_ours, stats, style, unscored
from analysis.kick_data import Missing, Study
from analysis.render import Cell, Grid

WIDTHS = (8.0, 4.0, 3.0, 2.0)  # bits per weight that have columns in table 2
LEGEND = (
    "value [95 % interval] over items and calibration draws. **bold ✓** matches dense (paired test, 5 % "
    "relative margin), ✗ fails, ? undecided, ~ dense is at chance, — no such cell. n is the number of "
    "items."
)


def table2(study: Study) -> tuple[list[Grid], pd.DataFrame]:
    """Task rows, a column per quantiser and width."""
    points = kick_data.by_bits(study.points[study.points["headline"]])
    points = points[points["bits"].isin(WIDTHS)]
    if points.empty:
        raise Missing(f"no quantised cell at {', '.join(f'{w:g}' for w in WIDTHS)} bits in the study")
    grids = [_table2(study, model, own) for model, own in points.groupby("model", sort=False)]
    return grids, points


def _table2(study: Study, model: str, points: pd.DataFrame) -> Grid:
    """The table of one model."""
    columns = [(b, s) for b in WIDTHS for s in dict.fromkeys(points["series"]) if _at(points, b, s)]
    head = ["task", "dense", *(f"{series} {bits:g} bit" for bits, series in columns)]
    grid = Grid(f"Quantised, {model}", head, [], LEGEND)
    for task, group in points.groupby("task", sort=False):
        cells = {(p.bits, p.series): score(p, _one_n(group)) for p in group.itertuples()}
        line = [cells.get(column, Cell("—")) for column in columns]
        grid.blocks.append([[Cell(heading(group)), dense_cell(study, model, str(task)), *line]])
    return grid


def _at(points: pd.DataFrame, bits: float, series: str) -> bool:
    """Whether a series has that width."""
    return bool(((points["bits"] == bits) & (points["series"] == series)).any())


def table3(study: Study) -> tuple[list[Grid], pd.DataFrame]:
    """Task x method rows, budgets as columns, matching cells bold."""
    points = kick_data.by_budget(study.points[study.points["headline"]])
    if points.empty:
        raise Missing("no compressed cell along budgets in the study")
    lost = collect.gone(study.rows)
    lost = lost[(lost["pattern"] == "") & lost["series"].isin(points["series"])]
    grids = [
        _table3(study, str(model), own, lost[lost["model"] == model])
        for model, own in points.groupby("model", sort=False)
    ]
    return grids, points


def _table3(study: Study, model: str, points: pd.DataFrame, lost: pd.DataFrame) -> Grid:
    """The table of one model."""
    budgets = sorted({*points["budget"], *lost["budget"]})
    grid = Grid(
        f"Budgets, {model}", ["task", "method", "dense", *map(style.budget_name, budgets)], [], LEGEND
    )
    gaps = {(p.series, p.budget): _gap(p) for p in lost.itertuples()}
    for task, group in points.groupby("task", sort=False):
        cells = {(p.series, p.budget): score(p, _one_n(group)) for p in group.itertuples()}
        first = [Cell(heading(group)), dense_cell(study, model, str(task))]
        block = []
        for series in dict.fromkeys(points["series"]):
            line = [cells.get((series, b), gaps.get((series, b), Cell("—"))) for b in budgets]
            block.append([first[0], Cell(str(series)), first[1], *line])
            first = [Cell(), Cell()]
        grid.blocks.append(block)
    return grid


def _gap(line: Any) -> Cell:
    """A cell that is not there, with the reason below the table."""
    why = unscored.why(line)
    return Cell("—", note=f"{line.series} at {style.budget_name(line.budget)} {why}", why=why)


def _one_n(group: pd.DataFrame) -> bool:
    """Whether all cells of a task have the same items, so that its heading can say how many."""
    return bool(group["n"].nunique() == 1)


def heading(group: pd.DataFrame) -> str:
    """Task, metric with its direction, items and chance."""
    arrow = "↑" if group["higher_is_better"].iloc[0] else "↓"
    parts = [f"{group['metric'].iloc[0]} {arrow}"]
    parts += [f"n={group['n'].iloc[0]:.0f}"] if _one_n(group) else []
    if group["chance"].notna().any():
        parts.append(f"chance {style.number(group['chance'].max(), 2)}")
    return f"{style.short_task(group['task'].iloc[0])} ({', '.join(parts)})"


def score(point: Any, one_n: bool = True) -> Cell:
    """A value with its interval, its items where they differ, its draws, and its state."""
    text = style.number(point.value)
    if style.known(point.value_low) and style.known(point.value_high):
        text += f" [{style.number(point.value_low)}, {style.number(point.value_high)}]"
    text += "" if one_n else f" n={point.n:.0f}"
    text += f" ({point.seeds} seeds)" if point.seeds > 1 else ""
    text = f"{text} {style.MARKS.get(point.state, '')}".rstrip()
    return Cell(text, point.state == "match", collect.broken_note(point, point.series))


def dense_cell(study: Study, model: str, task: str) -> Cell:
    """The dense value with its interval."""
    own = study.of(task)[lambda p: (p["model"] == model) & (p["state"] == "dense")]
    return score(next(own.itertuples())) if len(own) else Cell("—")


def match_matrix(study: Study) -> tuple[list[Grid], pd.DataFrame]:
    """Task rows, a column per method: how much may be removed."""
    found = kick_ours.limits(study)
    if found.empty:
        raise Missing("no compressed cell along budgets was judged against dense")
    legend = (
        "Largest budget (% removed) that matches, as do all smaller tested ones; 0: the smallest does not. "
        "In brackets the largest matching budget where a gap lies below it; +: further points if undecided "
        "cells match."
    )
    grids = []
    for model, own in found.groupby("model", sort=False):
        series = list(dict.fromkeys(own["series"]))
        cells = {(p.task, p.series): stats.limit_text(p) for p in own.itertuples()}
        lines = [
            _line(task, [cells.get((task, s), "—") for s in series]) for task in dict.fromkeys(own["task"])
        ]
        grids.append(Grid(f"Match matrix, {model}", ["task", *series], [lines], legend))
    return grids, found


def flips(study: Study) -> tuple[list[Grid], pd.DataFrame]:
    """Items lost and gained against dense, per task, method and budget."""
    points = kick_data.flipped(study.points)
    if points.empty:
        raise Missing("no point has lost and gained items")
    grids = []
    for model, own in points.groupby("model", sort=False):
        budgets = sorted(set(own["budget"]))
        grid = Grid(f"Flips, {model}", ["task", "method", *map(style.budget_name, budgets)], [])
        grid.legend = "−lost +gained items of n against dense; means over calibration draws."
        for _, group in own.groupby("task", sort=False):
            grid.blocks.append(_flip_block(group, budgets))
        grids.append(grid)
    return grids, points


def _flip_block(group: pd.DataFrame, budgets: Sequence[float]) -> list[list[Cell]]:
    """The lines of one task."""
    texts = {(p.series, p.budget): f"−{p.lost:.3g} +{p.gained:.3g}" for p in group.itertuples()}
    block, first = [], heading(group)
    for series in dict.fromkeys(group["series"]):
        block.append([Cell(first), *_line(str(series), [texts.get((series, b), "—") for b in budgets])])
        first = ""
    return block


def _line(name: str, texts: Iterable[str]) -> list[Cell]:
    """A line of a table from plain texts."""
    return [Cell(style.short_task(name)), *map(Cell, texts)]


TABLES = {"table2": table2, "table3": table3, "match_matrix": match_matrix, "flips": flips}
