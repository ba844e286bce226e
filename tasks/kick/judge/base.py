"""The interface of every judge, and what a case it judges holds."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from crunchmark.task import Metric

PROMPTS = Path(__file__).with_name("prompts.yaml")
LOW, HIGH = 1, 10  # the scale of ratings


@dataclass(frozen=True)
class Case:
    """An answer to be judged beside the dense parent's.

    kind: which of prompts.yaml's entries asks about it.
    asked: the story, or what the user said.
    reference, answer: what the dense parent and the judged model said, turn by turn.
    turns: the dense parent's own answers, each as (prompt ids, answer ids).
    ids: the new tokens of the judged answer.
    """

    id: str
    kind: str
    asked: str
    reference: tuple[str, ...]
    answer: tuple[str, ...]
    gold: str | None = None  # a text written by people, for ROUGE
    facts: tuple[str, ...] = ()  # what the answer should state
    turns: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()
    ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Score:
    """One aspect of one case; score None: the judge gave none that can be read."""

    id: str
    metric: str
    score: float | None
    weight: float = 1.0
    extra: Mapping[str, Any] = field(default_factory=dict)


class Judge(ABC):
    """Scores cases, aspect by aspect."""

    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """All that decides its scores, as JSON."""

    @abstractmethod
    def metrics(self, kind: str, gold: bool = False, facts: bool = False) -> dict[str, Metric]:
        """What it scores of cases of a kind, with a gold text or facts or neither; the headline first."""

    @abstractmethod
    def judge(self, cases: Sequence[Case], model: Any, tokenizer: Any) -> Iterator[Score]:
        """Every metric of every case; the model is the judged one, for judges that look at it."""


@cache
def prompts() -> dict[str, Any]:
    """What judges are asked, by kind."""
    found: dict[str, Any] = yaml.safe_load(PROMPTS.read_text(encoding="utf-8"))
    return found


def aspects(kind: str) -> dict[str, str]:
    """Aspects of a kind, each with what it means.

    Raises:
        ValueError: no such kind.
    """
    if kind not in prompts()["kinds"]:
        raise ValueError(f"kind={kind!r} is unknown; valid: {', '.join(prompts()['kinds'])}")
    found: dict[str, str] = prompts()["kinds"][kind]["aspects"]
    return found


def rated(kind: str) -> dict[str, Metric]:
    """A metric per aspect, 1 to 10."""
    return {f"judge_{aspect}": Metric(f"judge_{aspect}") for aspect in aspects(kind)}


def shown(turns: Sequence[str]) -> str:
    """One text of all turns, numbered where there are several."""
    if len(turns) == 1:
        return turns[0].strip()
    return "\n\n".join(f"Turn {place}: {said.strip()}" for place, said in enumerate(turns, 1))


def question(case: Case, reference_first: bool) -> str:
    """The two answers in order, and what was asked; how to reply comes after it."""
    told = prompts()["kinds"][case.kind]
    mine, theirs = shown(case.answer), shown(case.reference)
    first, second = (theirs, mine) if reference_first else (mine, theirs)
    meaning = "\n".join(f"- {name}: {text}" for name, text in told["aspects"].items())
    return str(prompts()["frame"]).format(
        task=told["task"], asked=case.asked, first=first, second=second, aspects=meaning, low=LOW, high=HIGH
    )
