"""What a large study says on one screen: how far each method matches dense on each task."""

from __future__ import annotations

from typing import Any

import pandas as pd
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from analysis import collect, protocols, stats, style

CELLS = 60  # more than these are no table for a terminal


def large(data: pd.DataFrame) -> bool:
    """Whether a study has too many cells for a line each."""
    return bool(data["cell"].nunique() > CELLS)


def table(data: pd.DataFrame, width: int = 120) -> Group:
    """A line per method, a column per task: the largest budget that matches, in per cent."""
    found = stats.limits(collect.points(collect.select(data))).sort_values(["model", "label"], kind="stable")
    tasks = list(dict.fromkeys(found["task"]))
    shown = _table(found, tasks)
    left_out = []
    while Console(width=1000).measure(shown).maximum > width and len(tasks) > 1:
        left_out.append(style.short_task(tasks.pop()))
        shown = _table(found, tasks)
    lost = collect.gone(data)["state"].value_counts()
    cells = data["cell"].nunique()
    lines = [f"{cells} cells: the largest budget (%) that matches dense, as do all smaller ones"]
    lines += ["in brackets: the largest that matches above a gap; +: how far undecided cells may reach"]
    lines += [", ".join(f"{count} {state}" for state, count in lost.items())] if len(lost) else []
    lines += [f"no room here for {', '.join(reversed(left_out))}"] if left_out else []
    lines += protocols.lines(data, "aside")
    return Group(shown, *(Text(line, style="dim") for line in lines))


def _table(found: pd.DataFrame, tasks: list[Any]) -> Table:
    """The limits of these tasks."""
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1), pad_edge=False)
    many = found["model"].nunique() > 1
    for name in [*(["model"] if many else []), "method"]:
        shown.add_column(name, no_wrap=True)
    for task in tasks:
        name = style.printable(style.short_task(task))
        shown.add_column(Text(name.replace("_", "\n")), justify="right", no_wrap=True)
    for (model, label), group in found.groupby(["model", "label"], sort=False):
        told = {line.task: stats.limit_text(line) for line in group.itertuples()}
        names = [model, label] if many else [label]
        texts = [*map(style.printable, names), *(told.get(task, "") for task in tasks)]
        shown.add_row(*map(Text, texts))
    return shown
