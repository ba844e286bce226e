"""LLM-KICK's claims H5 to H7 and H9: context, length, instructions, disciplines."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.stats import norm

from analysis import kick_figures, kick_more, stats, style
from analysis.evidence import PRUNERS, Evidence, Reach, at_most, percent
from analysis.kick_data import Missing
from analysis.verdicts import Finding, Part, hypothesis

INSTRUCT = 0.30  # sparsity, H7
AHEAD = 0.10  # of open book before closed book in sparsity, H5


@hypothesis(
    "H5",
    "In-context robustness: open book matches at least 10 points of sparsity further than closed book.",
    "per pruning method, limits with undecided cells as fails and as matches: supported if the least "
    "difference is at least 10 points, refuted if the greatest is less",
)
def h5(e: Evidence) -> Finding:
    """Limits on open book minus limits on closed book."""
    line = e.pruners(pd.concat([e.of("closed"), e.of("open")]))
    closed, opened = (line[line["task"] == e.study.role(role)] for role in ("closed", "open"))
    parts = []
    for series in sorted(set(closed["series"]) & set(opened["series"])):
        one = e.reach(closed[closed["series"] == series])
        two = e.reach(opened[opened["series"] == series])
        least, most = two.low - one.high, two.high - one.low
        parts.append(Part(series, _ahead(least, most), f"closed {one}; open {two}"))
    return Finding(parts, line)


def _ahead(least: float, most: float) -> str:
    """Whether a difference of limits is at least AHEAD, up to a rounding of sparsities to whole weights."""
    return "supported" if least >= AHEAD - 0.002 else "refuted" if most < AHEAD - 0.002 else "undecided"


@hypothesis(
    "H6",
    "Length: summaries of long texts suffer more than those of short ones, inside the context window.",
    "per pruning method, relative loss averaged over its budgets, long minus short, items flagged as cut "
    "left out; supported if it is above zero (Holm over the methods), refuted if it is below",
)
def h6(e: Evidence) -> Finding:
    """The interaction of budget and length."""
    long, short = e.pruners(e.of("summ_l")), e.pruners(e.of("summ_s"))
    losses = {}
    for series in sorted(set(long["series"]) & set(short["series"])):
        (m1, s1), (m2, s2) = (_loss(e, side[side["series"] == series], role)
                              for side, role in ((long, "summ_l"), (short, "summ_s")))  # fmt: skip
        losses[series] = (m1 - m2, float(np.hypot(s1, s2)))
    adjusted = stats.holm([2 * norm.sf(abs(m) / s) if s else float(not m) for m, s in losses.values()])
    parts = []
    for (series, (mean, spread)), p in zip(losses.items(), adjusted, strict=True):
        outcome = "undecided" if p > 0.05 else "supported" if mean > 0 else "refuted"
        shift = percent((mean, mean - 1.96 * spread, mean + 1.96 * spread))
        parts.append(Part(series, outcome, f"extra loss on long texts {shift}, p = {p:.2g} (Holm)"))
    return Finding(parts, pd.concat([long, short]))


def _loss(e: Evidence, line: pd.DataFrame, role: str) -> tuple[float, float]:
    """Relative loss against dense per item, averaged over budgets and draws: mean and standard error."""
    dense = e.scores(e.dense(role))
    points = [e.scores(point) for point in line.itertuples()]
    names = [name for name in dense if all(name in found for found in points)]
    if len(names) < 2:
        raise Missing(f"no stored items of {role} that all cells share")
    now = np.array([[np.mean(found[name]) for name in names] for found in points]).mean(0)
    before = np.array([dense[name][0] for name in names])
    loss = (before - now) / before.mean()
    return float(loss.mean()), float(loss.std(ddof=1) / np.sqrt(len(loss)))


@hypothesis(
    "H7",
    "Instruction following matches only up to about 25 % sparsity.",
    "per pruning method: as H2, with 30 %",
)
def h7(e: Evidence) -> Finding:
    """The contiguous limit on instructions."""
    line = e.pruners(e.of("instruct"))
    reaches = {str(series): e.reach(own) for series, own in line.groupby("series")}
    return Finding([Part(s, at_most(r, INSTRUCT), f"limit {r}") for s, r in reaches.items()], line)


@hypothesis(
    "H7b",
    "The number of distinct tokens of an answer falls steadily with sparsity.",
    "per pruning method, neighbouring budgets paired by item, Holm over the steps: refuted if one step "
    "rises, supported if none does and the last budget is below dense; answers may be of different lengths",
)
def h7b(e: Evidence) -> Finding:
    """Steps of the mean count of distinct tokens."""
    (task,) = e.study.need("instruct")
    metric = kick_more.distinct_metric(e.study, task)
    if not metric:
        raise Missing(f"no metric {' or '.join(kick_more.DISTINCT)} of {task}")
    own = e.of("instruct", metric)
    dense = next(own[own["state"] == "dense"].itertuples())
    line = e.pruners(own)
    parts = []
    for series, group in line.groupby("series"):
        points = [dense, *group.sort_values("budget").itertuples()]
        steps = [e.gain(new, old) for old, new in pairwise(points)]
        whole = e.gain(points[-1], dense)
        rises = [
            s
            for s, p in zip(steps, stats.holm([s.p for s in steps]), strict=True)
            if p <= 0.05 and s.mean > 0
        ]
        outcome = "refuted" if rises else "supported" if whole.high < 0 else "undecided"
        parts.append(
            Part(str(series), outcome, f"{len(rises)} of {len(steps)} steps rise; last minus dense {whole}")
        )
    return Finding(parts, line)


@hypothesis(
    "H7c",
    "Fluency falls later than factual accuracy.",
    "per pruning method: supported if fluency's limit is surely beyond factoid's, refuted if it is surely "
    "not",
)
def h7c(e: Evidence) -> Finding:
    """Limits on fluency and on factoid."""
    fluent = e.points[e.points["metric"] == "fluency"]
    if fluent.empty:
        raise Missing("no metric fluency: it takes a judge")
    line = e.pruners(pd.concat([fluent, e.of("factoid")]))
    fluent, facts = line[line["metric"] == "fluency"], line[line["metric"] != "fluency"]
    parts = []
    for (series, task), own in fluent.groupby(["series", "task"]):
        one, two = e.reach(facts[facts["series"] == series]), e.reach(own)
        parts.append(
            Part(
                f"{series}, {style.short_task(str(task))}", _later(two, one), f"fluency {two}; factoid {one}"
            )
        )
    return Finding(parts, line)


def _later(one: Reach, two: Reach) -> str:
    """Whether the first limit is surely beyond the second."""
    return "supported" if one.low > two.high else "refuted" if one.high <= two.low else "undecided"


@hypothesis(
    "H9",
    "Humanities and social sciences drop more than STEM.",
    "per pruning method, drop relative to dense above chance, averaged over budgets, humanities and social "
    "sciences minus STEM: supported if its 95 % interval is above zero, refuted if below",
)
def h9(e: Evidence) -> Finding:
    """The interaction of budget and discipline."""
    (task,) = e.study.need("mcr")
    groups = kick_figures.by_group(e.study, task)
    if groups.empty:
        raise Missing(f"no item of {task} names a discipline (extra.group)")
    own = groups[(groups["model"] == e.model) & groups["method"].isin(PRUNERS)]
    soft = own["group"].str.lower().str.contains("humanit|social")
    hard = own["group"].str.lower().str.contains("stem")
    if not soft.any() or not hard.any():
        raise Missing(
            f"disciplines humanities or social sciences, and STEM; there are {sorted(set(own['group']))}"
        )
    drop = (own["dense"] - own["value"]) / (own["dense"] - own["chance"].fillna(0.0))
    error = (own["value_high"] - own["value"]) / 1.96 / (own["dense"] - own["chance"].fillna(0.0))
    parts = []
    for series in sorted(set(own["series"])):
        mine = own["series"] == series
        mean = drop[mine & soft].mean() - drop[mine & hard].mean()
        # Budgets share their items, so errors are averaged over budgets as if fully correlated.
        spread = float(np.hypot(error[mine & soft].mean(), error[mine & hard].mean()))
        low, high = mean - 1.96 * spread, mean + 1.96 * spread
        outcome = "supported" if low > 0 else "refuted" if high < 0 else "undecided"
        parts.append(Part(series, outcome, f"extra drop {percent((mean, low, high))}"))
    return Finding(parts, e.of("mcr")[lambda p: p["series"].isin(own["series"])])
