"""The strokes LLM-KICK's figures share: curves, bars and bits with dense, margin, intervals and states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis import beyond, kick_data, panels, pareto

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Looks = Mapping[str, dict[str, Any]]
Draw = Callable[[pd.DataFrame, Looks], "list[Figure]"]
Part = tuple[str, str, pd.DataFrame]  # title, kind of axis, points
KINDS = {
    "budget": (kick_data.by_budget, "share removed (budget, %)"),
    "pattern": (kick_data.by_pattern, "N:M pattern"),
    "bits": (kick_data.by_bits, "bits per weight"),
}
ABSENT = {"budget": "unstructured budgets", "pattern": "N:M patterns", "bits": "cells at whole bits"}
STATE_NAMES = {
    "match": "match",
    "undecided": "undecided",
    "fail": "fail",
    "chance": "dense at chance",
    "measured": "told, not judged",
}


@dataclass
class Drawing:
    """What a figure is drawn from, all of it, and what it has to leave out."""

    data: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    text: str = ""  # Markdown beside it, where there is something to read


def face(state: str, colour: str) -> dict[str, Any]:
    """How a marker shows its state: filled, half, open; grey inside where dense guesses; small if told."""
    if state == "match":
        return {"markerfacecolor": colour}
    if state == "measured":
        return {"markerfacecolor": colour, "markersize": 2.2}
    if state == "undecided":
        return {"fillstyle": "bottom", "markerfacecolor": colour, "markerfacecoloralt": "white"}
    return {"markerfacecolor": "#CCCCCC" if state == "chance" else "white"}


def curve(axis: Axes, points: pd.DataFrame, look: dict[str, Any], label: str, most: float = np.inf) -> None:
    """One line with its 95 % intervals; each marker shows its state."""
    line, colour = beyond.line(points, most), look["color"]
    axis.plot(line["x"], line["value"], color=colour, linestyle=look["linestyle"], lw=1.3, zorder=3)
    axis.plot([], [], color=colour, linestyle=look["linestyle"], marker=look["marker"], label=label)
    axis.errorbar(
        *(line["x"], line["value"]), yerr=panels.reach(line), fmt="none", ecolor=colour, elinewidth=0.7,
        capsize=1.6, zorder=2.8, errorevery=line["inside"].to_numpy(bool),
    )  # fmt: skip
    beyond.arrows(axis, points.loc[beyond.far(points, most), "x"], colour)
    for a, b, state in line.loc[line["mark"], ["x", "value", "state"]].itertuples(index=False):
        mark: dict[str, Any] = {"marker": look["marker"], "markeredgecolor": colour, "markeredgewidth": 0.9}
        axis.plot([a], [b], color=colour, linestyle="none", zorder=4, **(mark | face(state, colour)))


def bars(axis: Axes, points: pd.DataFrame, looks: Looks, most: float) -> None:
    """Bars in groups, a group per pattern, a bar per series; filled, hatched or empty by state."""
    names = [p for p in dict.fromkeys([*kick_data.PATTERNS, *points["x"]]) if p in set(points["x"])]
    there = [s for s in looks if s in set(points["series"])]
    width = 0.8 / max(len(there), 1)
    for i, series in enumerate(there):
        raw = points[points["series"] == series]
        own = beyond.held(raw, most)
        at = np.array([names.index(x) for x in own["x"]]) + (i - (len(there) - 1) / 2) * width
        for a, value, state in zip(at, own["value"], own["state"], strict=True):
            axis.bar(a, value, width * 0.88, zorder=2, **_fill(state, looks[series]["color"]))
        axis.errorbar(at, own["value"], yerr=panels.reach(own), fmt="none", ecolor="#222222", elinewidth=0.8,
                      capsize=1.8, zorder=3)  # fmt: skip
        beyond.arrows(axis, at[beyond.far(raw, most)], looks[series]["color"])
    axis.set_xticks(range(len(names)), names)
    axis.set_xlim(-0.6, len(names) - 0.4)
    axis.grid(axis="x", visible=False)


def _fill(state: str, colour: str) -> dict[str, Any]:
    """How a bar shows its state."""
    looks: dict[str, Any] = {"edgecolor": colour, "linewidth": 1.0, "facecolor": "white"}
    if state == "match":
        looks["facecolor"] = colour
    if state == "undecided":
        looks["hatch"] = "//////"
    if state == "chance":
        looks["facecolor"] = "#CCCCCC"
    return looks


def panel(axis: Axes, kind: str, points: pd.DataFrame, looks: Looks) -> None:
    """All series of one metric along one kind of axis, with dense, its 5 % band, and chance."""
    higher = bool(points["higher_is_better"].iloc[0])
    dense = float(points["dense"].dropna().mean()) if points["dense"].notna().any() else float("nan")
    most = beyond.limit(points, dense)
    judged = bool((points["state"] != "measured").any())
    pareto.levels(axis, dense, points["chance"].max(), higher, judged)
    if kind == "pattern":
        bars(axis, points, looks, most)
    else:
        factor = 100 if kind == "budget" else 1
        for series in (s for s in looks if s in set(points["series"])):
            own = points[points["series"] == series].sort_values("x")
            curve(axis, own.assign(x=factor * own["x"].astype(float)), looks[series], series, most)
    if kind == "bits":
        axis.set_xticks(sorted(set(points["x"].astype(float))))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    scale(axis, points, most)
    axis.set_xlabel(KINDS[kind][1])


def scale(axis: Axes, points: pd.DataFrame, most: float) -> None:
    """Shares from zero to one; lower-is-better logarithmic and turned over, so that up is better."""
    axis.use_sticky_edges = False
    if points["higher_is_better"].iloc[0]:
        top = max(points["value"].max(), points["dense"].max())
        if top <= 1:
            axis.set_ylim(-0.03, 1.06)
        else:
            axis.set_ylim(bottom=0)
        return
    axis.set_yscale("log")
    pareto.plain_log(axis)
    if beyond.far(points, most).any():
        beyond.edge(axis, most)
    axis.invert_yaxis()


def states(axis: Axes, patterns: bool, shown: Iterable[str]) -> None:
    """What filled, half and open markers mean, for the legend; bars too where there are some."""
    for state in (s for s in STATE_NAMES if s in set(shown)):
        mark: dict[str, Any] = {"marker": "o", "markeredgecolor": "#333333", "color": "#333333"}
        axis.plot([], [], linestyle="none", label=STATE_NAMES[state], **(mark | face(state, "#333333")))
    if patterns:
        axis.bar(
            [np.nan], [0], facecolor="white", edgecolor="#333333", hatch="//////", label="undecided (bar)"
        )


def legend(made: panels.Panels, looks: Looks, points: pd.DataFrame) -> None:
    """Series first, then states, dense and margin, outside the panels."""
    hatched = ((points["axis"] == "pattern") & (points["state"] == "undecided")).any()
    states(made.axes[0], bool(hatched), points["state"])
    drawn = set(points["series"])
    for series in (s for s in looks if s in drawn):
        names = made.axes[0].get_legend_handles_labels()[1]
        if series not in names:
            made.axes[0].plot([], [], label=series, **looks[series])
    made.legend([s for s in looks if s in drawn])


def kinds(points: pd.DataFrame, notes: list[str], name: str) -> list[tuple[str, pd.DataFrame]]:
    """The axes these points lie on; a note for each that the study does not hold."""
    found = [(kind, make(points)) for kind, (make, _) in KINDS.items()]
    notes += [
        f"{name}: no {ABSENT[kind]} in the study; that panel is left out" for kind, p in found if p.empty
    ]
    found = [(kind, p) for kind, p in found if len(p)]
    if not found:
        raise kick_data.Missing("no compressed cell was scored on its task")
    return found


def data(parts: Sequence[Part]) -> pd.DataFrame:
    """The points of all panels, each with the panel it is in and the kind of its axis."""
    return pd.concat([points.assign(panel=title, axis=kind) for title, kind, points in parts])


def grid(y: str, columns: Callable[[list[Part]], int]) -> Draw:
    """What draws panels, in lines of so many, with a legend for all."""

    def draw(everything: pd.DataFrame, looks: Looks) -> list[Figure]:
        parts = [
            (str(title), str(kind), own.assign(x=own["x"] if kind == "pattern" else own["x"].astype(float)))
            for (title, kind), own in everything.groupby(["panel", "axis"], sort=False)
        ]
        entries = everything["series"].nunique() + 6 + beyond.there(everything)
        made = panels.panels(len(parts), columns(parts), entries, between=0.8)
        for axis, (title, kind, points) in zip(made.axes, parts, strict=True):
            panel(axis, kind, points, looks)
            axis.set_title(title)
        made.label("", y)
        legend(made, looks, everything)
        return made.figures

    return draw
