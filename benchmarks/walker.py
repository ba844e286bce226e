"""The walk's extra memory does not grow with the number of blocks: one block's work and the hidden states.

python -m benchmarks.walker
Every model is measured in a process of its own, from which only the walk is counted: the rise of the
resident high-water mark while statistics of one block after the other are gathered and dropped. That mark
moves by tens of megabytes from run to run, so every row is a median, and the slope is judged: what each
block more costs, against a block and its statistics, which a walk that kept them would pay.
"""

import argparse
import json
import os
import subprocess
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.common import cost, llama, tokens
from crunchmark.calib import Calibration
from crunchmark.stats import Gram
from crunchmark.view import View
from crunchmark.walk import walk

SLOPE = 0.1  # of a block and its statistics: more per block counts as growth


def one(layers: int, args: argparse.Namespace) -> dict[str, int]:
    """Bytes of a model of so many layers: the rise, the hidden states, one block, one block's statistics."""
    view, ids = View(llama(args.hidden, layers, 16, args.inner)), tokens(args.n, args.length)
    calib = Calibration(ids, "compressed", batch=args.batch)
    walk(View(llama(64, 1, 2, 64)), Calibration(ids[:1, :8]), (Gram,), lambda *_: None)  # lazy imports
    shapes = {site.group: site.shape[1] for site in view.sites(0)}
    rise = cost(lambda: walk(view, calib, (Gram,), lambda *_: None)).rise
    return {
        "rise": rise,
        "hidden": ids.numel() * args.hidden * 4,
        "block": sum(p.numel() * 4 for p in view.blocks[0].parameters()),
        "statistics": sum(8 * wide * wide for wide in shapes.values()),
    }


def alone(layers: int) -> dict[str, int]:
    """The same in a fresh process, which no earlier model has touched."""
    command = [sys.executable, "-m", "benchmarks.walker", *sys.argv[1:], "--one", str(layers)]
    found: dict[str, int] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def main() -> int:
    """The command line; 1 if the rise grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, value in {"hidden": 512, "inner": 1408, "n": 8, "length": 512, "batch": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 8, 16])
    parser.add_argument(
        "--repeats", type=int, default=3, help="runs of every row, of which the median counts"
    )
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.one:
        print(json.dumps(one(args.one, args)))
        return 0
    made = Table("layers", "extra peak MB", "hidden states MB", "one block MB", "its statistics MB")
    rises = []
    for layers in args.layers:
        runs = sorted((alone(layers) for _ in range(args.repeats)), key=lambda run: run["rise"])
        found = runs[len(runs) // 2]
        rises.append(found["rise"])
        made.add_row(str(layers), *(f"{value / 1e6:.1f}" for value in found.values()))
    console, kept = Console(), found["block"] + found["statistics"]
    slope = (rises[-1] - rises[0]) / (args.layers[-1] - args.layers[0])
    console.print(made)
    console.print(
        f"each block more costs {slope / 1e6:.1f} MB of a block and its statistics' {kept / 1e6:.1f} MB: "
        f"{slope / kept:.2f}; goal <= {SLOPE:g}"
    )
    return 0 if slope <= SLOPE * kept else 1


if __name__ == "__main__":
    sys.exit(main())
