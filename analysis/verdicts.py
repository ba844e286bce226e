"""Hypotheses of LLM-KICK as findings with a verdict, and the page that lists them."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module

import pandas as pd

from analysis import evidence
from analysis.evidence import Evidence
from analysis.kick_data import Missing, Study

UNTESTABLE = "not testable here"
PARTS = ("hypotheses", "hypotheses_tasks", "hypotheses_methods", "hypotheses_settings")

PREFACE = (
    "A claim is decided for these models and these cells only; another model may answer otherwise. "
    "Cells are compared with dense on the same items against a margin of 5 % (relative), over calibration "
    "draws and items; match and fail hold over all cells a claim looks at (Holm). A claim about several "
    "methods or tasks is supported if all of them support it, and refuted if one does. Methods that look at "
    "calibration tokens need three draws. Limits are in achieved sparsity: the largest that matches as do "
    "all smaller ones, and how far undecided cells may reach."
)
CLOSED = (
    "Closed book is `nano_factoid` here: `nano_icra_closed` asks about people the model cannot know and is "
    "at chance by construction."
)


@dataclass(frozen=True)
class Part:
    """What one method, task or cell says of a hypothesis."""

    name: str
    outcome: str  # supported, refuted, undecided
    statistic: str


@dataclass
class Finding:
    """The parts of a hypothesis and the points they rest on."""

    parts: list[Part]
    points: pd.DataFrame


@dataclass(frozen=True)
class Hypothesis:
    """A claim of the paper, when it counts as decided, and the test."""

    id: str
    statement: str
    rule: str
    test: Callable[[Evidence], Finding]


@dataclass(frozen=True)
class Verdict:
    """A hypothesis decided on one model of one study."""

    id: str
    statement: str
    rule: str
    study: str
    model: str
    verdict: str
    reason: str = ""
    cells: int = 0
    seeds: str = ""
    parts: list[Part] = field(default_factory=list)


ALL: list[Hypothesis] = []


def hypothesis(name: str, statement: str, rule: str) -> Callable[..., Callable[[Evidence], Finding]]:
    """Register a test under its hypothesis."""

    def register(test: Callable[[Evidence], Finding]) -> Callable[[Evidence], Finding]:
        ALL.append(Hypothesis(name, statement, rule, test))
        return test

    return register


def combined(outcomes: Sequence[str]) -> str:
    """A claim about all parts: one refuted part refutes it, only all supported parts support it."""
    if "refuted" in outcomes:
        return "refuted"
    return "supported" if outcomes and set(outcomes) == {"supported"} else "undecided"


def decide(claim: Hypothesis, study: Study, model: str) -> Verdict:
    """One hypothesis on one model; what is missing is said, and few calibration draws leave it undecided."""
    about = (claim.id, claim.statement, claim.rule, study.name, model)
    try:
        found = claim.test(Evidence(study, model))
    except Missing as lost:
        return Verdict(*about, UNTESTABLE, str(lost))
    if not found.parts:
        return Verdict(*about, UNTESTABLE, "no cells that were asked everything the claim looks at")
    verdict, reason = combined([part.outcome for part in found.parts]), ""
    few = evidence.thin(found.points)
    if few:
        told = f"; on the draws there are it would be {verdict}" if verdict != "undecided" else ""
        verdict, reason = "undecided", f"fewer than {evidence.SEEDS} seeds of {', '.join(few)}{told}"
    elif verdict == "refuted" and any(part.outcome == "supported" for part in found.parts):
        good = [part.name for part in found.parts if part.outcome == "supported"]
        reason = f"does not hold everywhere; it holds for {', '.join(good)}"
    seeds = found.points["seeds"]
    spread = f"{seeds.min()}" if seeds.nunique() == 1 else f"{seeds.min()} to {seeds.max()}"
    cells = len({cell for text in found.points["cells"] for cell in str(text).split()})
    return Verdict(*about, verdict, reason, cells, spread, found.parts)


def claims() -> list[Hypothesis]:
    """All hypotheses, H1 first."""
    for part in PARTS:
        import_module(f"analysis.{part}")  # its tests register themselves
    return sorted(ALL, key=lambda claim: (int(re.sub(r"\D", "", claim.id)), claim.id))


def verdicts(study: Study) -> list[Verdict]:
    """All hypotheses on all models of a study."""
    return [decide(claim, study, model) for model in study.models for claim in claims()]


def page(found: Sequence[Verdict], study: Study) -> str:
    """The verdicts as Markdown: a table, then each with its rule and its parts."""
    out = [f"# Verdicts on LLM-KICK's claims: study {study.name}", "", *_preface(study)]
    for model in study.models:
        own = [v for v in found if v.model == model]
        cells = study.rows[study.rows["model"] == model]["cell"].nunique()
        out += [
            f"## {model}: {cells} cells",
            "",
            "| claim | verdict | cells | seeds | |",
            "| --- | --- | --- | --- | --- |",
        ]
        out += [
            f"| {v.id} {v.statement} | **{v.verdict}** | {v.cells or ''} | {v.seeds} | {v.reason} |"
            for v in own
        ]
        out.append("")
        for verdict in own:
            out += _section(verdict)
    return "\n".join(out) + "\n"


def _preface(study: Study) -> list[str]:
    """What the page is about, and how it was decided."""
    closed = " " + CLOSED if study.role("closed") == "nano_factoid" else ""
    return [*textwrap.wrap(PREFACE + closed, 100), ""]


def _section(verdict: Verdict) -> list[str]:
    """One claim in full."""
    lines = [f"### {verdict.id}: {verdict.verdict}", "", verdict.statement, "", f"Rule: {verdict.rule}", ""]
    lines += [f"{verdict.reason}.", ""] if verdict.reason else []
    if verdict.parts:
        lines += ["| part | says | statistic |", "| --- | --- | --- |"]
        lines += [f"| {p.name} | {p.outcome} | {p.statistic} |" for p in verdict.parts]
        lines.append("")
    return lines


def as_json(found: Sequence[Verdict]) -> str:
    """The verdicts for machines."""
    return json.dumps([asdict(verdict) for verdict in found], indent=1, ensure_ascii=False) + "\n"
