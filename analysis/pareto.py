"""Two figures of a study: what a task keeps at which size, and what falls first.

python -m analysis.pareto STUDY [--x bytes|nominal] [--task ...] [--format png,pdf,svg] [--out DIR]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis import beyond, collect, command, curves, panels, sheet, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXES = ("bytes", "nominal")
MARGIN = 0.05
GOLD = "#F2C94C"


def chosen_points(data: pd.DataFrame, tasks: Sequence[str] = ()) -> pd.DataFrame:
    """Headline points of the wanted tasks, with their 95 % intervals."""
    measured = collect.select(data, (), tasks)
    if measured.empty:
        raise collect.AnalysisError("task: the study has no headline row to draw")
    collect.check_protocols(measured)
    return collect.points(measured)


TABLE = (
    *("model", "label", "budget", "task", "metric", "higher_is_better", "x", "unit"),
    *("value", "value_low", "value_high", "state", "dense", "chance", "n", "seeds"),
)


def table(data: pd.DataFrame, x: str = "bytes", tasks: Sequence[str] = ()) -> pd.DataFrame:
    """What the figure shows: headline points with size `x` and its `unit`, then cells without scores."""
    points, unit = with_x(chosen_points(data, tasks), x)
    lost = collect.gone(data).reindex(columns=["model", "label", "budget", "state"])
    return pd.concat([points, lost]).assign(unit=unit).reindex(columns=list(TABLE))


def drawings(table: pd.DataFrame, name: str = "pareto") -> Iterator[tuple[str, sheet.Make]]:
    """A figure per model."""
    for stem, own in sheet.by_model(name, table):
        lost = own["state"].isin(style.GONE)
        if not lost.all():
            yield stem, lambda own=own, lost=lost: pareto(own[~lost], own[lost])


def pareto(points: pd.DataFrame, lost: pd.DataFrame) -> list[Figure]:
    """Small multiples of one model: a panel per task, score over size."""
    tasks = list(dict.fromkeys(zip(points["task"], points["metric"], strict=True)))
    labels = [label for label in dict.fromkeys(points["label"]) if label != "dense"]
    looks = style.looks(labels)
    entries = len(labels) + 4 + beyond.there(points)
    made = panels.panels(len(tasks), entries=entries, letters=max(map(len, labels), default=0))
    for axis, (task, metric) in zip(made.axes, tasks, strict=True):
        group = points[(points["task"] == task) & (points["metric"] == metric)]
        blind = bool(collect.at_chance(group[group["state"] != "dense"]).any())
        _panel(axis, group, looks, blind)
        axis.set_title(style.short_task(task) + (" (dense at chance)" if blind else ""))
        axis.set_ylabel(metric_name(task, metric))
    made.label(str(points["unit"].iloc[0]))
    if len(lost):
        made.note(_absent([f"{r.label} {style.budget_name(r.budget)}" for r in lost.itertuples()]))
    made.legend(["dense", *labels])
    return made.figures


def _absent(names: list[str]) -> str:
    """Say which cells are not in the figure."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"Not drawn (no such cell): {', '.join(names[:4])}{more}."


def with_x(points: pd.DataFrame, x: str) -> tuple[pd.DataFrame, str]:
    """The x column and its label, in the unit that suits the dense file."""
    if x == "nominal":
        kept = 1 - points["achieved_nominal"].where(points["state"] != "dense", 0.0)
        return points.assign(x=100 * kept), "weights kept (nominal, %)"
    top = points[["file_bytes", "dense_file_bytes"]].max().max()
    size, unit = next(
        ((s, u) for s, u in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if top >= s), (1.0, "bytes")
    )
    sizes = points["file_bytes"].where(points["state"] != "dense", points["dense_file_bytes"])
    return points.assign(x=sizes.fillna(points["file_bytes"]) / size), f"artifact on disk ({unit})"


def metric_name(task: str, metric: str) -> str:
    """The y label; perplexities say that their axis is turned over."""
    return (
        f"{metric.replace('_', ' ')} (log, inverted)"
        if style.is_perplexity(task, metric)
        else metric.replace("_", " ")
    )


def _panel(axis: Axes, group: pd.DataFrame, looks: dict[str, dict[str, Any]], blind: bool) -> None:
    """One task: band, chance, frontier, lines, dense."""
    higher = bool(group["higher_is_better"].iloc[0])
    dense = float(group["dense"].dropna().mean()) if group["dense"].notna().any() else float("nan")
    own = group[group["state"] == "dense"]
    dense = float(own["value"].iloc[0]) if len(own) else dense
    small = group[group["state"] != "dense"].dropna(subset=["x", "value"])
    most = beyond.limit(group, dense)
    levels(axis, dense, group["chance"].max(), higher, bool((small["state"] != "measured").any()))
    if not blind:
        _frontier(axis, pd.concat([small, own]) if len(own) else small, higher, most)
    for label, look in looks.items():
        points = small[small["label"] == label].sort_values("x")
        line = beyond.line(points, most)
        axis.errorbar(
            *(line["x"], line["value"]), yerr=panels.reach(line), label=label, **look, zorder=3, alpha=0.95,
            elinewidth=0.7, capsize=1.6, capthick=0.7, markeredgecolor="white", markeredgewidth=0.5,
            markevery=line["mark"].to_numpy(bool), errorevery=line["inside"].to_numpy(bool),
        )  # fmt: skip
        beyond.arrows(axis, points.loc[beyond.far(points, most), "x"], look["color"])
    if len(own) and np.isfinite(own["x"].iloc[0]):
        star: dict[str, Any] = {
            "marker": "*",
            "markersize": 12,
            "color": "black",
            "markeredgecolor": "white",
            "linestyle": "none",
        }
        axis.plot(own["x"], own["value"], label="dense", **star, markeredgewidth=0.7, zorder=5)
    fitted(axis, group, most)


def levels(axis: Axes, dense: float, chance: float, higher: bool, judged: bool = True) -> None:
    """Dense line, with its 5 % band where the metric is judged, and the chance level."""
    if np.isfinite(dense):
        edge = dense * (1 - MARGIN if higher else 1 + MARGIN)
        span = sorted((edge, dense))
        if judged:
            axis.axhspan(*span, color=style.BAND, lw=0, zorder=0, label="within 5 % of dense")
        axis.axhline(dense, color="#555555", lw=0.8, zorder=1)
    if np.isfinite(chance) and chance > 0:
        axis.axhline(chance, color="#777777", lw=1.0, linestyle=":", zorder=1, label="chance")


def frontier(points: pd.DataFrame, higher: bool) -> pd.DataFrame:
    """Points that no other point beats in both size and score, by growing size."""
    ordered = points.assign(good=points["value"] if higher else -points["value"]).dropna(subset=["x", "good"])
    ordered = ordered.sort_values(["x", "good"], ascending=[True, False])
    best = ordered["good"].cummax().shift(fill_value=-np.inf)
    return ordered[ordered["good"] > best]


def _frontier(axis: Axes, points: pd.DataFrame, higher: bool, most: float) -> None:
    """Haloes behind the points of the frontier, joined by a staircase."""
    best = frontier(points, higher)
    steps, best = beyond.stairs(best, most), beyond.held(best, most)
    axis.step(steps["x"], steps["value"], where="post", color=GOLD, lw=1.1, zorder=1.5)
    axis.plot(
        best["x"], best["value"], "o", ms=10, mfc=GOLD, mec="none", alpha=0.6, zorder=2, label="frontier"
    )


def fitted(axis: Axes, group: pd.DataFrame, most: float) -> None:
    """Shares from zero to one; perplexities logarithmic and turned over, so that up is better."""
    axis.use_sticky_edges = False
    axis.margins(x=0.06, y=0.08)
    if group["higher_is_better"].iloc[0]:
        if group["value"].max() <= 1:
            axis.set_ylim(-0.03, 1.05)
        return
    axis.set_yscale("log")
    plain_log(axis)
    if beyond.far(group, most).any():
        beyond.edge(axis, most)
    axis.invert_yaxis()


def plain_log(axis: Axes) -> None:
    """Ticks of a log axis as plain numbers, also when it spans less than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = sorted(axis.get_ylim())
    wide = low <= 0 or high / low > 300  # decades are ticks enough
    inches = axis.get_window_extent().height / axis.get_figure(root=True).dpi
    close = not wide and 72 * inches * np.log(2 / 1.5) / np.log(high / low) < sheet.now().letters - 1
    subs = (1,) if wide else (1, 2, 5) if close else (1, 1.5, 2, 3, 5)
    axis.yaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _plain(value: float) -> str:
    """A tick as a plain number; small ones as 1e-4, which is short."""
    return f"{value:g}" if value >= 1e-3 else f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-")


def write(
    data: pd.DataFrame,
    folder: Path,
    formats: Sequence[str] = sheet.FORMATS,
    x: str = "bytes",
    tasks: Sequence[str] = (),
) -> list[Path]:
    """Both figures per model in every format, and the numbers behind them."""
    name, points = "pareto" if x == "bytes" else f"pareto-{x}", table(data, x, tasks)
    paths = sheet.write(name, points, drawings(points, name), folder, formats)
    kept = curves.retained(chosen_points(data, tasks))
    if kept.empty:  # dense is at chance everywhere: there is nothing to keep
        return paths
    return paths + sheet.write("curves", kept, curves.drawings(kept), folder, formats)


def asked(
    purpose: str, argv: Sequence[str] | None, form: str
) -> tuple[pd.DataFrame, Path, list[str], str, list[str]]:
    """What commands that draw score over size share: rows, folder, formats, x and tasks."""
    options = command.parser(purpose)
    options.add_argument(
        "--x", default="bytes", help="bytes (of the artifact on disk) or nominal (share kept)"
    )
    options.add_argument("--task", default="", help="tasks (default: all)")
    options.add_argument("--format", default=form, help=f"png, pdf, svg (default: {form})")
    chosen = options.parse_args(argv)
    x, *more = command.listed(chosen.x, "x", AXES)
    if more:
        raise collect.AnalysisError(f"--x={chosen.x!r}: valid: one of {', '.join(AXES)}")
    formats = command.listed(chosen.format, "format", sheet.FORMATS)
    folder = Path(chosen.out or Path(chosen.store) / chosen.study / "figures")
    return command.read(chosen), folder, formats, x, command.listed(chosen.task)


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Read the options and draw the figures."""
    return write(*asked("Pareto plot and curves of a study", argv, ",".join(sheet.FORMATS)))


if __name__ == "__main__":
    sys.exit(command.run(main))
