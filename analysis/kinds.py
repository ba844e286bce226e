"""Pruning, low rank and quantisation on one axis: score over bytes, the best of each kind in bold.

python -m analysis.kinds STUDY [--task ...] [--x bytes|nominal] [--format png,pdf,svg] [--out DIR]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import beyond, collect, command, legends, panels, pareto, sheet, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = {  # what a method gives up; a pruner that also rounds is one of the third
    "single weights": "magnitude wanda sparsegpt",
    "bits": "rtn gptq awq hqq spqr squeezellm vq lr2vq",
    "bits and weights": "gqsa wanda_gptq sparsegpt_rtn",
    "bits, and low rank": "lq_lora int2_1",
    "rank": "svd asvd svd_llm afm lord welore lrt compactifai dsformer",
    "heads and blocks": "slicegpt shortgpt wanda_sp flap modegpt",
}
OTHER = "other"
COLOURS = dict(
    zip(
        [*KINDS, OTHER],
        ("#E69F00", "#0072B2", "#009E73", "#CC79A7", "#D55E00", "#882255", "#7F7F7F"),
        strict=True,
    )
)
TABLE = (
    *("model", "kind", "label", "budget", "task", "metric", "higher_is_better", "x", "unit"),
    *("value", "value_low", "value_high"),
    *("state", "dense", "chance"),
)
ROUNDS = re.compile(r"\bbits=\d")
WIDE, HIGH = 4.4, 3.5  # inches of a panel


def kind_of(method: str, label: str) -> str:
    """What the method gives up, by its name and knobs."""
    if method == "dense":
        return method
    found = next((kind for kind, names in KINDS.items() if method in names.split()), OTHER)
    return "bits and weights" if found == "single weights" and ROUNDS.search(label) else found


def sorted_out(data: pd.DataFrame, x: str = "bytes", tasks: Sequence[str] = ()) -> pd.DataFrame:
    """Headline points with size `x`, its `unit`, and `kind`.

    Raises:
        AnalysisError: nothing but the dense model was measured.
    """
    points, unit = pareto.with_x(pareto.chosen_points(data, tasks), x)
    methods = data.drop_duplicates("label").set_index("label")["method"]
    points["kind"] = [kind_of(methods[label], label) for label in points["label"]]
    points = points.assign(unit=unit).dropna(subset=["x", "value"])
    if (points["state"] == "dense").all():
        raise collect.AnalysisError("study: no compressed model to draw")
    return points.reindex(columns=list(TABLE))


def drawings(points: pd.DataFrame) -> Iterator[tuple[str, sheet.Make]]:
    """A figure per model, of tasks on which dense has skill."""
    for stem, own in sheet.by_model("kinds", points):
        seen = own[~collect.at_chance(own)]
        if (seen["state"] != "dense").any():
            yield stem, lambda seen=seen: draw(seen)


def draw(points: pd.DataFrame) -> list[Figure]:
    """One model: a panel per task, thin lines for methods, a broad one for the best of each kind."""
    tasks = list(dict.fromkeys(zip(points["task"], points["metric"], strict=True)))
    small = points[points["state"] != "dense"]
    labels = {kind: list(dict.fromkeys(group["label"])) for kind, group in small.groupby("kind")}
    labels = {kind: labels[kind] for kind in COLOURS if kind in labels}
    made = panels.panels(len(tasks), min(2, len(tasks)), len(small), size=(WIDE, HIGH), least=1.5)
    for axis, (task, metric) in zip(made.axes, tasks, strict=True):
        group = points[(points["task"] == task) & (points["metric"] == metric)]
        _panel(axis, group, labels)
        axis.set_title(style.short_task(task))
        axis.set_ylabel(pareto.metric_name(task, metric))
    made.label(str(points["unit"].iloc[0]))
    made.groups(
        [*(_group(kind, names) for kind, names in labels.items()), made.labelled("reference", ["dense"])]
    )
    return made.figures


def _panel(axis: Axes, group: pd.DataFrame, labels: dict[str, list[str]]) -> None:
    """Methods by kind in front of the best of each kind."""
    higher = bool(group["higher_is_better"].iloc[0])
    dense = float(group["dense"].dropna().mean())
    small = group[group["state"] != "dense"]
    most = beyond.limit(group, dense)
    pareto.levels(axis, dense, group["chance"].max(), higher, bool((small["state"] != "measured").any()))
    for kind, names in labels.items():
        own = small[small["kind"] == kind]
        best = beyond.stairs(pareto.frontier(own, higher), most)
        axis.step(best["x"], best["value"], where="post", color=COLOURS[kind], lw=6, alpha=0.22, zorder=2)
        for i, label in enumerate(names):
            points = own[own["label"] == label].sort_values("x")
            line = beyond.line(points, most)
            axis.plot(
                line["x"], line["value"], **_look(kind, i), zorder=3, markevery=line["mark"].to_numpy(bool)
            )
            beyond.arrows(axis, points.loc[beyond.far(points, most), "x"], COLOURS[kind])
    own = group[group["state"] == "dense"]
    star = {"ms": 12, "color": "black", "mec": "white", "mew": 0.7, "zorder": 5}
    axis.plot(own["x"], own["value"], "*", label="dense", **star)
    pareto.fitted(axis, small, most)


def _look(kind: str, i: int) -> dict[str, Any]:
    look = {
        "color": COLOURS[kind],
        "marker": style.MARKERS[i % len(style.MARKERS)],
        "linestyle": style.LINES[i % len(style.LINES)],
    }
    return look | {"lw": 1.1, "ms": 4.2, "mec": "white", "mew": 0.4}


def _group(kind: str, names: list[str]) -> legends.Group:
    """The legend of one kind."""
    from matplotlib.lines import Line2D

    return kind, [Line2D([], [], **_look(kind, i)) for i in range(len(names))], names, COLOURS[kind]


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Read the options and draw the figure."""
    data, folder, formats, x, tasks = pareto.asked("Kinds of compression on one axis", argv, "png")
    points = sorted_out(data, x, tasks)
    return sheet.write("kinds", points, drawings(points), folder, formats)


if __name__ == "__main__":
    sys.exit(command.run(main))
