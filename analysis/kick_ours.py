"""What the paper has no figure for: match matrix, measured bytes, knowledge against perplexity, flips."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis import beyond, kick_data, kick_draw, panels, pareto, sheet, stats, style
from analysis.kick_data import Missing, Study
from analysis.kick_draw import Drawing, Looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PPL_FINE = 10.0  # per cent; below, perplexity raises no alarm (hypothesis H1 of the verdicts)
CELL = 0.7  # inches of a column that holds its name
FARTHEST = 1e6  # per cent; a perplexity beyond is drawn there, with an arrow


def limits(study: Study) -> pd.DataFrame:
    """How far each series may go on each task, along budgets; one line per model, series and task."""
    points = kick_data.by_budget(study.points[study.points["headline"]])
    points = points[~kick_data.blind(points)].assign(label=lambda p: p["series"])
    found = stats.limits(points)
    n = points.groupby(stats.LIMIT_KEYS)[["n", "seeds"]].max().reset_index()
    found = found.merge(n, on=stats.LIMIT_KEYS, how="left").rename(columns={"label": "series"})
    place = {task: i for i, task in enumerate(dict.fromkeys(study.points["task"]))}
    return found.sort_values(
        ["model", "task", "series"], key=lambda c: c.map(place) if c.name == "task" else c
    )


def match_matrix(study: Study) -> Drawing:
    """Task x method: the largest budget that matches, as do all smaller ones; a heat map per model."""
    found = limits(study)
    if found.empty:
        raise Missing("no compressed cell along budgets was judged against dense")
    return Drawing(found)


def matrices(found: pd.DataFrame, looks: Looks) -> list[Figure]:
    """Draws the matrix: a heat map per model, one below the other."""
    models = list(dict.fromkeys(found["model"]))
    shape = found.groupby("model")[["task", "series"]].nunique().max()
    figure, axes = _sheet(len(models), shape["task"], shape["series"])
    for axis, model in zip(axes, models, strict=True):
        _heat(axis, found[found["model"] == model], looks)
        left = -axis.get_position().x0 / axis.get_position().width if sheet.now().width else 0.0
        axis.set_title(f"{model}: how far it matches, % removed", x=0.9 * left)
    return [figure]


def _sheet(models: int, tasks: int, series: int) -> tuple[Any, list[Any]]:
    """A figure with room for a heat map per model, in inches."""
    from matplotlib.figure import Figure

    on = sheet.now()
    width, line = on.width or max(4.6, 1.35 + 0.78 * series), 0.3 if on.width else 0.42
    named = 0.75 if (width - 1.35) / series < CELL else 0.25  # the names of the methods below each
    if on.fills:
        line = min(line, ((on.height - 0.5) / models - 0.35 - named) / tasks)
    height = on.height if on.fills else models * (0.35 + named + line * tasks) + 0.5
    figure = Figure(figsize=(width, height))
    each = line * tasks / height
    axes = []
    for i in range(models):
        top = 1 - (0.35 + i * (0.35 + named + line * tasks)) / height
        axes.append(figure.add_axes((1.25 / width, top - each, 1 - 1.35 / width, each)))
    told = (
        "the largest budget that matches, as do all smaller ones",
        "in brackets: the largest that matches above a gap; +: how far undecided cells may reach",
    )
    text = "\n".join(line for part in told for line in textwrap.wrap(part, int(width / 0.049)))
    figure.text(0.1 / width, 0.12 / height, text, fontsize=6.8, color="#555555")
    return figure, axes


def _heat(axis: Axes, found: pd.DataFrame, looks: Looks) -> None:
    """One heat map; the numbers are written into it."""
    tasks = list(dict.fromkeys(found["task"]))
    series = [s for s in looks if s in set(found["series"])]
    table = np.full((len(tasks), len(series)), np.nan)
    for line in found.itertuples():
        row, column = tasks.index(line.task), series.index(line.series)
        table[row, column] = 100 * line.contiguous
        light = line.contiguous < 0.45
        text = stats.limit_text(line)
        text = text.replace(" ", "\n") if _cell(axis, len(series)) < 0.45 else text
        axis.text(column, row, text, ha="center", va="center",
                  fontsize=sheet.now().letters - 1, color="black" if light else "white")  # fmt: skip
    axis.imshow(table, cmap="YlGnBu", vmin=0, vmax=85, aspect="auto")
    turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    turned = turned if _cell(axis, len(series)) < CELL else {}
    axis.set_xticks(range(len(series)), series, **turned)
    axis.set_yticks(range(len(tasks)), [style.short_task(task) for task in tasks])
    axis.grid(visible=False)
    axis.tick_params(length=0)


def _cell(axis: Axes, count: int) -> float:
    """Inches of a column."""
    return float(axis.get_window_extent().width / axis.get_figure(root=True).dpi / count)


def bytes_figure(study: Study) -> Drawing:
    """Score over measured bytes, a panel per task, as in `analysis.pareto`; first model only."""
    model = study.models[0]
    own = study.points[study.points["headline"] & (study.points["model"] == model)]
    line = pd.concat([own[own["state"] == "dense"], kick_data.by_budget(own), _whole_bits(own)])
    if line["file_bytes"].isna().all() or (line["state"] == "dense").all():
        raise Missing("no compressed cell has measured bytes (file_bytes)")
    line, unit = pareto.with_x(line.drop_duplicates([*kick_data.KEYS]), "bytes")
    notes = [f"bytes: drawn for {model}; the other models have theirs with analysis.pareto"]
    return Drawing(line.assign(unit=unit), notes if len(study.models) > 1 else [])


def over_bytes(line: pd.DataFrame, looks: Looks) -> list[Figure]:
    """Draws score over bytes."""
    return pareto.pareto(line.assign(label=line["series"]), line.head(0))


def _whole_bits(own: pd.DataFrame) -> pd.DataFrame:
    """Cells at whole bits of series that were not swept along budgets."""
    bits = kick_data.by_bits(own)
    return bits[~bits["series"].isin(kick_data.by_budget(own)["series"])]


def knowledge_perplexity(study: Study) -> Drawing:
    """One point per cell: the share of closed-book facts kept over the relative change of perplexity."""
    factoid, ppl = study.need("factoid", "ppl")
    cells = [k for k in kick_data.KEYS if k not in ("task", "metric")]
    both = kick_data.small(study.of(factoid)).merge(
        study.of(ppl)[[*cells, "value", "dense"]], on=cells, suffixes=("", "_ppl")
    )
    both = both[(both["dense"] > 0) & both["value_ppl"].notna()]
    if both.empty:
        raise Missing(f"no compressed cell has both {factoid} and {ppl}")
    change = 100 * (both["value_ppl"] / both["dense_ppl"] - 1)
    return Drawing(both.assign(kept=both["value"] / both["dense"], ppl_change=change))


def scatter(both: pd.DataFrame, looks: Looks) -> list[Figure]:
    """Draws the scatter, with the corner where perplexity looks fine and facts are gone."""
    made = panels.panels(1, 1, both["series"].nunique() + 5, size=(4.6, 3.0))
    axis = made.axes[0]
    axis.axhspan(95, 100, color=style.BAND, lw=0, zorder=0, label="within 5 % of dense")
    axis.fill_between([-12, PPL_FINE], -4, 95, color="#F7D9CF", lw=0, zorder=0,
                      label="perplexity fine,\nknowledge gone")  # fmt: skip
    for series, look in looks.items():
        own = both[both["series"] == series]
        for line in own.assign(ppl_change=own["ppl_change"].clip(upper=FARTHEST)).to_dict("records"):
            _spot(axis, line, look)
        beyond.arrows(axis, 100 * own.loc[own["ppl_change"] > FARTHEST, "kept"], look["color"], right=True)
        if series in set(both["series"]):
            axis.plot([], [], linestyle="none", marker=look["marker"], color=look["color"], label=series)
    kick_draw.states(axis, False, both["state"])
    if (both["ppl_change"] > FARTHEST).any():
        beyond.named(axis)
    _change_axis(axis, max(100.0, 1.3 * min(FARTHEST, float(both["ppl_change"].max()))))
    axis.set_ylabel("closed-book facts kept (% of dense)")
    made.legend([s for s in looks if s in set(both["series"])], measured=True)
    return made.figures


def _spot(axis: Axes, line: dict[Any, Any], look: dict[str, Any]) -> None:
    """One cell, with the interval of its facts."""
    mark = {"marker": look["marker"], "markeredgecolor": look["color"], "markersize": 6}
    mark |= kick_draw.face(line["state"], look["color"])
    reach = np.array([[line["value"] - line["value_low"]], [line["value_high"] - line["value"]]]).clip(0)
    axis.errorbar(
        *(line["ppl_change"], 100 * line["kept"]), yerr=100 * reach / line["dense"], zorder=3,
        ecolor=look["color"], elinewidth=0.6, linestyle="none", **mark,
    )  # fmt: skip


def _change_axis(axis: Axes, top: float) -> None:
    """Per cent of change: linear where a change is small, logarithmic beyond."""
    axis.set_xscale("symlog", linthresh=PPL_FINE, linscale=1.6)
    few = axis.get_window_extent().width / axis.get_figure(root=True).dpi < 3.5
    wanted = (-10, 0, 10, 100, 1e4, 1e6) if few else (-10, 0, 5, 10, 30, 100, 300, 1e3, 1e4, 1e5, 1e6)
    ticks = [t for t in wanted if t <= top]
    axis.set_xticks(ticks, [f"{t:,.0f}" for t in ticks])
    axis.minorticks_off()
    axis.set(xlim=(-12, top), ylim=(-4, 106))
    axis.set_xlabel("change of perplexity against dense (%, logarithmic beyond 10)")


def flips(study: Study) -> Drawing:
    """Answers that turned from right to wrong (down) and from wrong to right (up), over budgets."""
    line = kick_data.flipped(study.points)
    if line.empty:
        raise Missing("no point has lost and gained items")
    return Drawing(line)


def flip_panels(line: pd.DataFrame, looks: Looks) -> list[Figure]:
    """Draws the flips, a panel per model and task."""
    tasks = list(dict.fromkeys(zip(line["model"], line["task"], strict=True)))
    made = panels.panels(len(tasks), 4, line["series"].nunique() + 2, shared=True)
    for i, (axis, (model, task)) in enumerate(zip(made.axes, tasks, strict=True)):
        own = line[(line["model"] == model) & (line["task"] == task)]
        _flip_panel(axis, own, looks)
        axis.set_title(
            f"{model}, {style.short_task(task)}" if line["model"].nunique() > 1 else style.short_task(task)
        )
        axis.tick_params(labelleft=made.first(i))
    low, high = (float((100 * line[column] / line["n"]).max()) for column in ("lost", "gained"))
    for axis in made.axes:
        axis.set_ylim(-1.06 * max(low, 1), 1.2 * max(high, 1) + 3)
    made.label("share removed (budget, %)", "items gained (+) and lost (-), %")
    made.legend([s for s in looks if s in set(line["series"])])
    return made.figures


def _flip_panel(axis: Axes, own: pd.DataFrame, looks: Looks) -> None:
    """One task: a line per series above zero for what was gained, below for what was lost."""
    axis.axhline(0, color="#555555", lw=0.8, zorder=1)
    for series in (s for s in looks if s in set(own["series"])):
        part = own[own["series"] == series].sort_values("x")
        for column, sign in (("lost", -1), ("gained", 1)):
            y = sign * 100 * part[column] / part["n"]
            look = looks[series] | {"markersize": 3.4}
            axis.plot(100 * part["x"], y, **look, label=series if sign < 0 else None, zorder=3)
