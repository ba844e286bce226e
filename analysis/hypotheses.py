"""LLM-KICK's claims H1 to H4 (arXiv:2310.01382): perplexity, knowledge, bits, patterns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis import kick_data, stats, style
from analysis.evidence import STEP, Evidence, at_most, percent, told
from analysis.kick_data import Missing
from analysis.verdicts import Finding, Part, hypothesis

RANGE = (0.20, 0.45)  # sparsity, H1
PPL_FINE = 0.10  # H1: a relative change of perplexity nobody would notice
KNOWLEDGE = 0.30  # sparsity, H2
LOSS = (0.08, 0.10)  # of factoid at 8 bits, H3b
SAME_BYTES = 1.01  # H3c: a file counts as no larger up to this factor


@hypothesis(
    "H1",
    "Perplexity is blind: at 20-45 % unstructured sparsity it moves by less than 10 % while factoid fails.",
    "per pruning method, cells at 20-45 % sparsity: supported if one fails factoid with the whole interval "
    "of the perplexity's change below 10 %; refuted if they reach to 35 % and each "
    "matches factoid or has the whole interval above",
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
    fine = change["high"] < PPL_FINE
    loud = (change["low"] > PPL_FINE) | np.isinf(change["delta"])
    inside = own["achieved_nominal"].between(*RANGE)
    fails, holds = own["told"] == "fail", own["told"] == "match"
    outcome = "undecided"
    if (inside & fails & fine).any():
        outcome = "supported"
    elif own["achieved_nominal"][inside].max() >= RANGE[1] - STEP and (holds | loud)[inside].all():
        outcome = "refuted"
    text = f"perplexity breaks 10 % at {_first(own, loud)}, factoid fails at {_first(own, fails)}"
    if inside.any():
        last = own[inside].index[-1]
        shift = percent(change[side][last] for side in ("delta", "low", "high"))
        at = 100 * own["achieved_nominal"][last]
        text += f"; at {at:.1f} % sparsity perplexity {shift}, factoid {own['told'][last]}"
    return Part(series, outcome, text if inside.any() else f"no cell at 20-45 % sparsity; {text}")


def _first(own: pd.DataFrame, broken: pd.Series) -> str:
    """The smallest sparsity at which something is broken."""
    share = own["achieved_nominal"][broken]
    return f"{100 * share.iloc[0]:.1f} % sparsity" if len(share) else "no tested sparsity"


@hypothesis(
    "H2",
    "Knowledge goes first: closed-book factoid matches only up to 25-30 % sparsity.",
    "per pruning method: supported if the limit is at most 30 % even were undecided cells matches; refuted "
    "if cells that match without a gap reach beyond 30 %",
)
def h2(e: Evidence) -> Finding:
    """The contiguous limit on factoid."""
    line = e.pruners(e.of("factoid"))
    reaches = {str(series): e.reach(own) for series, own in line.groupby("series")}
    return Finding([Part(s, at_most(r, KNOWLEDGE), f"limit {r}") for s, r in reaches.items()], line)


def _gptq8(e: Evidence, role: str) -> pd.DataFrame:
    """GPTQ at 8 bits on a task."""
    own = kick_data.by_bits(e.of(role))
    own = own[(own["method"] == "gptq") & (own["bits"] == 8)]
    if own.empty:
        raise Missing("no cell of gptq at 8 bits")
    if kick_data.blind(own).all():
        raise Missing(f"dense itself is at chance on {own['task'].iloc[0]}")
    return told(own)


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
    "supported if the interval of the relative loss is above 5 % and meets 8-10 %; refuted if it is all "
    "below 8 % or all above 10 %",
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
    "each pruned cell against the largest quantised file that is no larger, paired by item, Holm over all "
    "pairs; per task: refuted if pruning is better in one, supported if quantisation is better in more than "
    "half of them and worse in none; where most do not differ surely it is undecided",
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
    outcome = "refuted" if worse else "supported" if 2 * better > len(own) else "undecided"
    text = f"better in {better}, worse in {worse} of {len(own)} pairs (Holm)"
    text += f"; mean gain {own['gain'].mean():+.3f}"
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
    line = told(line)
    parts = []
    for (series, pattern), own in line.groupby(["series", "pattern"]):
        good = [style.short_task(str(task)) for task in own[own["told"] == "match"]["task"]]
        outcome = "refuted" if good else "supported" if (own["told"] == "fail").all() else "undecided"
        counts = ", ".join(f"{n} {state}" for state, n in own["told"].value_counts().items())
        parts.append(
            Part(f"{series} {pattern}", outcome, counts + (f"; matches on {', '.join(good)}" if good else ""))
        )
    return Finding(parts, line)
