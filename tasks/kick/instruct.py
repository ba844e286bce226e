"""Instruction following in two turns, as MT-bench asks it (arXiv:2306.05685, arXiv:2310.01382)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crunchmark.checks import whole
from crunchmark.hub import resolve
from tasks.kick.judge.base import shown
from tasks.kick.talk import Talk, Talks

EXACT = ("math", "coding", "reasoning", "extraction")  # categories whose questions have a right answer
FIELDS = {"question_id": (int, str), "category": (str,), "turns": (list,)}


@dataclass
class Instructions(Talks):
    """Asks a question and its follow-up; the second prompt holds the model's own first answer.

    path: JSON lines with question_id, category and turns, as MT-bench's question file.
    turns: how many turns are asked; a question with fewer is refused.
    """

    path: str | None = None
    turns: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(f"{self.name}.turns", self.turns)
        if not self.path:
            raise ValueError(
                f"{self.name}.path={self.path!r} is missing; valid: a file of JSON lines with "
                f"{', '.join(FIELDS)}, such as MT-bench's question.jsonl: task.{self.name}.path=FILE"
            )

    def load(self) -> Sequence[Talk]:
        """The questions in the order of the file.

        Raises:
            ValueError: the file is not here, or a question lacks something; names the line.
        """
        field = f"{self.name}.path"
        rows = json_objects(field, resolve(str(self.path)))
        return [self._talk(f"{field}: question {place}", row) for place, row in enumerate(rows, 1)]

    def _talk(self, where: str, row: Mapping[str, Any]) -> Talk:
        for key, kinds in FIELDS.items():
            if not isinstance(row.get(key), kinds) or isinstance(row[key], bool):
                names = " or ".join(kind.__name__ for kind in kinds)
                raise ValueError(f"{where} has {key}={row.get(key)!r}; valid: {names}")
        turns = row["turns"][: self.turns]
        if len(turns) < self.turns or not all(isinstance(t, str) and t.strip() for t in turns):
            raise ValueError(f"{where} has {len(turns)} of {self.turns} turns; valid: that many texts")
        kind = "exact" if row["category"] in EXACT else "chat"
        return Talk(str(row["question_id"]), tuple(turns), row["category"], kind, shown(turns))


def json_objects(field: str, path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line.

    Raises:
        ValueError: it can not be read, or a line is no object; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: JSON text may hold U+2028
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no utf-8 text"
        raise ValueError(
            f"{field}={str(path)!r} can not be read: {why}; valid: a file of JSON lines"
        ) from None
    found = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError:
            row = line
        if row is not None and not isinstance(row, dict):
            raise ValueError(
                f"{field}: line {number} is no JSON object: {line[:40]!r}; valid: one object a line"
            )
        found += [row] if row is not None else []
    return found
