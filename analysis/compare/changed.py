"""What differs between the cells of a pair beside their scores: config, code, versions, machine, bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from analysis import style
from analysis.compare.sides import Pairing, Side, config
from analysis.compare.tests import between

CODE = ("git", "dirty", "source", "numerics")  # `source`: of the method's module
MACHINE = ("machine", "processor", "gpu", "threads", "system", "device")
SETTINGS = (
    *("model", "fingerprint", "method", "budget", "accounting", "scope", "calib_seed", "calib_inputs"),
    *("compute", "setting"),
)
BYTES = ("file_bytes", "model_bytes")
KINDS = ("config", "code", "versions", "machine", "bytes")
NOTHING = "–"  # not recorded, or no such setting
CONTENT = "cell key"  # differs though nothing that is recorded does


@dataclass(frozen=True)
class Change:
    """A fact that is another in B, and the pairs it is another in."""

    kind: str  # one of KINDS
    name: str
    a: str
    b: str
    cells: tuple[str, ...]


def changes(a: Side, b: Side, pairing: Pairing) -> list[Change]:
    """Every difference once, with the cells it is found in, by `KINDS`."""
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for cell_a, cell_b in pairing.pairs:
        for difference in _differences(a, b, cell_a, cell_b):
            found.setdefault(difference, []).append(between(a, b, cell_a, cell_b))
    made = [Change(*difference, tuple(cells)) for difference, cells in found.items()]
    return sorted(made, key=lambda change: KINDS.index(change.kind))


def _differences(a: Side, b: Side, cell_a: str, cell_b: str) -> Iterator[tuple[str, str, str, str]]:
    """Kind, name and both values of what differs between two cells."""
    one, two = a.facts(cell_a), b.facts(cell_b)
    ours, theirs = dict(_facts(one)), dict(_facts(two))
    own = False
    parent = cell_a == cell_b and not a.compressed(cell_a)  # its record tells what others were asked
    for kind, name in dict.fromkeys([*ours, *theirs]):
        left, right = ours.get((kind, name), NOTHING), theirs.get((kind, name), NOTHING)
        if left != right and not (kind == "config" and parent):
            own |= kind == "config" or name in ("source", "numerics", "device")
            yield kind, name, left, right
    if cell_a != cell_b and not own:
        yield "code", CONTENT, cell_a[:8], cell_b[:8]
    yield from _scored(a, b, cell_a, cell_b, ours, theirs)


def _scored(
    a: Side, b: Side, cell_a: str, cell_b: str, ours: Mapping[Any, str], theirs: Mapping[Any, str]
) -> Iterator[tuple[str, str, str, str]]:
    """Where scores were made by other code or elsewhere than their weights, and that differs as well."""
    told: dict[tuple[str, str, str, str], None] = {}
    rows = b.rows(cell_b)
    for key, one in a.rows(cell_a).items():
        if key not in rows:
            continue
        sides = [dict(_made(row)) for row in (one, rows[key])]
        for fact in dict.fromkeys([*sides[0], *sides[1]]):
            left, right = (side.get(fact, NOTHING) for side in sides)
            same = (left, right) == (ours.get(fact, NOTHING), theirs.get(fact, NOTHING))
            if left != right and not same:
                told[fact[0], f"{fact[1]}, of scores", left, right] = None
    yield from told


def _facts(cell: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], str]]:
    """All that is compared of a cell, by kind and name."""
    yield from ((("config", name), _text(cell[name])) for name in SETTINGS if style.known(cell.get(name)))
    yield from ((("config", name), style.printable(value)) for name, value in config(cell).items())
    yield from _made(cell)
    yield from ((("bytes", name), f"{cell[name]:,}") for name in BYTES if style.known(cell.get(name)))


def _made(row: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], str]]:
    """Code, versions and machine of a cell or a row."""
    yield from ((("code", name), _text(row[name])) for name in CODE if style.known(row.get(name)))
    versions = row.get("versions")
    for name, value in (versions if isinstance(versions, Mapping) else {}).items():
        yield ("versions", style.printable(name)), _text(value)
    yield from ((("machine", name), _text(row[name])) for name in MACHINE if style.known(row.get(name)))


def _text(value: Any) -> str:
    """A value on one line; hashes by their first letters."""
    text = style.printable(value)
    hexed = len(text) >= 40 and not set(text) - set("0123456789abcdef")
    return text[:12] if hexed else text
