"""Six methods as one study and as six runs: what one Gram and one gradient pass per layer save.

python -m benchmarks.grid        1 where the goal is missed
wanda, sparsegpt, gptq and spqr need the Gram of a layer's inputs or its diagonal, squeezellm and lq_lora its
squared gradients. `shared` are the six cells of one study, the others the same cells with nothing shared.
`eora` is the same with a repair of rtn, which needs the Gram, in place of lq_lora.
`dense` inputs are those of the dense model, the same for all; `papers` are as each method's yaml says:
compressed inputs differ by method and can not be shared. Goal, in processor seconds: shared / sum of the
six methods with dense inputs at most 0.5; with `--length 2048` the ids are as many as the papers'.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.common import Cost, cost, llama, medians, options, record, tokens, total
from crunchmark.allocation import Uniform, equal_shares
from crunchmark.calib import Calibration
from crunchmark.compress import allocate, compress
from crunchmark.maker import Nothing
from crunchmark.shared import Shared
from crunchmark.view import View
from methods.compensate.eora import EoRA

CONF = Path(__file__).resolve().parents[1] / "conf/method"
CELLS = {
    "wanda": 0.3,
    "sparsegpt": 0.3,
    **dict.fromkeys(("gptq", "spqr", "squeezellm", "lq_lora", "rtn"), 0.7),
}
REPAIRED, WEIGHED = "rtn", "lq_lora"
GRIDS = {"six": [n for n in CELLS if n != REPAIRED], "eora": [n for n in CELLS if n != WEIGHED]}
GOAL, JUDGED = 0.5, "six, dense"
SHAPE = {"hidden": 512, "layers": 2, "heads": 8, "inner": 1408, "n": 128, "length": 512}


def cell(name: str, parent: Any, ids: Tensor, dense: bool, shared: Shared) -> Cost:
    """The cost of one cell, in bytes; copying the parent is not counted."""
    config = OmegaConf.load(CONF / f"{name}.yaml")
    inputs = "dense" if dense else OmegaConf.select(config, "calib.inputs", default="dense")
    repairer = EoRA() if name == REPAIRED else Nothing()
    knobs = {"fisher": True} if name == WEIGHED else {}
    model, method = deepcopy(parent), instantiate(config.method, **knobs)

    def work() -> None:
        view, calib = View(model), Calibration(ids, inputs)
        plan = equal_shares(view, CELLS[name], "bytes", "blocks", torch.bfloat16)
        plan = allocate(Uniform(), method, view, plan, calib, "random", shared, repairer)
        compress(method, view, plan, calib, "random", shared, repairer)

    return cost(work)


def work(args: argparse.Namespace) -> dict[str, dict[str, Callable[[], Cost]]]:
    """What is measured, by row and column."""
    parent, ids = llama(args.hidden, args.layers, args.heads, args.inner), tokens(args.n, args.length)

    def alone(name: str, dense: bool) -> Cost:
        return cell(name, parent, ids, dense, Shared())

    def together(names: Sequence[str], dense: bool) -> Cost:
        shared = Shared()
        return total([cell(name, parent, ids, dense, shared) for name in names])

    found: dict[str, dict[str, Callable[[], Cost]]] = {}
    for grid, names in GRIDS.items():
        for inputs, dense in (("dense", True), ("papers", False)):
            made = {name: partial(alone, name, dense) for name in names}
            found[f"{grid}, {inputs}"] = made | {"shared": partial(together, names, dense)}
    return {row: columns for row, columns in found.items() if re.search(args.only, row)}


def main() -> int:
    """The command line; 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    args, console = options(parser, SHAPE), Console(width=150)
    torch.set_num_threads(args.threads)
    found = medians(work(args), args.repeats)
    made = Table("grid, inputs", *(f"{name} s" for name in CELLS), "sum s", "shared s", "shared / sum")
    ratios: dict[str, float] = {}
    for row, columns in found.items():
        alone, shared = sum(c.cpu for n, c in columns.items() if n in CELLS), columns["shared"].cpu
        seconds = [f"{columns[n].cpu:.2f}" if n in columns else "-" for n in CELLS]
        ratios[row] = shared / alone
        made.add_row(row, *seconds, *(f"{x:.2f}" for x in (alone, shared, ratios[row])))
    console.print(made)
    if args.json:
        record(args, SHAPE, found)
    if JUDGED not in ratios:
        return 0
    console.print(f"{JUDGED} inputs, shared / sum {ratios[JUDGED]:.2f}; goal <= {GOAL}")
    return 0 if ratios[JUDGED] <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
