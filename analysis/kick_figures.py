"""LLM-KICK's figures 1 to 4: perplexity, factoid questions, multiple choice, closed and open book."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis import kick_data, style
from analysis.kick_data import Missing, Study
from analysis.kick_draw import Draw, Drawing, Looks, Part, data, grid, kinds

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def fig1_perplexity(study: Study) -> Drawing:
    """Perplexity over the share removed and over bits, a line of panels per model."""
    (task,) = study.need("ppl")
    return _triptych(study, "fig1_perplexity", task, ("budget", "bits"))


def fig2_factoid(study: Study) -> Drawing:
    """Closed-book facts over budgets, N:M patterns and bits."""
    (task,) = study.need("factoid")
    return _triptych(study, "fig2_factoid", task)


def _triptych(
    study: Study, name: str, task: str, wanted: tuple[str, ...] = ("budget", "pattern", "bits")
) -> Drawing:
    """One task along every kind of axis, a line of panels per model."""
    notes: list[str] = []
    parts: list[Part] = []
    for model in study.models:
        for kind, points in kinds(_own(study, task, model), notes, name):
            if kind in wanted:
                parts.append((_title(study, model, task), kind, points))
    notes = [n for n in notes if not ("N:M" in n and "pattern" not in wanted)]
    return Drawing(data(parts), notes)


def triptych(y: str) -> Draw:
    """Draws a line of panels per model, a panel per kind of axis."""

    def columns(parts: list[Part]) -> int:
        kinds = len({kind for _, kind, _ in parts})
        return kinds + 1 if len(parts) == kinds else kinds  # one model: the legend is at the right

    return grid(y, columns)


def disciplines(everything: pd.DataFrame, looks: Looks) -> list[Figure]:
    """Draws figure 3, four panels a line where they are disciplines."""
    several = "group" in everything and everything["group"].notna().any()
    return (grid("accuracy", lambda _: 4) if several else triptych("accuracy"))(everything, looks)


def _own(study: Study, task: str, model: str) -> pd.DataFrame:
    """Points of one model on a task."""
    points = study.of(task)
    return points[points["model"] == model]


def _title(study: Study, model: str, task: str) -> str:
    """The task, and the model where there are several."""
    return f"{model}, {style.short_task(task)}" if len(study.models) > 1 else style.short_task(task)


def fig3_mcr(study: Study) -> Drawing:
    """Multiple choice: a panel per discipline where items name one, else over every kind of axis."""
    (task,) = study.need("mcr")
    groups = by_group(study, task)
    if groups.empty:
        drawn = _triptych(study, "fig3_mcr", task)
        drawn.notes.append(f"fig3_mcr: no item of {task} names a discipline (extra.group); drawn overall")
        return drawn
    parts = [
        (f"{_title(study, model, str(name))}", "budget", points)
        for (model, name), points in groups.groupby(["model", "group"], sort=False)
    ]
    return Drawing(data(parts))


def by_group(study: Study, task: str) -> pd.DataFrame:
    """Points of a task per extra.group of its items; empty where items name no group."""
    lines = []
    for point in kick_data.by_budget(study.of(task)).to_dict("records"):
        for group, scores in _split(study, str(point["cells"]), task, str(point["metric"])).items():
            half = 1.96 * np.std(scores, ddof=1) / np.sqrt(len(scores)) if len(scores) > 1 else np.nan
            value = float(np.mean(scores))
            edges = {"value": value, "value_low": value - half, "value_high": value + half}
            lines.append({**point, **edges, "group": group, "n": len(scores), "dense": np.nan})
    found = pd.DataFrame(lines)
    return found if found.empty else _against_dense(study, task, found)


def _split(study: Study, cells: str, task: str, metric: str) -> dict[str, list[float]]:
    """Scores of items by their group, each the mean over the cells: draws of calibration are no items."""
    found: dict[str, dict[str, list[float]]] = {}
    for cell in cells.split():
        for name, kind, score, _, extra in study.items(cell, task):
            if kind == metric and extra.get("group") and score is not None:
                found.setdefault(str(extra["group"]), {}).setdefault(name, []).append(float(score))
    return {group: [float(np.mean(s)) for s in items.values()] for group, items in found.items()}


def _against_dense(study: Study, task: str, found: pd.DataFrame) -> pd.DataFrame:
    """The dense value of each group; a group's state is not tested, so it is told as measured."""
    own = study.of(task)[lambda p: p["state"] == "dense"]
    dense = {
        (point.model, group): float(np.mean(scores))
        for point in own.itertuples()
        for group, scores in _split(study, str(point.cells), task, str(point.metric)).items()
    }
    keys = zip(found["model"], found["group"], strict=True)
    return found.assign(dense=[dense.get(key, np.nan) for key in keys], state="measured")


def fig4_books(study: Study) -> Drawing:
    """Closed beside open book, a line of two panels per kind of axis and model."""
    closed, opened = study.need("closed", "open")
    notes: list[str] = []
    parts: list[Part] = []
    for model in study.models:
        books = {
            book: dict(kinds(_own(study, task, model), notes, "fig4_books"))
            for book, task in (("closed", closed), ("open", opened))
        }
        for kind in (k for k in books["closed"] if k in books["open"]):
            for book, task in (("closed", closed), ("open", opened)):
                title = f"{book} book: {_title(study, model, task)}"
                parts.append((title, kind, books[book][kind]))
    if not parts:
        raise Missing("closed and open book share no kind of cell")
    return Drawing(data(parts), list(dict.fromkeys(notes)))
