"""What A and B name, and which cell of the one belongs beside which cell of the other."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import collect, command, label, style
from analysis.collect import AnalysisError
from crunchmark.store import Row, Store

LISTED = 8  # names of a message


@dataclass(frozen=True)
class Side:
    """A study, or one cell of it."""

    name: str  # as it was typed
    store: Store
    study: str
    data: pd.DataFrame
    one: bool  # it names a cell

    @cached_property
    def cells(self) -> dict[str, Row]:
        """The first row of each cell, by its key, in reading order."""
        first = self.data[~self.data["cell"].duplicated()]
        return {str(row["cell"]): row for row in first.to_dict("records")}

    def compressed(self, cell: str) -> bool:
        """Whether it is not the parent."""
        return bool(self.cells[cell]["method"] != "dense")

    def facts(self, cell: str) -> Mapping[str, Any]:
        """What cell.json says."""
        return self.store.get_cell(self.study, cell) or {}

    def rows(self, cell: str) -> dict[tuple[str, str], Row]:
        """The rows of a cell by task and metric."""
        return self._scored.get(cell, {})

    @cached_property
    def _scored(self) -> dict[str, dict[tuple[str, str], Row]]:
        """Rows with scores by cell, task and metric."""
        found: dict[str, dict[tuple[str, str], Row]] = {}
        for row in self.data[self.data["task"] != ""].to_dict("records"):
            found.setdefault(str(row["cell"]), {})[row["task"], row["metric"]] = row
        return found

    @cached_property
    def titles(self) -> dict[str, str]:
        """Cells for people: method and settings, budget, model and draw where there are several."""
        draws = self.data.groupby(["model", "label", "budget"])["calib_seed"].nunique()
        models = self.data["model"].nunique() > 1
        found = {}
        for cell, row in self.cells.items():
            several = draws.get((row["model"], row["label"], row["budget"]), 0) > 1
            parts = [row["model"]] if models else []
            parts += (
                [row["label"]]
                if row["method"] == "dense"
                else [row["label"], style.budget_name(row["budget"])]
            )
            parts += [f"#{_seed(row['calib_seed'])}"] if several else []
            found[cell] = style.printable(" ".join(parts))
        return found


@dataclass(frozen=True)
class Pairing:
    """Cells beside each other, by key, and those that have no other."""

    pairs: list[tuple[str, str]]
    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)


def read(name: str, place: str, options: argparse.Namespace) -> Side:
    """The side that `STUDY`, `STUDY:KEY` or either behind a folder names.

    Args:
        name: As typed.
        place: A or B, for what is wrong with it.
        options: With `store` and `mixed`.

    Raises:
        AnalysisError: there is no such study or cell, or the start of a key is that of several.
    """
    folder, _, rest = name.rpartition("/")
    study, colon, key = rest.partition(":")
    root = folder or ("/" if name.startswith("/") else options.store)
    if not study:
        raise AnalysisError(f"{place}={name!r}: names no study; valid: STUDY, STUDY:KEY, FOLDER/STUDY[:KEY]")
    store = Store(Path(root))
    if colon:
        return Side(name, store, study, _cell(store, study, key, f"{place}={name!r}"), True)
    asked = argparse.Namespace(study=study, store=root, mixed=options.mixed)
    return Side(name, store, study, command.read(asked), False)


def _cell(store: Store, study: str, key: str, where: str) -> pd.DataFrame:
    """The rows of the one cell whose key starts like this, also of one that a newer one stands for."""
    try:
        rows = store.rows(study)
    except ValueError:
        rows = []
    if not rows:
        collect.load(study, store.root)  # says what is wrong with the store, the study or a file
    found = {str(row["cell"]): row for row in rows}
    alike = [cell for cell in found if cell.startswith(key)]
    if len(alike) != 1:
        told = [f"{cell[:8]} ({_named(found[cell])})" for cell in (alike or list(found))[:LISTED]]
        more = f" and {len(alike or found) - LISTED} more" if len(alike or found) > LISTED else ""
        what = f"{len(alike)} cells start" if alike else "no cell starts"
        raise AnalysisError(f"{where}: {what} with {key!r}; there are: {', '.join(told)}{more}")
    return collect.frame([row for row in rows if str(row["cell"]) == alike[0]])


def _named(row: Mapping[str, Any]) -> str:
    """Method and budget of a row as stored."""
    return style.printable(f"{row.get('method')} {style.budget_name(row.get('budget') or 0.0)}")


def paired(a: Side, b: Side) -> Pairing:
    """Two cells as named; else cells of one setting.

    Of one setting are cells of the same model, method, budget, accounting and draw. Where a study has several
    of these, they must also agree in what tells them apart there; what else differs in their config is a
    change to report, and no other cell.
    """
    if a.one and b.one:
        return Pairing([(next(iter(a.cells)), next(iter(b.cells)))])
    ours, theirs = _groups(a), _groups(b)
    pairs = [pair for key, cells in ours.items() for pair in _matched(a, b, cells, theirs.get(key, []))]
    left, right = {cell for cell, _ in pairs}, {cell for _, cell in pairs}
    only_a = [] if b.one else [cell for cell in a.cells if cell not in left]
    only_b = [] if a.one else [cell for cell in b.cells if cell not in right]
    return Pairing(pairs, only_a, only_b)


def _groups(side: Side) -> dict[tuple[Any, ...], list[str]]:
    """Cells by what every row says of its setting."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for cell, row in side.cells.items():
        dense = row["method"] == "dense"
        how = ("dense",) if dense else (row["accounting"], row["knobs"], _seed(row["calib_seed"]))
        groups.setdefault((row["model"], row["method"], row["budget"], *how), []).append(cell)
    return groups


def _seed(seed: Any) -> int | None:
    """A draw as a number, whatever a frame made of it."""
    return int(seed) if style.known(seed) else None


def _matched(a: Side, b: Side, ours: Sequence[str], theirs: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The cells of a group that agree in what tells cells of either study apart."""
    sides = [{cell: config(side.cells[cell]) for cell in cells} for side, cells in ((a, ours), (b, theirs))]
    apart = dict.fromkeys(name for found in sides for name in label.differing(list(found.values())))
    ids = [{cell: tuple(own.get(name) for name in apart) for cell, own in found.items()} for found in sides]
    there = {own: cell for cell, own in ids[1].items() if list(ids[1].values()).count(own) == 1}
    for cell, own in ids[0].items():
        if own in there and list(ids[0].values()).count(own) == 1:
            yield cell, there[own]


def config(row: Mapping[str, Any]) -> dict[str, str]:
    """Dotted names of what a config holds; empty for rows from before there was one."""
    found = row.get("config")
    return dict(label.flat_config(found)) if isinstance(found, Mapping) else {}
