"""What falls first: the share of each dense score that is left, over the share of weights removed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis import collect, panels, sheet, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


TABLE = (
    *("model", "label", "budget", "task", "metric", "kept", "kept_low", "kept_high"),
    *("value", "value_low", "value_high", "dense", "state", "n", "seeds"),
)


def retained(points: pd.DataFrame) -> pd.DataFrame:
    """The share of the dense score that is kept, of what is judged; left out where dense is at chance."""
    judged = ~points["state"].isin(("dense", "measured"))
    small = points[judged & (points["dense"] > 0) & ~collect.at_chance(points)]
    more, up = (
        small[["value", "value_low", "value_high"]].div(small["dense"], axis=0),
        small["higher_is_better"],
    )
    less = 1 / more
    kept = {
        "kept": more["value"].where(up, less["value"]),
        "kept_low": more["value_low"].where(up, less["value_high"]),
        "kept_high": more["value_high"].where(up, less["value_low"]),
    }
    return small.assign(**kept).replace(np.inf, np.nan).reindex(columns=list(TABLE))


def table(points: pd.DataFrame) -> pd.DataFrame:
    """What the figure shows.

    Raises:
        AnalysisError: nothing was compared with dense.
    """
    kept = retained(points)
    if kept.empty:
        raise collect.AnalysisError(
            "dense: no row was compared with a dense value, so there is no curve to draw"
        )
    return kept


def drawings(kept: pd.DataFrame) -> Iterator[tuple[str, sheet.Make]]:
    """A figure per model."""
    for stem, own in sheet.by_model("curves", kept):
        yield stem, lambda own=own: curves(own)


def curves(kept: pd.DataFrame) -> list[Figure]:
    """A panel per method, a line per task: what falls first when more is removed."""
    tasks = list(dict.fromkeys(zip(kept["task"], kept["metric"], strict=True)))
    order = {"knowledge": 0, "context": 1, "other": 2, "perplexity": 3}
    tasks.sort(key=lambda task: order[style.kind_of(*task)])
    looks = style.task_looks(tasks)
    labels = list(dict.fromkeys(kept["label"]))
    columns = 5 if len(labels) in (5, 9, 10) else 4
    made = panels.panels(len(labels), columns, len(tasks) + 1, shared=True)
    limits = 100 * kept["budget"].max() + 2, max(108, min(130, 100 * kept["kept"].max() + 4))
    for i, (axis, label) in enumerate(zip(made.axes, labels, strict=True)):
        _curve_panel(axis, kept[kept["label"] == label], tasks, looks)
        axis.set(title=label, xlim=(0, limits[0]), ylim=(-3, limits[1]))
        axis.tick_params(labelleft=made.first(i))
    made.label("share of weights removed (budget, %)", "score kept (% of dense)")
    made.legend([_name(*task) for task in tasks])
    return made.figures


def _name(task: str, metric: str) -> str:
    """What the legend calls a task."""
    return style.short_task(task) + (" (dense ppl / ppl)" if style.is_perplexity(task, metric) else "")


def _curve_panel(
    axis: Axes, group: pd.DataFrame, tasks: list[tuple[str, str]], looks: dict[str, dict[str, Any]]
) -> None:
    """One method: every task starts at 100 % where nothing is removed."""
    axis.axhspan(95, 100, color=style.BAND, lw=0, zorder=0, label="within 5 % of dense")
    axis.axhline(100, color="#555555", lw=0.8, zorder=1)
    for task, metric in tasks:
        line = group[(group["task"] == task) & (group["metric"] == metric)].sort_values("budget")
        x, y = [0.0, *(100 * line["budget"])], [100.0, *(100 * line["kept"])]
        axis.plot(
            x,
            y,
            label=_name(task, metric),
            **looks[task],
            markersize=4.4,
            markeredgecolor="white",
            markeredgewidth=0.3,
            zorder=3,
        )
        low, high = ([100.0, *(100 * line[f"kept_{end}"].fillna(line["kept"]))] for end in ("low", "high"))
        axis.fill_between(x, low, high, color=looks[task]["color"], alpha=0.09, lw=0, zorder=2)
