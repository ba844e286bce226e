"""LLM-KICK's claims H5 to H7 and H9: context, length, instructions, disciplines."""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t

from analysis import kick_more, stats, style
from analysis.crossed import Spread
from analysis.evidence import Evidence, Gain, Reach, at_most, parent, percent
from analysis.kick_data import Missing
from analysis.verdicts import Finding, Part, hypothesis
from crunchmark.paired import LEVEL

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
    "per pruning method, relative loss averaged over the budgets that both were asked at, long minus short, "
    "items whose text did not fit left out; supported if it is above zero (Holm over the methods), refuted "
    "if below",
)
def h6(e: Evidence) -> Finding:
    """The interaction of budget and length."""
    long, short = e.pruners(e.able("summ_l")), e.pruners(e.able("summ_s"))
    cells = set(long["cells"]) & set(short["cells"])
    long, short = (side[side["cells"].isin(cells)] for side in (long, short))
    losses = {}
    for series in sorted(set(long["series"])):
        losses[str(series)] = _loss(e, long[long["series"] == series], "summ_l").less(
            _loss(e, short[short["series"] == series], "summ_s")
        )
    adjusted = stats.holm([gain.p for gain in losses.values()])
    parts = []
    for (series, gain), p in zip(losses.items(), adjusted, strict=True):
        outcome = "undecided" if not p <= 0.05 else "supported" if gain.mean > 0 else "refuted"
        shift = percent((gain.mean, gain.low, gain.high))
        parts.append(Part(series, outcome, f"extra loss on long texts {shift}, p = {p:.2g} (Holm)"))
    return Finding(parts, pd.concat([long, short]))


@dataclass(frozen=True)
class _Loss:
    """Relative losses: of each calibration draw (draws,), of each item (items,), and how large one may be."""

    draws: NDArray[np.float64]
    items: NDArray[np.float64]
    most: float

    def less(self, other: _Loss) -> Gain:
        """The difference of the means; the same draws made both, other items did."""
        mean, parts = float(self.items.mean() - other.items.mean()), []
        for side in (self, other):
            n = len(side.items)
            crit = float(t.isf(LEVEL, n - 1))
            least = side.most * crit / (n + crit**2)  # as in `evidence.difference`: no spread is no certainty
            parts.append((max(float(side.items.var(ddof=1)) / n, least**2), n))
        draws, n = self.draws - other.draws, min(n for _, n in parts)
        seeds = float(draws.var(ddof=1)) / len(draws) if len(draws) > 1 else 0.0
        found = Spread(sum(part for part, _ in parts), seeds, 1.0, n, len(draws) if len(draws) > 1 else n)
        return Gain(mean, mean - found.width, mean + found.width, min(1.0, 2 * found.tail(abs(mean))))


def _loss(e: Evidence, line: pd.DataFrame, role: str, only: Set[str] | None = None) -> _Loss:
    """Loss relative to dense above chance, averaged over budgets; of all items, or of some."""
    origin = e.dense(role)
    dense = {name: scores for name, scores in e.scores(origin).items() if only is None or name in only}
    points = [e.scores(point) for point in line.itertuples()]
    names = [name for name in dense if all(name in found for found in points)]
    if len(names) < 2:
        raise Missing(f"no stored items of {role} that all cells share")
    before = np.array([dense[name][0] for name in names])
    now = [np.array([found[name] for name in names]).T for found in points]  # (draws, items) each
    few = min(len(scores) for scores in now)
    draws = np.mean([scores[:few].mean(1) for scores in now], axis=0)
    items = np.mean([scores.mean(0) for scores in now], axis=0)
    kept = float(before.mean()) - (float(origin.chance) if style.known(origin.chance) else 0.0)
    if not kept > 0:
        raise Missing(f"dense itself is at chance on items of {role}")
    most = float(np.ptp(np.vstack([before, *now]))) / kept
    return _Loss((before.mean() - draws) / kept, (before - items) / kept, most)


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
    dense = parent(own, e.model)
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
    own = e.able("mcr")
    groups = e.groups(parent(own, e.model))
    if not groups:
        raise Missing(f"no item of {own['task'].iloc[0]} names a discipline (extra.group)")
    soft = {name for name, group in groups.items() if re.search("humanit|social", group.lower())}
    hard = {name for name, group in groups.items() if "stem" in group.lower()}
    if not soft or not hard:
        there = sorted(set(groups.values()))
        raise Missing(f"disciplines humanities or social sciences, and STEM; there are {there}")
    line, parts = e.pruners(own), []
    for series, mine in line.groupby("series"):
        gain = _loss(e, mine, "mcr", soft).less(_loss(e, mine, "mcr", hard))
        outcome = "supported" if gain.low > 0 else "refuted" if gain.high < 0 else "undecided"
        parts.append(Part(str(series), outcome, f"extra drop {percent((gain.mean, gain.low, gain.high))}"))
    return Finding(parts, line)
