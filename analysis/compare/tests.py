"""Paired tests of B against A on the same items, and what holds over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields

import numpy as np
import pandas as pd

from analysis import collect, pool, stats, style, unscored
from analysis.compare.sides import Pairing, Side
from crunchmark.paired import COVERAGE, compare, value_of
from crunchmark.store import Row

LEVEL = 0.05  # of a difference, two-sided; a regression is one-sided, at half of it
TOLD = ("delta", "low", "high", "lost", "gained", "p_value", "p_match", "p_fail")  # of a Comparison
ONE_SIDED = ("only in A", "only in B")  # the other one was not asked
LOST = "lost"  # A has a score, and B ended without one


@dataclass(frozen=True)
class Line:
    """One metric of one task of a pair of cells."""

    title: str
    cell_a: str
    cell_b: str
    task: str
    metric: str
    higher_is_better: bool
    n: int | None = None
    value_a: float = np.nan
    value_b: float = np.nan
    delta: float = np.nan  # B - A, with its 95 % interval
    low: float = np.nan
    high: float = np.nan
    lost: float | None = None  # 0/1 items that A has right and B has not
    gained: float | None = None
    p_value: float = np.nan  # of no difference
    p_match: float = np.nan  # of a loss of the margin or more
    p_fail: float = np.nan  # of a loss of the margin or less
    margin: float | None = None
    identical: bool = False  # every item has the same score on both sides
    state: str = ""  # match, fail, undecided, measured, lost; empty: not compared
    note: str = ""


def lines(a: Side, b: Side, pairing: Pairing, metrics: list[str], margin: float | None) -> pd.DataFrame:
    """Every task that both cells of a pair were asked, tested, and Holm's correction over all of them.

    Args:
        a: What is compared with.
        b: What is judged.
        pairing: Their cells.
        metrics: Names, or `all`; none: the headline of each task.
        margin: Relative loss that is no regression; None: of each metric its own.
    """
    chosen = [collect.select(side.data, metrics) for side in (a, b)]
    for part in chosen:
        collect.check_protocols(part)
    wanted = {key for part in chosen for key in zip(part["task"], part["metric"], strict=True)}
    readers = [pool.Reader(side.store, side.study) for side in (a, b)]
    found = [line for pair in pairing.pairs for line in _pair(a, b, *pair, wanted, readers, margin)]
    return judged(found)


def judged(found: list[Line]) -> pd.DataFrame:
    """A frame of lines with what holds over all: `p_holm` of no difference, `state_holm` and `verdict`."""
    data = pd.DataFrame([asdict(line) for line in found], columns=[f.name for f in fields(Line)])
    data["n"] = pd.Series([line.n for line in found], dtype=object)  # whole numbers, and none
    names, metrics = style.short_tasks(data["task"].unique()), data.groupby("task")["metric"].nunique()
    data["asked"] = [
        style.printable(names[line.task] + (f" {line.metric}" if metrics[line.task] > 1 else ""))
        for line in found
    ]
    data["change"] = data["delta"] / data["value_a"].abs().where(data["value_a"] != 0)
    data = stats.family(data, by=()).rename(columns={"p_holm": "p_margin_holm"})
    data["p_holm"] = stats.holm(data["p_value"])
    data["verdict"] = [_verdict(row) for row in data.to_dict("records")]
    return data


def _verdict(row: Row) -> str:
    """What a line amounts to, in a word."""
    if row["state_holm"] in ("fail", LOST):
        return "regression" if row["state_holm"] == "fail" else LOST
    if row["state"] in ("", "chance"):
        return "at chance" if row["state"] else row["note"] if row["note"] in ONE_SIDED else "not compared"
    if row["p_holm"] <= LEVEL:
        return "better" if (row["delta"] > 0) == row["higher_is_better"] else "worse"
    if row["identical"]:
        return "identical"
    return "within margin" if row["state_holm"] == "match" else "not told apart"


def _pair(
    a: Side,
    b: Side,
    cell_a: str,
    cell_b: str,
    wanted: set[tuple[str, str]],
    readers: list[pool.Reader],
    margin: float | None,
) -> Iterator[Line]:
    """The lines of two cells: what both were asked, and what B has no score of though it tried."""
    ours, theirs, title = a.rows(cell_a), b.rows(cell_b), between(a, b, cell_a, cell_b)
    ended = b.data[(b.data["cell"] == cell_b) & b.data["state"].isin(style.GONE)]
    for key in (key for key in ours if key in wanted):
        one = ours[key]
        head = (title, cell_a, cell_b, *key, bool(one["higher_is_better"]))
        if key in theirs:
            yield _tested(head, one, theirs[key], readers, margin)
        else:
            reason = unscored.reason_of(ended.iloc[-1], key[0]) if len(ended) else ""
            said = {"state": LOST, "note": style.printable(reason)} if reason else {"note": ONE_SIDED[0]}
            yield Line(*head, value_a=one["value"], **said)
    for key in (key for key in theirs if key in wanted and key not in ours):
        two = theirs[key]
        head = (title, cell_a, cell_b, *key, bool(two["higher_is_better"]))
        yield Line(*head, value_b=two["value"], note=ONE_SIDED[1])


def between(a: Side, b: Side, cell_a: str, cell_b: str) -> str:
    """A pair for people: one name, or both where two cells of their own were named."""
    names = [side.titles[cell] for side, cell in ((a, cell_a), (b, cell_b))]
    return " → ".join(dict.fromkeys(names)) if a.one and b.one else names[0]


def _tested(
    head: tuple[str, str, str, str, str, bool],
    one: Row,
    two: Row,
    readers: list[pool.Reader],
    margin: float | None,
) -> Line:
    """One metric under one protocol; else what keeps it from being compared."""
    values = {"value_a": one["value"], "value_b": two["value"]}
    if one["protocol"] != two["protocol"]:
        note = f"asked under protocol {one['protocol']!r} in A and {two['protocol']!r} in B"
        return Line(*head, **values, note=style.printable(note))
    _, cell_a, cell_b, task, metric, higher = head
    try:
        sides = [
            _alone(reader.side(cell, task, metric))
            for reader, cell in zip(readers, (cell_a, cell_b), strict=True)
        ]
        scores, before, weight = pool.arrays([sides[1]], sides[0], f"{task} of {head[0]}")
        kind = pool.kind_of(one, sides[0])
    except ValueError as problem:
        return Line(*head, **values, note=style.printable(problem))
    if before is None or not len(weight):
        return Line(*head, **values, note="no item has a score on both sides")
    own = None if not style.known(one["margin"]) else margin if margin is not None else float(one["margin"])
    found = compare(scores[0], before, weight, kind, higher, own)
    thin = len(weight) < COVERAGE * len(sides[1]) and found.state == "match"
    state = "chance" if _blind(one) else "undecided" if thin else found.state
    values = {"value_a": found.dense, "value_b": value_of(scores[0], weight, kind)}
    told = {name: getattr(found, name) for name in TOLD}
    n, items = len(weight), len(sides[1])
    note = f"scores for {n} of {items} items" if n < items else ""
    same = bool(np.array_equal(scores[0], before))
    return Line(*head, n=n, **values, **told, margin=own, identical=same, state=state, note=note)


def _blind(one: Row) -> bool:
    """Whether A had nothing to lose; what became of B's own dense is B's loss and excuses nothing."""
    before = one["value"] if one["method"] == "dense" else one["dense"]
    told = {"dense": before, "chance": one["chance"], "higher_is_better": one["higher_is_better"]}
    return bool(collect.at_chance(pd.DataFrame([told])).item())


def _alone(side: pool.Side) -> pool.Side:
    """Scores without what dense had in the same moment, which is not who they are compared with here."""
    return {name: (score, weight, None) for name, (score, weight, _) in side.items()}
