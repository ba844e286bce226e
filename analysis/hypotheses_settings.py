"""LLM-KICK's claims H11 and H12: calibration samples, and examples in the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis import kick_data, stats
from analysis.evidence import Evidence, Gain, parent, told
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
    "most examples minus none, paired by item: dense supported if within 5 %, refuted if above; per pruning "
    "method, averaged over its cells from budget 0.5 on that were asked with every number of examples: "
    "supported if it gains (Holm over the methods), refuted if it gains less than 5 % of dense and no single "
    "cell gains surely (Holm over the cells); two examples suffice if most minus two, averaged alike, is "
    "less than 5 % of dense, refuted if more",
)
def h12(e: Evidence) -> Finding:
    """Gains from shots."""
    tasks = kick_data.shots(e.study)
    e.able("mcr")
    if len(tasks) < 2:
        raise Missing(f"multiple choice with several numbers of examples; there are {list(tasks)}")
    if min(tasks):
        raise Missing(f"multiple choice without examples; there are {list(tasks)}")
    head = e.points[e.points["headline"]]
    none, most = min(tasks), max(tasks)
    few = next((k for k in (2, 3) if k in tasks and k < most), None)
    used = [k for k in (none, few, most) if k is not None]
    asked = {k: head[head["task"] == tasks[k]] for k in used}
    dense = {k: parent(points, e.model) for k, points in asked.items()}
    size = MARGIN * dense[none].value
    parts = [_hardly(e.gain(dense[most], dense[none]), size, f"{most} minus {none} examples")]
    line = _everywhere(e.pruners(asked[none]), asked)
    parts += _helped(e, line, _cells(asked[most]), size)
    if few is None:
        parts.append(Part("two or three, and more", "undecided", "no such cell"))
    else:
        parts += _suffice(e, line, _cells(asked[few]), _cells(asked[most]), size)
    return Finding(parts, pd.concat([line, asked[none][lambda p: p["state"] == "dense"]]))


def _hardly(gain: Gain, size: float, what: str) -> Part:
    """Whether examples leave the dense model within the margin."""
    within = max(abs(gain.low), abs(gain.high)) < size
    outcome = "supported" if within else "refuted" if gain.low > size else "undecided"
    return Part("dense", outcome, f"{what}: {gain}")


def _cells(points: pd.DataFrame) -> dict[frozenset[str], Any]:
    """Points by what their cells are, which is the same under every number of examples."""
    return {frozenset(point.cells.split()): point for point in points.itertuples()}


def _everywhere(line: pd.DataFrame, asked: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """Points from high sparsity on that were asked with every number of examples."""
    there = [_cells(points) for points in asked.values()]
    whole = line["cells"].map(lambda cells: all(frozenset(cells.split()) in found for found in there))
    return line[(line["budget"] >= HIGH) & whole]


def _pairs(own: pd.DataFrame, other: Mapping[frozenset[str], Any]) -> list[tuple[Any, Any]]:
    """Each point with the same cell under another number of examples."""
    return [(other[frozenset(point.cells.split())], point) for point in own.itertuples()]


def _helped(e: Evidence, line: pd.DataFrame, most: Mapping[frozenset[str], Any], size: float) -> list[Part]:
    """Whether examples help pruned models, method by method."""
    if line.empty:
        return [Part("pruned from budget 0.5 on", "undecided", "no cell with every number of examples")]
    pairs = {str(series): _pairs(own, most) for series, own in line.groupby("series")}
    means = {series: e.mean_gain(*zip(*own, strict=True)) for series, own in pairs.items()}
    single = {series: [e.gain(*pair) for pair in own] for series, own in pairs.items()}
    adjusted = dict(zip(means, stats.holm([gain.p for gain in means.values()]), strict=True))
    parts = []
    for series, gain in means.items():
        cells = stats.holm([g.p for g in single[series]])
        one = any(p <= 0.05 and g.mean > 0 for g, p in zip(single[series], cells, strict=True))
        outcome = "undecided"
        if gain.high < size and not one:
            outcome = "refuted"
        elif adjusted[series] <= 0.05 and gain.mean > 0:
            outcome = "supported"
        parts.append(Part(f"{series}: examples help", outcome, _mean_text(gain, single[series])))
    return parts


def _mean_text(gain: Gain, single: Sequence[Gain]) -> str:
    """The mean, and the cells it is of."""
    return f"mean of {len(single)} cells {gain}" + (f" ({'; '.join(map(str, single))})" if single[1:] else "")


def _suffice(
    e: Evidence,
    line: pd.DataFrame,
    few: Mapping[frozenset[str], Any],
    most: Mapping[frozenset[str], Any],
    size: float,
) -> list[Part]:
    """Whether more than a few examples help no further, method by method."""
    parts = []
    for series, own in line.groupby("series"):
        pairs = [(most[cells], few[cells]) for cells in _cells(own)]
        gain = e.mean_gain(*zip(*pairs, strict=True))
        outcome = "supported" if gain.high < size else "refuted" if gain.low > size else "undecided"
        text = _mean_text(gain, [e.gain(*pair) for pair in pairs])
        parts.append(Part(f"{series}: few suffice", outcome, text))
    return parts
