"""The store: a study is a folder of cells, a cell a folder of JSON files, each written whole.

    <root>/<study>/<cell key>/cell.json            what the cell is, its bytes, seconds, machine
    <root>/<study>/<cell key>/task-<name>.json     rows and items of one task

A reader needs neither torch nor hydra.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from crunchmark.files import locked, read_json, write_json
from crunchmark.keys import key_of

Row = dict[str, Any]
SCHEMA = 1  # of what cell.json and task files hold; `analysis.schema` reads older ones
OWN = (
    "state",
    "reason",
    "reasons",
    "nearest_budget",
    "plan",
    "left_dense",
    "spent",
)  # of a cell, not of its scored tasks


class Store:
    """Rows of all studies under one root."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def studies(self) -> list[str]:
        """Names of the studies that hold a cell."""
        return sorted({p.parent.parent.name for p in self.root.glob("*/*/cell.json")})

    def cell(self, study: str, key: str) -> Path:
        """Folder of a cell."""
        return self.root / study / key[:24]

    def lock(self, study: str, key: str) -> AbstractContextManager[None]:
        """Only one process computes a cell; the others wait and find it done."""
        return locked(self.root / study / f".{key[:24]}.lock")

    def put_cell(self, study: str, key: str, facts: Row) -> None:
        """Write what is known of the cell itself."""
        write_json(self.cell(study, key) / "cell.json", facts)

    def put_task(self, study: str, key: str, task: str, data: Row) -> None:
        """Write rows and items of a finished task."""
        write_json(self._task(study, key, task), data)

    def get_cell(self, study: str, key: str) -> Row | None:
        """What `put_cell` wrote, None where it is not there."""
        return read_json(self.cell(study, key) / "cell.json")

    def get_task(self, study: str, key: str, task: str) -> Row | None:
        """What `put_task` wrote, None where it is not there."""
        return read_json(self._task(study, key, task))

    def _task(self, study: str, key: str, task: str) -> Path:
        """The file of a task; a name may hold what separates folders."""
        return self.cell(study, key) / f"task-{task.replace('/', '%2F')}.json"

    def rows(self, study: str) -> list[Row]:
        """All rows of a study: the cell's facts on each of its task rows.

        Raises:
            ValueError: there is no such study.
        """
        if study not in self.studies():
            known = ", ".join(self.studies()) or "none yet"
            raise ValueError(f"study {study!r} is not in {self.root}; there are: {known}")
        return list(self._rows(study))

    def _rows(self, study: str) -> Iterator[Row]:
        for path in sorted((self.root / study).glob("*/cell.json")):
            yield from _of_cell(path.parent)

    def cell_rows(self, study: str, key: str) -> list[Row]:
        """The rows of one cell; none where it is not there."""
        return list(_of_cell(self.cell(study, key)))


def _of_cell(folder: Path) -> Iterator[Row]:
    """How the cell ended, if it did not end well, and a row per task and metric that was scored."""
    facts = read_json(folder / "cell.json")
    if facts is None:
        return
    if facts.get("state"):
        yield facts
    shared = {k: v for k, v in facts.items() if k not in OWN}
    for path in sorted(folder.glob("task-*.json")):
        task = read_json(path) or {}
        for row in task.get("rows", []):
            yield shared | task.get("about", {}) | row | _version(facts, task)


def _version(facts: Row, task: Row) -> Row:
    """Of two files the older version, which says what a row may lack; but never one to hide a newer one."""
    said = [file.get("schema", 0) for file in (facts, task)]
    newer = [version for version in said if version not in range(SCHEMA + 1)]
    return {"schema": newer[0] if newer else min(said)} if any(said) else {}


def run_id(row: Mapping[str, Any]) -> str:
    """A cell's run at W&B, the same on any machine: the cell's folder name, and which study."""
    return f"{row['cell'][:24]}-{key_of(study=row['study'])[:8]}"
