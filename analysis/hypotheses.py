"""LLM-KICK's claims H1 to H7 (arXiv:2310.01382): perplexity, knowledge, bits, patterns, context, length, style."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from analysis import kick_data, kick_more, stats, style
from analysis.evidence import Evidence, Reach, percent
from analysis.kick_data import Missing
from analysis.verdicts import Finding, Part, hypothesis

RANGE = (0.20, 0.45)  # sparsity, H1
PPL_FINE = 0.10  # H1: a relative change of perplexity nobody would notice
KNOWLEDGE = 0.30  # sparsity, H2 and H7
LOSS = (0.08, 0.10)  # of factoid at 8 bits, H3b
AHEAD = 0.10  # of open book before closed book in sparsity, H5
SAME_BYTES = 1.01  # H3c: a file counts as no larger up to this factor


@hypothesis(
    "H1",
    "Perplexity is blind: at 20-45 % unstructured sparsity it moves by less than 10 % while factoid already fails.",
    "per pruning method, cells at 20-45 % sparsity: supported if one fails factoid with the whole interval of the "
    "perplexity's change below 10 %; refuted if each matches factoid or has the whole interval above 10 %",
)
def h1(e: Evidence) -> Finding:
    """Where perplexity breaks and where factoid breaks."""
    line = e.pruners(e.of("factoid"))
    ppl = e.of("ppl")[
        ["series", "accounting", "budget", "setting", "calib_n", "dense", "low", "delta", "high"]
    ]
    keys = ["series", "accounting", "budget", "setting", "calib_n"]
    line = line.merge(ppl, on=keys, suffixes=("", "_ppl"))
    parts = [_blind(str(series), own.sort_values("budget")) for series, own in line.groupby("series")]
    return Finding(parts, line)


def _blind(series: str, own: pd.DataFrame) -> Part:
    """One method: is there a cell where facts are gone and perplexity is not?"""
    change = {side: own[f"{side}_ppl"] / own["dense_ppl"] for side in ("low", "delta", "high")}
    fine, loud = change["high"] < PPL_FINE, ~(change["low"] <= PPL_FINE)
    inside = own["achieved_nominal"].between(*RANGE)
    fails, holds = own["told"] == "fail", own["told"] == "match"
    outcome = "undecided"
    if (inside & fails & fine).any():
        outcome = "supported"
    elif inside.any() and (holds | loud)[inside].all():
        outcome = "refuted"
    text = f"perplexity breaks 10 % at {_first(own, loud)}, factoid fails at {_first(own, fails)}"
    if inside.any():
        last = own[inside].index[-1]
        shift = percent(change[side][last] for side in ("delta", "low", "high"))
        text += f"; at {100 * own['achieved_nominal'][last]:.1f} % sparsity perplexity {shift}, factoid {own['told'][last]}"
    return Part(series, outcome, text if inside.any() else f"no cell at 20-45 % sparsity; {text}")


def _first(own: pd.DataFrame, broken: pd.Series) -> str:
    """The smallest sparsity at which something is broken."""
    share = own["achieved_nominal"][broken]
    return f"{100 * share.iloc[0]:.1f} % sparsity" if len(share) else "no tested sparsity"


@hypothesis(
    "H2",
    "Knowledge goes first: closed-book factoid matches only up to 25-30 % sparsity.",
    "per pruning method: supported if the limit is at most 30 % even were undecided cells matches; refuted if cells "
    "that match without a gap reach beyond 30 %",
)
def h2(e: Evidence) -> Finding:
    """The contiguous limit on factoid."""
    line = e.pruners(e.of("factoid"))
    return Finding([_at_most(e, str(series), own) for series, own in line.groupby("series")], line)


def _at_most(e: Evidence, series: str, own: pd.DataFrame) -> Part:
    """Whether a limit is at most KNOWLEDGE."""
    found = e.reach(own)
    outcome = "supported" if found.high <= KNOWLEDGE else "refuted" if found.low > KNOWLEDGE else "undecided"
    return Part(series, outcome, f"limit {found}")


def _gptq8(e: Evidence, role: str) -> Any:
    """GPTQ at 8 bits on a task."""
    own = kick_data.by_bits(e.of(role))
    own = own[(own["method"] == "gptq") & (own["bits"] == 8)]
    if own.empty:
        raise Missing("no cell of gptq at 8 bits")
    return own


@hypothesis("H3a", "GPTQ at 8 bits matches on multiple choice.", "the state of that cell")
def h3a(e: Evidence) -> Finding:
    """The state of one cell."""
    own = _gptq8(e, "mcr")
    return Finding(
        [_state_part(point, {"match": "supported", "fail": "refuted"}) for point in own.itertuples()], own
    )


def _state_part(point: Any, means: dict[str, str]) -> Part:
    """What the state of one point says."""
    text = f"{style.number(point.value)} against {style.number(point.dense)}, {point.told} (n={point.n:.0f})"
    return Part(f"{point.series} {point.setting}".strip(), means.get(point.told, "undecided"), text)


@hypothesis(
    "H3b",
    "GPTQ at 8 bits loses 8-10 % of factoid.",
    "supported if the interval of the relative loss is above 5 % and meets 8-10 %; refuted if it is all below 8 % or "
    "all above 10 %",
)
def h3b(e: Evidence) -> Finding:
    """The relative loss with its interval."""
    own = _gptq8(e, "factoid")
    parts = []
    for point in own.itertuples():
        loss, low, high = (-x / point.dense for x in (point.delta, point.high, point.low))
        outcome = "refuted" if high < LOSS[0] or low > LOSS[1] else "supported" if low > 0.05 else "undecided"
        parts.append(Part(point.series, outcome, f"relative loss {percent((loss, low, high))}"))
    return Finding(parts, own)


@hypothesis(
    "H3c",
    "At equal measured bytes, quantisation beats pruning on every task.",
    "each pruned cell against the largest quantised file that is no larger, paired by item, Holm over all pairs; per "
    "task: refuted if pruning is better in one, supported if quantisation is better in one and worse in none",
)
def h3c(e: Evidence) -> Finding:
    """Pairs of cells at equal bytes."""
    pairs, used = [], []
    for task in e.tasks():
        own = e.points[(e.points["task"] == task) & e.points["headline"]]
        quantised = kick_data.small(own)[lambda p: p["bits"].notna()]
        for pruned in e.pruners(own).itertuples():
            fits = quantised[quantised["file_bytes"] <= SAME_BYTES * pruned.file_bytes]
            if len(fits):
                best = fits.sort_values("file_bytes").tail(1)
                pairs.append((task, e.gain(next(best.itertuples()), pruned)))
                used += [best, own[own["cells"] == pruned.cells]]
    if not pairs:
        raise Missing("no quantised file is as small as a pruned one")
    adjusted = stats.holm([gain.p for _, gain in pairs])
    table = pd.DataFrame({"task": [t for t, _ in pairs], "gain": [g.mean for _, g in pairs], "p": adjusted})
    parts = [_beats(str(task), own) for task, own in table.groupby("task", sort=False)]
    return Finding(parts, pd.concat(used))


def _beats(task: str, own: pd.DataFrame) -> Part:
    """Of the pairs of one task, how many quantisation wins and loses."""
    sure = own["p"] <= 0.05
    better, worse = int((sure & (own["gain"] > 0)).sum()), int((sure & (own["gain"] < 0)).sum())
    outcome = "refuted" if worse else "supported" if better else "undecided"
    text = f"better in {better}, worse in {worse} of {len(own)} pairs (Holm); mean gain {own['gain'].mean():+.3f}"
    return Part(style.short_task(task), outcome, text)


@hypothesis(
    "H4",
    "No method matches under 1:2, 2:4 or 4:8 on any task.",
    "per method and pattern: refuted if it matches on a task, supported if it fails on all",
)
def h4(e: Evidence) -> Finding:
    """States of all N:M cells."""
    line = kick_data.by_pattern(e.points[e.points["task"].isin(e.tasks()) & e.points["headline"]])
    line = line[line["pattern"].isin(kick_data.PATTERNS)]
    if line.empty:
        raise Missing(f"no cell with a pattern {', '.join(kick_data.PATTERNS)}")
    parts = []
    for (series, pattern), own in line.groupby(["series", "pattern"]):
        good = [style.short_task(str(task)) for task in own[own["told"] == "match"]["task"]]
        outcome = "refuted" if good else "supported" if (own["told"] == "fail").all() else "undecided"
        counts = ", ".join(f"{n} {state}" for state, n in own["told"].value_counts().items())
        parts.append(
            Part(f"{series} {pattern}", outcome, counts + (f"; matches on {', '.join(good)}" if good else ""))
        )
    return Finding(parts, line)


@hypothesis(
    "H5",
    "In-context robustness: open book matches at least 10 points of sparsity further than closed book.",
    "per pruning method, limits with undecided cells as fails and as matches: supported if the least difference is at "
    "least 10 points, refuted if the greatest is less",
)
def h5(e: Evidence) -> Finding:
    """Limits on open book minus limits on closed book."""
    closed, opened = e.pruners(e.of("closed")), e.pruners(e.of("open"))
    parts = []
    for series in sorted(set(closed["series"]) & set(opened["series"])):
        one = e.reach(closed[closed["series"] == series])
        two = e.reach(opened[opened["series"] == series])
        least, most = two.low - one.high, two.high - one.low
        parts.append(Part(series, _ahead(least, most), f"closed {one}; open {two}"))
    return Finding(parts, pd.concat([closed, opened]))


def _ahead(least: float, most: float) -> str:
    """Whether a difference of limits is at least AHEAD, up to a rounding of sparsities to whole weights."""
    return "supported" if least >= AHEAD - 0.002 else "refuted" if most < AHEAD - 0.002 else "undecided"


@hypothesis(
    "H6",
    "Length: summaries of long texts suffer more than those of short ones, inside the context window.",
    "per pruning method, relative loss averaged over its budgets, long minus short, items flagged as cut left out; "
    "supported if the 95 % interval is above zero after Holm over the methods, refuted if it is below",
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
    return Finding([_at_most(e, str(series), own) for series, own in line.groupby("series")], line)


@hypothesis(
    "H7b",
    "The number of distinct tokens of an answer falls steadily with sparsity.",
    "per pruning method, neighbouring budgets paired by item, Holm over the steps: refuted if one step rises, "
    "supported if none does and the last budget is below dense; answers may be of different lengths",
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
        steps = [e.gain(new, old) for old, new in zip(points, points[1:], strict=False)]
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
    "per pruning method: supported if fluency's limit is surely beyond factoid's, refuted if it is surely not",
)
def h7c(e: Evidence) -> Finding:
    """Limits on fluency and on factoid."""
    fluent = e.points[e.points["metric"] == "fluency"]
    if fluent.empty:
        raise Missing("no metric fluency: it takes a judge")
    fluent, facts = e.pruners(fluent), e.pruners(e.of("factoid"))
    parts = []
    for (series, task), own in fluent.groupby(["series", "task"]):
        one, two = e.reach(facts[facts["series"] == series]), e.reach(own)
        parts.append(
            Part(
                f"{series}, {style.short_task(str(task))}", _later(two, one), f"fluency {two}; factoid {one}"
            )
        )
    return Finding(parts, pd.concat([fluent, facts]))


def _later(one: Reach, two: Reach) -> str:
    """Whether the first limit is surely beyond the second."""
    return "supported" if one.low > two.high else "refuted" if one.high <= two.low else "undecided"
