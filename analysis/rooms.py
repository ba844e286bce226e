"""Who keeps how much: a heat map of a study's plans, blocks by roles, one panel per cell.

python -m analysis.rooms STUDY [--store results] [--format png,pdf,svg] [--out DIR]
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import collect, command, panels, sheet, style
from crunchmark.store import Store

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ("model", "label", "budget", "calib_seed", "block", "role", "layer", "kept")
DENSE_BYTES = 2  # of a weight
WRITTEN = 12  # blocks, up to which every field has its number
MAP = "cividis"  # even in lightness, and the same to colour-blind eyes
SIDE = 0.34  # inches of a field with a number
NARROW = 0.2  # without
ORDER = (  # as the data flows, by the names of all families; what is not here comes last
    *("q_proj", "k_proj", "v_proj", "c_attn", "query_key_value", "o_proj", "out_proj", "attn.c_proj"),
    *("attention.dense", "self_attn.dense", "gate_proj", "up_proj", "fc1", "c_fc", "dense_h_to_4h"),
    *("down_proj", "fc2", "mlp.c_proj", "dense_4h_to_h"),
)
_LAYER = re.compile(r"\.(\d+)\.(.+)$")


def shares(data: pd.DataFrame, store: Store) -> pd.DataFrame:
    """The share kept by each layer of each compressed cell of a study; nominal where the plan is."""
    rows = []
    cells = data[(data["method"] != "dense") & (data["budget"] > 0)].drop_duplicates("cell")
    for cell in cells.itertuples():
        found = store.get_cell(str(cell.study), str(cell.cell)) or {}
        plan = found.get("plan") or {}
        for layer, shape in (plan.get("shapes") or {}).items():
            share, _ = kept(plan["rooms"][layer], shape)
            rows.append(
                (*(cell.model, cell.label, cell.budget, cell.calib_seed), *place(layer), layer, share)
            )
    if not rows:
        raise collect.AnalysisError("plan: no cell of the study says what its layers keep; run it again")
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    ranked = table.assign(rank=table["role"].map(rank))
    keys = ["_cell", "block", "rank"]  # cells stay in reading order
    ranked["_cell"] = ranked.groupby(["model", "label", "budget", "calib_seed"], sort=False).ngroup()
    return ranked.sort_values(keys, kind="stable", ignore_index=True)[list(COLUMNS)]


def place(layer: str) -> tuple[int, str]:
    """Block and role of a layer, by its name."""
    named = _LAYER.search(layer)
    return (int(named[1]), named[2]) if named else (0, layer)


def kept(room: Sequence[Any], shape: Sequence[int]) -> tuple[float, int]:
    """The share of the dense weight that a room is (nominal where the plan is), and its bytes."""
    nbytes, nominal = room
    return nbytes / (DENSE_BYTES * math.prod(shape)) if nominal is None else nominal, nbytes


def rank(role: str) -> int:
    """Place of a role in the order of the data's flow."""
    return next((i for i, name in enumerate(ORDER) if role.endswith(name)), len(ORDER))


def short_roles(roles: Sequence[str]) -> dict[str, str]:
    """Short names of layers inside a block: q, down; attn.c_proj where two would be alike."""
    last = {role: role.rpartition(".")[2] for role in roles}
    twice = {name for name in last.values() if list(last.values()).count(name) > 1}
    return {role: ".".join(role.split(".")[-2:]) if name in twice else name.removesuffix("_proj")
            for role, name in last.items()}  # fmt: skip


def drawings(table: pd.DataFrame) -> Iterator[tuple[str, sheet.Make]]:
    """A figure per model."""
    for stem, own in sheet.by_model("rooms", table):
        yield stem, lambda own=own: draw(own)


def draw(table: pd.DataFrame) -> list[Figure]:
    """Small multiples of one model: side by side where blocks are few, else below each other."""
    cells = list(table.groupby(["label", "budget", "calib_seed"], sort=False, dropna=False))
    blocks, roles = table["block"].max() + 1, list(dict.fromkeys(table["role"]))
    few = blocks <= WRITTEN
    size = ((SIDE if few else NARROW) * blocks, (SIDE if few else 0.24) * len(roles))
    made = panels.panels(
        len(cells), min(len(cells), 3 if few else 1), between=0.75, size=size, gap=0.9, right=0.9,
        least=(0.17 if few else 0.05) * blocks,
    )  # fmt: skip
    low = min(90, math.floor(10 * table["kept"].min()) * 10)
    seeds = table["calib_seed"].nunique() > 1
    for axis, ((label, budget, seed), part) in zip(made.axes, cells, strict=True):
        title = f"{label.replace('allocate=', '')} {style.budget_name(budget)}" + (
            f" seed {seed:g}" if seeds else ""
        )
        shown = _panel(axis, part, roles, low, title)
    made.colours(shown, "kept (%)")
    return made.figures


def _panel(axis: Axes, part: pd.DataFrame, roles: list[str], low: float, title: str) -> Any:
    """One cell: a field per layer, its per cent written where there is room."""
    field = 100 * part.pivot(index="role", columns="block", values="kept").reindex(roles)
    shown = axis.imshow(field.to_numpy(), cmap=MAP, vmin=low, vmax=100, aspect="auto", interpolation="none")
    names, blocks = short_roles(roles), list(field.columns)
    axis.set_yticks(range(len(roles)), [names[role] for role in roles])
    step = 1 if len(blocks) <= WRITTEN else 4
    axis.set_xticks(range(0, len(blocks), step), blocks[::step])
    axis.set_xlabel("block")
    axis.set_title(title)
    axis.grid(visible=False)
    axis.tick_params(length=0)
    if len(blocks) <= WRITTEN:
        for (i, j), value in ((p, field.iat[p]) for p in _places(field)):
            colour = style.ink(shown.to_rgba(round(value)))
            axis.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=6.5, color=colour)
    return shown


def _places(field: pd.DataFrame) -> list[tuple[int, int]]:
    """Row and column of every field that has a value."""
    return [(i, j) for i, j in zip(*field.notna().to_numpy().nonzero(), strict=True)]


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Read the options and draw the plans."""
    options = command.parser("Heat map of what each layer of a study's cells keeps")
    options.add_argument("--format", default="png", help="png, pdf, svg (default: png)")
    chosen = options.parse_args(argv)
    if chosen.source:
        raise collect.AnalysisError(f"--from={chosen.source!r}: plans are in the store only; valid: --store")
    formats = command.listed(chosen.format, "format", sheet.FORMATS)
    folder = Path(chosen.out or Path(chosen.store) / chosen.study / "figures")
    table = shares(command.read(chosen), Store(Path(chosen.store)))
    return sheet.write("rooms", table, drawings(table), folder, formats)


if __name__ == "__main__":
    sys.exit(command.run(main))
