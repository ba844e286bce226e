"""LLM-KICK's figures 5 to 7 and 14: summaries, instructions, calibration sets, shots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import kick_data, kick_draw, panels, pareto, style
from analysis.kick_data import Missing, Study
from analysis.kick_draw import ABSENT, KINDS, Draw, Drawing, Looks, Part, data, grid, kinds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BUCKETS = {"summ_s": "short", "summ_m": "medium", "summ_l": "long"}
ASPECTS = ("coherence", "consistency", "fluency", "relevance", "covered", "rougeL", "rouge_l", "distinct")
DISTINCT = ("distinct", "distinct_tokens", "unique_tokens")


def fig5(kind: str, name: str) -> Any:
    """The maker of figure 5 along one kind of axis."""

    def make(study: Study) -> Drawing:
        parts, notes = [], []
        tasks = {title: study.role(role) for role, title in BUCKETS.items() if study.role(role)}
        if not tasks:
            (whole,) = study.need("summ")
            tasks = {"all lengths": whole}
        lost = [title for title in BUCKETS.values() if title not in tasks]
        if lost:
            notes.append(f"{name}: no summaries by length ({', '.join(lost)}); drawn without those lines")
        for title, task in tasks.items():
            parts += [(f"{title}: {metric}", kind, p) for metric, p in _aspects(study, task, kind)]
        if not parts:
            raise Missing(f"no {ABSENT[kind]} scored on summaries")
        return Drawing(data(parts), notes)

    return make


def lengths(everything: pd.DataFrame, looks: Looks) -> list[Figure]:
    """Draws figure 5: a line of panels per length of the text."""

    def columns(parts: list[Part]) -> int:
        lines = everything["task"].nunique()
        return max(1, len(parts) // lines) + (lines == 1)  # one line: the legend is at its right

    return grid("score of the summary", columns)(everything, looks)


def _aspects(study: Study, task: str, kind: str) -> list[tuple[str, pd.DataFrame]]:
    """Up to four aspects of a summary: the judge's where there are some, else the proxies'."""
    own = study.points[study.points["task"] == task]
    there = list(dict.fromkeys(own["metric"]))
    known = [metric for metric in ASPECTS if metric in there] or there
    found = [(metric, KINDS[kind][0](own[own["metric"] == metric])) for metric in known[:4]]
    return [(metric, points) for metric, points in found if len(points)]


def fig6_instruct(study: Study) -> Drawing:
    """Instructions: score over budgets and N:M patterns, and mean distinct tokens of an answer."""
    (task,) = study.need("instruct")
    notes: list[str] = []
    own = study.of(task)
    found = dict(kinds(own, notes, "fig6_instruct"))
    parts = [
        (f"{own['metric'].iloc[0]}", kind, found[kind]) for kind in ("budget", "pattern") if kind in found
    ]
    metric = distinct_metric(study, task)
    distinct = kick_data.by_budget(study.of(task, metric)) if metric else own.head(0)
    if len(distinct):
        parts.append(("mean distinct tokens", "budget", distinct))
    else:
        notes.append(f"fig6_instruct: no metric {' or '.join(DISTINCT)} of {task}; that panel is left out")
    if not parts:
        raise Missing(f"no budget or pattern was scored on {task}")
    return Drawing(data(parts), [n for n in notes if "whole bits" not in n])


instructions = grid("score", lambda parts: len(parts) + 1)


def distinct_metric(study: Study, task: str) -> str:
    """The metric that counts distinct tokens of an answer, "" where there is none."""
    there = set(study.points.loc[study.points["task"] == task, "metric"])
    return next((name for name in DISTINCT if name in there), "")


def fig7_calibration(study: Study) -> Drawing:
    """Multiple choice over the number of calibration samples, a panel per method, a line per budget."""
    (task,) = study.need("mcr")
    points = kick_data.by_size(study.of(task))
    if points.empty:
        raise Missing("no method has cells with two or more sizes of the calibration set (calib.n)")
    return Drawing(points)


def fig14_shots(study: Study) -> Drawing:
    """Multiple choice over the examples in the prompt, a panel per method, a line per budget."""
    tasks = kick_data.shots(study)
    if len(tasks) < 2:
        raise Missing(
            f"multiple choice with {list(tasks) or 'no'} examples only; two or more counts are needed"
        )
    parts = [kick_data.by_budget(study.of(task)).assign(x=k) for k, task in tasks.items()]
    dense = [study.of(task)[lambda p: p["state"] == "dense"].assign(x=k) for k, task in tasks.items()]
    points = pd.concat(parts)
    points = points[points.groupby(["model", "series", "budget"])["x"].transform("nunique") > 1]
    if points.empty:
        raise Missing("no compressed cell was asked with several numbers of examples")
    return Drawing(pd.concat([*dense, points]))


def levels(x: str, y: str, log: bool = False) -> Draw:
    """What draws a panel per series, a line per budget: the more is removed, the darker."""
    return lambda everything, _: _levels(everything, x, y, log)


def _levels(everything: pd.DataFrame, x: str, y: str, log: bool) -> list[Figure]:
    """A panel per series, with dense: one level, or a line where it depends on x too."""
    from matplotlib import colormaps

    dense, points = (everything[(everything["state"] == "dense") == own] for own in (True, False))
    parts = list(points.groupby(["model", "series"], sort=False))
    budgets = sorted(set(points["budget"]))
    shades = colormaps["viridis_r"]
    made = panels.panels(len(parts), 4, len(budgets) + 6, shared=True, least=1.25)
    for i, (axis, ((model, series), group)) in enumerate(zip(made.axes, parts, strict=True)):
        own = dense[dense["model"] == model].sort_values("x") if len(dense) else None
        _dense_level(axis, group, own)
        for budget, line in group.assign(x=group["x"].astype(float)).sort_values("x").groupby("budget"):
            at = budgets.index(budget)
            look = {
                "color": shades(0.12 + 0.88 * at / max(1, len(budgets) - 1)),
                "marker": style.MARKERS[at % len(style.MARKERS)],
                "linestyle": style.LINES[at % len(style.LINES)],
            }
            name = f"{100 * float(str(budget)):.3g} % removed"
            kick_draw.curve(axis, line, look, name)
        axis.set_title(str(series))
        axis.tick_params(labelleft=made.first(i))
        _counted(axis, sorted(set(points["x"])), log)
    kick_draw.states(made.axes[0], False, points["state"])
    made.label(x, y)
    made.legend(["dense", *(f"{100 * b:.3g} % removed" for b in budgets)])
    return made.figures


def _counted(axis: Any, counts: list[int], log: bool) -> None:
    """An x axis of counts, shares on y."""
    if log:
        axis.set_xscale("log", base=2)
    axis.set_xticks(counts)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.minorticks_off()
    axis.set_ylim(-0.03, 1.06)


def _dense_level(axis: Any, group: pd.DataFrame, dense: pd.DataFrame | None) -> None:
    """Dense with its margin: one level, or a line where it depends on x too."""
    chance = group["chance"].max()
    if dense is None:
        pareto.levels(axis, float(group["dense"].mean()), chance, True)
        return
    low = dense["value"] * (1 - pareto.MARGIN)
    axis.fill_between(dense["x"], low, dense["value"], color=style.BAND, lw=0, label="within 5 % of dense")
    axis.plot(dense["x"], dense["value"], color="black", lw=1.0, label="dense")
    pareto.levels(axis, float("nan"), chance, True)
