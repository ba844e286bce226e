"""What cell.json tells beside the rows: which layer keeps how much, and how the cell was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from analysis import rerun, rooms
from analysis.style import known

MADE = (
    "git",
    "dirty",
    "machine",
    "processor",
    "gpu",
    "device",
    "threads",
    "versions",
    "scope",
    "calib_inputs",
)
KINDS = {  # names of packed tensors
    **dict.fromkeys(("weight", "values"), "weights"),
    "codes": "codes",
    **dict.fromkeys(("scale", "zero", "second", "top", "offset"), "scales and zeros"),
    **dict.fromkeys(
        ("mask", "kept", "positions", "columns", "starts", "index", "order"), "masks and indices"
    ),
    **dict.fromkeys(("a", "b", "core"), "factors"),
    **dict.fromkeys(("book", "table", "lift"), "codebooks"),
    "value": "biases",
}
ORDER = tuple(dict.fromkeys(KINDS.values()))
ADDED = "added by the method"
Facts = Mapping[str, Any]


def plans(cells: Sequence[Facts]) -> dict[str, Any]:
    """Each different plan once, as `plans`: roles, blocks, share kept; `of` is the cell's."""
    return _once("plans", [_plan(cell.get("plan")) for cell in cells])


def spent(cells: Sequence[Facts]) -> dict[str, Any]:
    """Bytes by role and kind: `kinds` of the page, different tables once as `found`, `of` is the cell's."""
    tables = [_spent(cell.get("spent")) for cell in cells]
    met = {kind for table in tables for role in table.values() for kind in role}
    kinds = sorted(met, key=lambda kind: (ORDER.index(kind) if kind in ORDER else len(ORDER), kind))
    return {"kinds": kinds} | _once("found", [_by_role(table, kinds) for table in tables])


def _once(name: str, made: Sequence[Any]) -> dict[str, Any]:
    """What cells have in common, told once; -1 where a cell has none."""
    distinct = {repr(one): one for one in made if one}
    seen = {text: place for place, text in enumerate(distinct)}
    return {name: list(distinct.values()), "of": [seen[repr(one)] if one else -1 for one in made]}


def _spent(layers: Any) -> dict[str, Counter[str]]:
    """Bytes of a cell, kind by kind, of each role; empty where they were not told."""
    table: dict[str, Counter[str]] = {}
    for name, parts in layers.items() if isinstance(layers, Mapping) else ():
        role = table.setdefault(rooms.place(name)[1] if name else ADDED, Counter())
        for part, size in parts.items():
            role[KINDS.get(part.rstrip("0123456789"), part)] += size
    return table


def _by_role(table: Mapping[str, Counter[str]], kinds: Sequence[str]) -> dict[str, Any] | None:
    """The table as rows of roles, as data flows; what was added comes last."""
    roles = sorted(table, key=lambda role: (role == ADDED, rooms.rank(role), role))
    short = rooms.short_roles(roles)
    rows = [[table[role][kind] for kind in kinds] for role in roles]
    return {"roles": [short[role] for role in roles], "bytes": rows} if roles else None


def _plan(plan: Any) -> dict[str, Any] | None:
    """One plan as a grid of roles by blocks, in thousandths of dense; None where no layer is told."""
    if not isinstance(plan, Mapping) or not isinstance(plan.get("rooms"), Mapping):
        return None
    shapes = plan.get("shapes") or {}
    layers = [(*rooms.place(name), name) for name in plan["rooms"] if name in shapes]
    if not layers:
        return None
    names = sorted(dict.fromkeys(role for _, role, _ in layers), key=lambda role: (rooms.rank(role), role))
    blocks = sorted({block for block, _, _ in layers})
    grid: list[list[int | None]] = [[None] * len(blocks) for _ in names]
    for block, role, name in layers:
        kept, _ = rooms.kept(plan["rooms"][name], shapes[name])
        grid[names.index(role)][blocks.index(block)] = round(1000 * kept)
    short = rooms.short_roles(names)
    return {"roles": [short[name] for name in names], "blocks": blocks, "kept": grid}


def provenance(cells: Sequence[Facts], asked: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    """How each cell was made, every different record once, and the command that makes it again."""
    made = [{name: cell[name] for name in MADE if known(cell.get(name))} for cell in cells]
    commands = [rerun.command(*each) for each in zip(cells, asked, strict=True)]
    return _once("made", made) | {"command": commands}
