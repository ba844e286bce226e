"""What cell.json tells beside the rows: which layer keeps how much, and how the cell was made."""

from __future__ import annotations

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
Facts = Mapping[str, Any]


def plans(cells: Sequence[Facts]) -> dict[str, Any]:
    """Each different plan once: roles, blocks, share kept and bytes per role; `of` is the cell's."""
    seen: dict[str, int] = {}
    out: dict[str, Any] = {"plans": [], "of": []}
    for cell in cells:
        made = _plan(cell.get("plan"))
        text = repr(made)
        if made and text not in seen:
            seen[text] = len(out["plans"])
            out["plans"].append(made)
        out["of"].append(seen.get(text, -1) if made else -1)
    return out


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
    nbytes = [0] * len(names)
    for block, role, name in layers:
        kept, size = rooms.kept(plan["rooms"][name], shapes[name])
        grid[names.index(role)][blocks.index(block)] = round(1000 * kept)
        nbytes[names.index(role)] += size
    short = rooms.short_roles(names)
    return {"roles": [short[name] for name in names], "blocks": blocks, "kept": grid, "bytes": nbytes}


def provenance(cells: Sequence[Facts], asked: Sequence[Sequence[str]]) -> dict[str, Any]:
    """How each cell was made, every different record once, and the command that makes it again."""
    seen: dict[str, int] = {}
    out: dict[str, Any] = {"made": [], "of": [], "command": []}
    for cell, tasks in zip(cells, asked, strict=True):
        made = {name: cell[name] for name in MADE if known(cell.get(name))}
        text = repr(made)
        if text not in seen:
            seen[text] = len(out["made"])
            out["made"].append(made)
        out["of"].append(seen[text])
        out["command"].append(rerun.command(cell, tasks))
    return out
