"""Two turns and summaries of three lengths in the built-in world: LLM-KICK's judged tasks without a judge."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crunchmark.checks import one_of
from crunchmark.task import Metric
from tasks.kick.generate import Answer, Decode
from tasks.kick.talk import Talk, Talks
from tasks.nano.lm.load import exact

DATA = Path(__file__).parent / "data"
BUCKETS = ("summ_s", "summ_m", "summ_l")


def rows(name: str) -> list[dict[str, Any]]:
    """The items of a data file."""
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@dataclass
class NanoSummaries(Talks):
    """A passage about an unseen person behind filler; the headline is the share of its facts stated."""

    style: str = "raw"
    decode: Decode = field(default_factory=lambda: Decode(max_new_tokens=40, stop=["\n"]))
    data: str = "summ_s"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(f"{self.name}.data", self.data, BUCKETS)

    def load(self) -> Sequence[Talk]:
        """The items of the bucket."""
        return [
            Talk(
                id=row["id"],
                turns=(f"{row['passage']}\n{row['prompt']}",),
                group=self.data[-1],
                kind="summary",
                asked=row["passage"],
                gold=row["reference"],
                facts=tuple(row["facts"]),
            )
            for row in rows(self.data)
        ]


@dataclass
class NanoInstructions(Talks):
    """A fact of a known person, then another one, with the first answer in the context.

    The headline is both right; a turn alone is told.
    """

    style: str = "raw"
    decode: Decode = field(default_factory=lambda: Decode(max_new_tokens=4, stop=["\n"]))

    def load(self) -> Sequence[Talk]:
        """The items."""
        return [
            Talk(
                id=row["id"],
                turns=tuple(row["turns"]),
                group=row["relations"][1],
                kind="exact",
                asked="\n".join(row["turns"]),
                gold=" ".join(row["answers"]),
                expected=tuple(row["answers"]),
            )
            for row in rows("instruct")
        ]

    def own_metrics(self) -> dict[str, Metric]:
        """Both turns, then each."""
        names = ("both_right", "turn_1", "turn_2")
        return {name: Metric(name) for name in names}

    def own_scores(self, talk: Talk, said: Sequence[Answer]) -> dict[str, float]:
        """Exact match after normalising, as everywhere in this world."""
        right = [
            exact({"answer": answer}, [a.text])["exact_match"]
            for answer, a in zip(talk.expected, said, strict=True)
        ]
        return {"both_right": min(right), "turn_1": right[0], "turn_2": right[1]}
