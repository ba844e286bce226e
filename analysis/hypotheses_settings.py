"""LLM-KICK's claims H11 and H12: calibration samples, and examples in the prompt."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis import kick_data, stats
from analysis.evidence import Evidence, told
from analysis.kick_data import Missing
from analysis.verdicts import Finding, Part, hypothesis
from crunchmark.paired import MARGIN

HIGH = 0.5  # budgets that count as high sparsity, H12


@hypothesis(
    "H11",
    "SparseGPT gains from more calibration samples, Wanda does not; at 70 % Wanda does not recover.",
    "most samples minus fewest, paired by item, Holm over budgets: SparseGPT supported if one gains, "
    "refuted if all are within 5 % of dense; Wanda supported if all are within, refuted if one gains; at "
    "budgets from 0.65 Wanda supported if it fails with every size, refuted if it matches with one",
)
def h11(e: Evidence) -> Finding:
    """Sizes of the calibration set."""
    line = kick_data.by_size(e.able("mcr"))
    line = line[line["method"].isin(["sparsegpt", "wanda"])]
    if line["method"].nunique() < 2:
        raise Missing(
            "cells of sparsegpt and of wanda with two or more sizes of the calibration set (calib.n)"
        )
    line = told(line)
    parts = [_samples(e, str(method), own) for method, own in line.groupby("method")]
    sparse = line[(line["method"] == "wanda") & (line["budget"] >= 0.65)]
    if len(sparse):
        states = set(sparse["told"])
        outcome = "supported" if states == {"fail"} else "refuted" if "match" in states else "undecided"
        parts.append(Part("wanda at 70 %", outcome, f"states over sizes: {', '.join(sparse['told'])}"))
    else:
        parts.append(Part("wanda at 70 %", "undecided", "no cell from budget 0.65 on with several sizes"))
    return Finding(parts, line)


def _samples(e: Evidence, method: str, own: pd.DataFrame) -> Part:
    """What more samples gain one method, budget by budget."""
    ends = [(g.sort_values("x").iloc[[-1, 0]], b) for b, g in own.groupby("budget")]
    gains = {b: (e.gain(*pair.itertuples()), float(pair["dense"].iloc[0])) for pair, b in ends}
    adjusted = stats.holm([g.p for g, _ in gains.values()])
    better = [b for (b, (g, _)), p in zip(gains.items(), adjusted, strict=True) if p <= 0.05 and g.mean > 0]
    within = all(g.low > -MARGIN * d and g.high < MARGIN * d for g, d in gains.values())
    yes, no = ("supported", "refuted") if method == "sparsegpt" else ("refuted", "supported")
    outcome = yes if better else no if within else "undecided"
    return Part(
        method, outcome, "; ".join(f"{100 * float(str(b)):.3g} %: {g}" for b, (g, _) in gains.items())
    )


@hypothesis(
    "H12",
    "Examples in the prompt hardly help the dense model but help at high sparsity; two or three suffice.",
    "most examples minus none, paired by item: dense supported if within 5 %; pruned from budget 0.5 on "
    "supported if one budget gains (Holm), refuted if all are within 5 % of dense; two examples suffice if "
    "most minus two is within",
)
def h12(e: Evidence) -> Finding:
    """Gains from shots."""
    tasks = kick_data.shots(e.study)
    e.able("mcr")
    if len(tasks) < 2:
        raise Missing(f"multiple choice with several numbers of examples; there are {list(tasks)}")
    head = e.points[e.points["headline"]]
    by_k = {k: head[head["task"] == task] for k, task in tasks.items()}
    first, last = by_k[min(tasks)], by_k[max(tasks)]
    dense = {k: next(p[p["state"] == "dense"].itertuples()) for k, p in by_k.items()}
    if min(tasks):
        raise Missing(f"multiple choice without examples; there are {list(tasks)}")
    gain = e.gain(dense[max(tasks)], dense[min(tasks)])
    size = MARGIN * dense[min(tasks)].value
    outcome = (
        "supported"
        if max(abs(gain.low), abs(gain.high)) < size
        else "refuted"
        if gain.low > size
        else "undecided"
    )
    parts = [Part("dense", outcome, f"{max(tasks)} minus {min(tasks)} examples: {gain}")]
    few = next((k for k in (2, 3) if k in tasks and k < max(tasks)), None)
    line = e.pruners(first)
    line = line[line["budget"] >= HIGH]
    for series, own in line.groupby("series"):
        parts.append(_helped(e, str(series), own, last, size))
        if few is not None:
            parts.append(_suffice(e, str(series), own, by_k[few], last, size))
    for lost, name in ((line.empty, "pruned from budget 0.5 on"), (few is None, "two or three, and more")):
        if lost:
            parts.append(Part(name, "undecided", "no such cell"))
    return Finding(parts, pd.concat([line, first[first["state"] == "dense"]]))


def _twin(points: pd.DataFrame, like: Any) -> Any:
    """The point of another task that is the same cell."""
    same = points[points["cells"].map(lambda c: set(c.split()) == set(like.cells.split()))]
    if same.empty:
        raise Missing(f"{like.series} at {like.budget:g} was not asked with every number of examples")
    return next(same.itertuples())


def _helped(e: Evidence, series: str, own: pd.DataFrame, last: pd.DataFrame, size: float) -> Part:
    """Whether examples help a pruned model."""
    gains = [e.gain(_twin(last, point), point) for point in own.itertuples()]
    better = [
        g for g, p in zip(gains, stats.holm([g.p for g in gains]), strict=True) if p <= 0.05 and g.mean > 0
    ]
    outcome = "supported" if better else "refuted" if all(g.high < size for g in gains) else "undecided"
    return Part(f"{series}: examples help", outcome, "; ".join(map(str, gains)))


def _suffice(
    e: Evidence, series: str, own: pd.DataFrame, few: pd.DataFrame, last: pd.DataFrame, size: float
) -> Part:
    """Whether more than a few examples help no further."""
    gains = [e.gain(_twin(last, point), _twin(few, point)) for point in own.itertuples()]
    outcome = "refuted" if any(g.low > size for g in gains) else "undecided"
    outcome = "supported" if all(g.high < size for g in gains) else outcome
    return Part(f"{series}: few suffice", outcome, "; ".join(map(str, gains)))
