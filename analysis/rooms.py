"""Who keeps how much: a heat map of a study's plans, blocks by roles, one panel per cell.

python -m analysis.rooms STUDY [--store results] [--format png,pdf,svg] [--out DIR]
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import collect, command, outfile, pareto, style
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


def draw(table: pd.DataFrame) -> Figure:
    """Small multiples of one model: side by side where blocks are few, else below each other."""
    from matplotlib.figure import Figure as NewFigure

    panels = list(table.groupby(["label", "budget", "calib_seed"], sort=False, dropna=False))
    blocks, roles = table["block"].max() + 1, list(dict.fromkeys(table["role"]))
    side = SIDE if blocks <= WRITTEN else NARROW
    columns = max(1, min(len(panels), 3 if blocks <= WRITTEN else 1))
    lines = math.ceil(len(panels) / columns)
    wide, high = side * blocks, (SIDE if blocks <= WRITTEN else 0.24) * len(roles)
    width = columns * (wide + 0.9) + 0.75
    figure = NewFigure(figsize=(max(3.2, width), lines * (high + 0.75) + 0.1))
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    total = figure.get_size_inches()
    figure.subplots_adjust(
        0.75 / total[0], 0.5 / total[1], 1 - 0.9 / total[0], 1 - 0.3 / total[1], 0.9 / wide, 0.75 / high
    )
    low = min(90, math.floor(10 * table["kept"].min()) * 10)
    seeds = table["calib_seed"].nunique() > 1
    for axis, ((label, budget, seed), part) in zip(grid, panels, strict=False):
        title = f"{label.replace('allocate=', '')} {style.budget_name(budget)}" + (
            f" seed {seed:g}" if seeds else ""
        )
        shown = _panel(axis, part, roles, low, title)
    for spare in grid[len(panels) :]:
        spare.set_axis_off()
    bar = figure.add_axes((1 - 0.7 / total[0], 0.5 / total[1], 0.13 / total[0], 1 - 0.8 / total[1]))
    figure.colorbar(shown, cax=bar, label="kept (%)")
    return figure


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
            colour = "white" if value < (low + 100) / 2 else "black"
            axis.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=6.5, color=colour)
    return shown


def _places(field: pd.DataFrame) -> list[tuple[int, int]]:
    """Row and column of every field that has a value."""
    return [(i, j) for i, j in zip(*field.notna().to_numpy().nonzero(), strict=True)]


def write(table: pd.DataFrame, folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """The table as CSV, and a figure per model in every format."""
    import matplotlib

    paths = [folder / "rooms.csv"]
    with outfile.whole(paths[0]) as temp:
        table.to_csv(temp, index=False, float_format="%.6f")
    models = list(dict.fromkeys(table["model"]))
    with matplotlib.rc_context(style.RC):
        for model in models:
            tail = f"-{re.sub(r'[^A-Za-z0-9._-]+', '_', model)}" if len(models) > 1 else ""
            figure = draw(table[table["model"] == model])
            paths += pareto.save(figure, folder / f"rooms{tail}", formats)
    return paths


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Read the options and draw the plans."""
    options = command.parser("Heat map of what each layer of a study's cells keeps")
    options.add_argument("--format", default="png", help="png, pdf, svg (default: png)")
    chosen = options.parse_args(argv)
    if chosen.source:
        raise collect.AnalysisError(f"--from={chosen.source!r}: plans are in the store only; valid: --store")
    formats = command.listed(chosen.format, "format", pareto.FORMATS)
    folder = Path(chosen.out or Path(chosen.store) / chosen.study / "figures")
    return write(shares(command.read(chosen), Store(Path(chosen.store))), folder, formats)


if __name__ == "__main__":
    sys.exit(command.run(main))
