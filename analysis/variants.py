"""What allocation, repair and knobs change: a panel per method, a line per variant, and what each gains.

python -m analysis.variants STUDY [--task ...] [--x bytes|nominal] [--format png,pdf,svg] [--out DIR]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis import beyond, collect, command, outfile, panels, pareto, sheet, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLAIN = "defaults"
KEYS = ["model", "method", "budget", "task", "metric"]
TABLE = (
    *("model", "method", "variant", "label", "budget", "task", "metric", "higher_is_better", "x", "unit"),
    *("value", "value_low", "value_high", "state", "dense", "chance", "n", "seeds"),
)
COLOURS = ("#222222", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255")


def split(data: pd.DataFrame, x: str = "bytes", tasks: Sequence[str] = ()) -> pd.DataFrame:
    """The study's points with size `x`, its `unit`, and `variant`: what a label says beside its method."""
    points, unit = pareto.with_x(pareto.chosen_points(data, tasks), x)
    methods = data.drop_duplicates("label").set_index("label")["method"]
    points["method"], points["unit"] = points["label"].map(methods), unit
    told = [
        label.removeprefix(method).strip()
        for label, method in zip(points["label"], points["method"], strict=True)
    ]
    return points.assign(variant=[name or PLAIN for name in told])


def gains(points: pd.DataFrame) -> pd.DataFrame:
    """Per model, task, variant and budget: the median gain over the methods, and how many of them gain.

    A gain is variant against defaults of one method at one budget: in per cent of perplexity
    (what it is lower by), in points of scores (100 times the difference); positive is better.
    """
    small = points[points["state"] != "dense"]
    plain = small[small["variant"] == PLAIN]
    both = small[small["variant"] != PLAIN].merge(plain, on=KEYS, suffixes=("", "_plain"))
    if both.empty:
        raise collect.AnalysisError(
            "study: no method both at its defaults and in another way at one budget; "
            "valid: a grid over allocate, compensate or knobs"
        )
    both["gain"] = collect.gain(both)
    both["better"] = both["gain"] > 0
    lines = both.groupby(["model", "task", "metric", "variant", "budget"], sort=False)
    made = lines.agg(gain=("gain", "median"), better=("better", "sum"), methods=("method", "nunique"))
    return made.reset_index()


def table(data: pd.DataFrame, x: str = "bytes", tasks: Sequence[str] = ()) -> pd.DataFrame:
    """What the figures show.

    Raises:
        AnalysisError: nothing was varied.
    """
    points = split(data, x, tasks)
    gains(points)
    return points.reindex(columns=list(TABLE))


def drawings(points: pd.DataFrame) -> Iterator[tuple[str, sheet.Make]]:
    """A figure per model and task on which dense has skill and something was varied."""
    gained = gains(points)
    found = set(zip(gained["model"], gained["task"], strict=True))
    for stem, group in sheet.by_task("variants", points):
        blind = bool(collect.at_chance(group[group["state"] != "dense"]).any())
        if not blind and (group["model"].iloc[0], group["task"].iloc[0]) in found:
            yield stem, lambda group=group: draw(group)


def draw(points: pd.DataFrame) -> list[Figure]:
    """One model and task: score over size, every method beside the frontier of the whole study."""
    small = points[points["state"] != "dense"].dropna(subset=["x", "value"])
    task, metric = points[["task", "metric"]].iloc[0]
    higher = bool(points["higher_is_better"].iloc[0])
    dense = float(points["dense"].dropna().mean())
    most = beyond.limit(small, dense)
    methods, variants = (list(dict.fromkeys(small[name])) for name in ("method", "variant"))
    variants = sorted(variants, key=lambda name: name != PLAIN)  # stable
    columns = 5 if len(methods) > 8 else 4
    made = panels.panels(len(methods), columns, len(variants) + 3 + beyond.there(small), shared=True)
    best, judged = pareto.frontier(small, higher), bool((small["state"] != "measured").any())
    for i, (axis, method) in enumerate(zip(made.axes, methods, strict=True)):
        _panel(axis, small[small["method"] == method], variants, most)
        _behind(axis, small[~beyond.far(small, most)], beyond.stairs(best, most))
        pareto.levels(axis, dense, points["chance"].max(), higher, judged)
        axis.set_title(method)
        axis.set_xlim(small["x"].min() * 0.96, points["x"].max() * 1.03)
        _limits(axis, small, dense, most)
        axis.tick_params(labelleft=made.first(i))
    made.label(str(points["unit"].iloc[0]), f"{style.short_task(task)}: {pareto.metric_name(task, metric)}")
    made.legend([*variants, "frontier of all", "within 5 % of dense", "chance"])
    return made.figures


def _behind(axis: Axes, rest: pd.DataFrame, best: pd.DataFrame) -> None:
    """All points of the study, and their frontier."""
    axis.plot(rest["x"], rest["value"], ".", color="#D8D8D8", ms=3, zorder=1)
    axis.step(
        best["x"], best["value"], where="post", color=pareto.GOLD, lw=1.4, zorder=2, label="frontier of all"
    )


def _panel(axis: Axes, own: pd.DataFrame, variants: list[str], most: float) -> None:
    """A method's lines; a repair is dashed, its allocator has the colour."""
    bases = list(dict.fromkeys(_base(name) for name in variants))
    for variant in variants:
        points, repaired = own[own["variant"] == variant].sort_values("x"), _base(variant) != variant
        line = beyond.line(points, most)
        colour = COLOURS[bases.index(_base(variant)) % len(COLOURS)]
        axis.plot(
            *(line["x"], line["value"]), label=variant, color=colour, zorder=4 if repaired else 3, lw=1.2,
            marker="s" if repaired else "o", ms=3.6, linestyle="--" if repaired else "-",
            markerfacecolor="white" if repaired else colour, markeredgecolor=colour, markeredgewidth=0.9,
            markevery=line["mark"].to_numpy(bool),
        )  # fmt: skip
        beyond.arrows(axis, points.loc[beyond.far(points, most), "x"], colour)


def _base(variant: str) -> str:
    """The variant without its repair."""
    return re.sub(r"\s*compensate=\S+.*", "", variant) or PLAIN


def _limits(axis: Axes, points: pd.DataFrame, dense: float, most: float) -> None:
    """Shares from zero to one; what has no upper end logarithmic and turned over, so that up is better."""
    values = points["value"]
    if points["higher_is_better"].iloc[0]:
        axis.set_ylim(-0.03, 1.06 if values.max() <= 1 else None)
        return
    axis.set_yscale("log")
    low = min(values.min(), dense) if dense > 0 else values[values > 0].min()
    axis.set_ylim(low * 0.9, min(values.max(), most) * 1.15)
    if beyond.far(points, most).any():
        beyond.edge(axis, most)
    pareto.plain_log(axis)
    axis.invert_yaxis()


def markdown(points: pd.DataFrame, gained: pd.DataFrame) -> str:
    """Tables of a model and task: gains of variants, then values, best of a method and budget bold."""
    task, metric = points[["task", "metric"]].iloc[0]
    perplexity, budgets = style.is_perplexity(task, metric), sorted(gained["budget"].unique())
    unit = "% of perplexity" if perplexity else f"points of {metric.replace('_', ' ')}"
    heads = [f"{100 * budget:g} %" for budget in budgets]
    lines = [
        f"## {style.short_task(task)}",
        "",
        f"Median gain over defaults, {unit}, and methods better:",
        "",
    ]
    lines += [f"| variant | {' | '.join(heads)} |", f"| --- |{' --- |' * len(budgets)}"]
    for variant, group in gained.groupby("variant", sort=False):
        at = group.set_index("budget")
        cells = [
            f"{at.gain[b]:+.1f} ({at.better[b]} of {at.methods[b]})" if b in at.index else "–"
            for b in budgets
        ]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    lines += ["", f"| method | variant | {' | '.join(heads)} |", f"| --- | --- |{' --- |' * len(budgets)}"]
    small = points[points["state"] != "dense"]
    higher = bool(small["higher_is_better"].iloc[0])
    best = small.groupby(["method", "budget"])["value"].agg("max" if higher else "min")
    for (method, variant), group in small.groupby(["method", "variant"], sort=False):
        found = {row.budget: row for row in group.itertuples()}
        cells = []
        for budget in budgets:
            if (row := found.get(budget)) is None:
                cells.append("–")
                continue
            text = style.number(row.value)
            top = bool(np.isclose(row.value, best[method, budget]))
            cells.append(f"{f'**{text}**' if top else text} {style.MARKS.get(row.state, '')}".strip())
        lines.append(f"| {method} | {variant} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write(points: pd.DataFrame, folder: Path, formats: Sequence[str]) -> list[Path]:
    """A figure for every model and task, the numbers behind them, and one file with all tables."""
    gained, several = gains(points), points["model"].nunique() > 1
    paths = sheet.write("variants", points.reindex(columns=list(TABLE)), drawings(points), folder, formats)
    tables = []
    for (model, task, metric), group in points.groupby(["model", "task", "metric"], sort=False):
        own = gained[(gained["model"] == model) & (gained["task"] == task) & (gained["metric"] == metric)]
        if len(own) and not collect.at_chance(group[group["state"] != "dense"]).any():
            tables.append((f"# {model}\n\n" if several else "") + markdown(group, own))
    paths.append(folder / "variants.md")
    with outfile.whole(paths[-1]) as temp:
        temp.write_text("\n".join(tables), encoding="utf-8")
    return paths


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Read the options, draw the figures, write the tables."""
    purpose = "What variants of methods gain, and where they lie on the frontier"
    data, folder, formats, x, tasks = pareto.asked(purpose, argv, "png")
    return write(split(data, x, tasks), folder, formats)


if __name__ == "__main__":
    sys.exit(command.run(main))
