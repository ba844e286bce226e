"""LLM-KICK's claims H8, H10 and H13: methods alike, small dense or large sparse, rankings."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from analysis import kick_data, stats, style
from analysis.evidence import PRUNERS, Array, Evidence, Gain
from analysis.kick_data import Missing
from analysis.verdicts import Finding, Part, hypothesis
from crunchmark.paired import MARGIN

RANKS = 0.7  # H13
RESAMPLES = 2000
SAME_BYTES = 1.02  # H10: a file counts as no larger up to this factor


@hypothesis(
    "H8",
    "Where all match, magnitude, SparseGPT and Wanda are alike; beyond, magnitude collapses first.",
    "per task: alike if at every common matching budget the 95 % interval of each paired difference is "
    "within 5 % of dense (refuted if one is wholly outside); first if magnitude's limit is surely below "
    "both others' (refuted if it surely is not)",
)
def h8(e: Evidence) -> Finding:
    """Equivalence inside, order of limits outside."""
    line = e.pruners(e.points[e.points["task"].isin(e.tasks()) & e.points["headline"]])
    if line["method"].nunique() < len(PRUNERS):
        raise Missing("cells of all three of magnitude, sparsegpt and wanda")
    parts = []
    for task, own in line.groupby("task", sort=False):
        if own["method"].nunique() == len(PRUNERS):
            parts += [_alike(e, str(task), own), _first(e, str(task), own)]
    return Finding(parts, line)


def _alike(e: Evidence, task: str, own: pd.DataFrame) -> Part:
    """Differences of the three inside the region where all of them match."""
    shared = [
        b for b, g in own.groupby("budget") if g["method"].nunique() == 3 and (g["told"] == "match").all()
    ]
    gains = []
    for budget in shared:
        points = list(own[own["budget"] == budget].itertuples())
        gains += [(e.gain(one, two), one.dense) for one, two in combinations(points, 2)]
    name = f"{style.short_task(task)}: alike"
    if not gains:
        return Part(name, "undecided", "no budget at which all three match")
    outside = [g for g, dense in gains if g.low > MARGIN * dense or g.high < -MARGIN * dense]
    inside = [g for g, dense in gains if g.low > -MARGIN * dense and g.high < MARGIN * dense]
    outcome = "refuted" if outside else "supported" if len(inside) == len(gains) else "undecided"
    widest = max((max(abs(g.low), abs(g.high)) for g, _ in gains), default=0.0)
    return Part(
        name,
        outcome,
        f"{len(inside)} of {len(gains)} pairs within the margin; no interval beyond {widest:.3f}",
    )


def _first(e: Evidence, task: str, own: pd.DataFrame) -> Part:
    """Whether magnitude's limit is the lowest."""
    found = {str(method): e.reach(group) for method, group in own.groupby("method")}
    mine, others = found["magnitude"], [r for method, r in found.items() if method != "magnitude"]
    outcome = "undecided"
    if all(mine.high < other.low for other in others):
        outcome = "supported"
    elif any(mine.low >= other.high for other in others):
        outcome = "refuted"
    text = "; ".join(f"{method} {reach}" for method, reach in found.items())
    return Part(f"{style.short_task(task)}: magnitude first", outcome, text)


@hypothesis(
    "H10",
    "Small dense or large sparse: a pruned larger model does not beat the dense smaller one at equal bytes.",
    "per task, each pruned file no larger than the smaller model's, paired by item, Holm: refuted if one is "
    "better, supported if no interval reaches 5 % of dense above the smaller model",
)
def h10(e: Evidence) -> Finding:
    """Pruned cells of this model against smaller dense models."""
    head = e.study.points[e.study.points["headline"] & (e.study.points["state"] == "dense")]
    own = head[head["model"] == e.model]["file_bytes"].max()
    smaller = head[(head["model"] != e.model) & (head["file_bytes"] < own)]
    if e.study.points["model"].nunique() < 2:
        raise Missing("one model only; it takes a larger and a smaller one on the same items")
    if smaller.empty:
        raise Missing("no smaller dense model in the study")
    parts, used = [], []
    for dense in smaller[smaller["task"].isin(e.tasks())].itertuples():
        line = e.pruners(e.points[(e.points["task"] == dense.task) & e.points["headline"]])
        line = line[line["file_bytes"] <= SAME_BYTES * dense.file_bytes]
        if len(line):
            gains = [e.gain(point, dense) for point in line.itertuples()]
            parts.append(_no_better(dense, gains))
            used.append(line)
    if not parts:
        raise Missing("no pruned file is as small as the smaller model's")
    return Finding(parts, pd.concat(used))


def _no_better(dense: Any, gains: list[Gain]) -> Part:
    """Whether one of some pruned models is better than a smaller dense one on a task."""
    better = [
        g for g, p in zip(gains, stats.holm([g.p for g in gains]), strict=True) if p <= 0.05 and g.mean > 0
    ]
    within = all(g.high < MARGIN * dense.value for g in gains)
    outcome = "refuted" if better else "supported" if within else "undecided"
    best = max(gains, key=lambda g: g.mean)
    return Part(f"{style.short_task(dense.task)}, {dense.model}", outcome, f"best of {len(gains)}: {best}")


@hypothesis(
    "H13",
    "The ranking of methods depends on the task: perplexity and KICK agree on it with a correlation below "
    "0.7.",
    "Spearman's correlation of the ranks by perplexity and by mean share kept, averaged over budgets at "
    "which not all methods match, over the tasks that all were asked; 2000 draws of all values from their "
    "paired errors. Draws are noisier than what was measured, so the 95 % interval is widened by its mirror "
    "image: supported if it is below 0.7, refuted if above",
)
def h13(e: Evidence) -> Finding:
    """Rank correlation over budgets."""
    (ppl,) = e.study.need("ppl")
    head = kick_data.by_budget(e.points[e.points["headline"]])
    kick = head[head["task"].isin(e.tasks())]
    open_budgets = [b for b, g in kick.groupby("budget") if not (g["state"] == "match").all()]
    found, rng = [], np.random.default_rng(0)
    for budget in open_budgets:
        own, text = kick[kick["budget"] == budget], head[(head["task"] == ppl) & (head["budget"] == budget)]
        series = sorted(set(own["series"]) & set(text["series"][text["value"].notna()]))
        if len(series) >= 4:
            found.append(_correlations(own, text, series, rng))
    found = [draws for draws in found if draws is not None]
    if not found:
        raise Missing("four methods at one budget with perplexity and a task that not all of them match")
    draws = np.mean(found, axis=0)
    low, high = np.quantile(draws[1:], [0.025, 0.975])
    low, high = max(-1.0, min(low, 2 * draws[0] - high)), min(1.0, max(high, 2 * draws[0] - low))
    outcome = "supported" if high < RANKS else "refuted" if low >= RANKS else "undecided"
    text = f"mean correlation {draws[0]:.2f} [{low:.2f}, {high:.2f}] over {len(found)} budgets"
    used = head[head["budget"].isin(open_budgets)]
    return Finding([Part("all methods", outcome, text)], used)


def _correlations(
    own: pd.DataFrame, text: pd.DataFrame, series: list[str], rng: np.random.Generator
) -> Array | None:
    """Rank correlation at one budget: as measured, then for each draw of the values, (1 + RESAMPLES,).

    None where there is no task that all were asked, or where all are alike on one side.
    """
    half = (own["high"] - own["low"]) / 2
    lines = own.assign(kept=own["value"] / own["dense"], error=half / 1.96 / own["dense"])
    table = lines.pivot_table(index="series", columns="task", values=["kept", "error"]).loc[series]
    table = table.dropna(axis=1)
    tasks = sorted(set(table["kept"]) & set(table["error"])) if len(table.columns) else []
    if not tasks:
        return None
    kept, errors = (table[column][tasks].to_numpy(float) for column in ("kept", "error"))
    shift = rng.standard_normal((RESAMPLES, *kept.shape)) * errors
    score = np.concatenate([kept[None], kept + shift]).mean(2)
    ppl = text.set_index("series").loc[series]
    relative = ((ppl["high"] - ppl["low"]) / 2 / 1.96 / ppl["value"]).fillna(0.0).to_numpy(float)
    logs = np.log(ppl["value"].to_numpy(float))
    worse = np.concatenate([logs[None], logs + relative * rng.standard_normal((RESAMPLES, len(series)))])
    return _spearman(score, -worse)


def _spearman(first: Array, second: Array) -> Array | None:
    """Rank correlation of each line; None where one side of the first line is all ties."""
    one, two = rankdata(first, axis=1), rankdata(second, axis=1)
    one, two = one - one.mean(1, keepdims=True), two - two.mean(1, keepdims=True)
    size = np.sqrt((one**2).sum(1) * (two**2).sum(1))
    if not size[0] > 0:
        return None
    return np.asarray(np.divide((one * two).sum(1), size, out=np.zeros(len(size)), where=size > 0))
