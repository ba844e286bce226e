"""Rows of every version of the store's schema, as the newest one that this code knows has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from analysis.style import is_perplexity, known
from crunchmark.paired import MARGIN
from crunchmark.store import SCHEMA, Row


def current(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """The rows, older ones migrated.

    Raises:
        ValueError: a row is of a version that this code does not know, or lacks what all versions have; one
            line that names it.
    """
    return [_migrated(row) for row in rows]


def _migrated(row: Mapping[str, Any]) -> Row:
    """One row, step by step."""
    where = f"study={row.get('study')!r}, cell={str(row.get('cell'))[:24]!r}"
    wanted = ("method", "metric", "value") if row.get("task") else ("method",)
    if lacks := [name for name in wanted if name not in row]:
        raise ValueError(f"{where}: a row without {', '.join(lacks)}; delete the cell: it is computed again")
    version = row.get("schema", 0)
    if type(version) is not int or not 0 <= version <= SCHEMA:
        raise ValueError(
            f"{where}: schema={version!r}: known are 0 to {SCHEMA}; newer rows need a newer Crunchmark"
        )
    for step in STEPS[version:]:
        row = step(row)
    return dict(row)


def _unnumbered(row: Mapping[str, Any]) -> Row:
    """Version 0, rows from before there was a number, may lack what is said of a metric."""
    if not row.get("task"):
        return dict(row)
    down = is_perplexity(str(row["task"]), str(row.get("metric")))
    told = {"headline": True, "higher_is_better": not down, "simulated": False}
    told["margin"] = None if row.get("state") == "measured" else MARGIN
    return {**row, **{name: value for name, value in told.items() if not known(row.get(name))}}


STEPS: tuple[Callable[[Mapping[str, Any]], Row], ...] = (_unnumbered,)  # from version 0, from 1, ...
