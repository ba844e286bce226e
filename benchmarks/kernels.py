"""Kernels beside a resident bfloat16 weight and beside laying the weight out at every call.

python -m benchmarks.kernels
Milliseconds of one call by tokens in it, and how much faster than the bfloat16 layer that is. Every turn
calls all of them, so that what slows the machine down hits all alike. On one thread the thread's own
processor time is read, which other programs hardly move.
"""

import argparse
import os
import time
from collections.abc import Callable
from statistics import median

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from crunchmark.efficiency import by_turns
from crunchmark.execution import equip, executed_by, seen
from crunchmark.rounding import grids, round_to
from crunchmark.terms import NM, Codebook, Quantised, Sparse, Term, native_bf16

CPU, BF16 = torch.device("cpu"), torch.bfloat16


def quantised(weight: Tensor, bits: int, group: int) -> Quantised:
    """The weight rounded to nearest."""
    scale, zero = grids(weight, bits, group, sym=False)
    grouped = weight.view(len(weight), scale.shape[1], -1)  # (out, groups, group)
    return Quantised.of(round_to(grouped, scale, zero, bits).view_as(weight), scale, zero, bits, group)


def racers(weight: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """Name -> a layer; "laid out" are the same terms with their kernel never asked."""
    dense = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=BF16)
    dense.weight.data.copy_(weight)
    found: dict[str, Callable[[Tensor], Tensor]] = {"dense bf16": dense}
    for name, bits, group in (("int8", 8, -1), ("int4", 4, 128)):
        for suffix, most in (("", None), (" laid out", 0)):
            term = quantised(weight, bits, group)
            equip(term, CPU, BF16)
            if term.kernel is None:
                raise SystemExit(f"no {name} kernel on this machine")
            term.kernel.most = most
            found[name + suffix] = term
    return found | unkernelled(weight)


def unkernelled(weight: Tensor) -> dict[str, Term]:
    """Terms that no kernel of a CPU runs."""
    codes = torch.randint(256, (len(weight), weight.shape[1] // 2), dtype=torch.uint8)
    return {
        "3 bit": quantised(weight, 3, 128),
        "2:4": NM.largest(weight, weight.abs(), 2, 4, BF16),
        "bitmap": Sparse.of(weight, weight.abs() > weight.abs().median(), BF16),
        "codebook": Codebook.of(codes, torch.randn(256, 2), None, BF16),
    }


def timed(run: Callable[[], object], clock: Callable[[], float]) -> float:
    """Milliseconds of one run."""
    start = clock()
    run()
    return 1000 * (clock() - start)


@torch.no_grad()
def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8, 16, 64])
    parser.add_argument("--repeats", type=int, default=15, help="turns, of which the median counts")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    clock = time.thread_time if args.threads == 1 else time.perf_counter
    layers = racers(torch.randn(args.side, args.side))
    made = Table("ms (x dense)", *(f"M={rows}" for rows in args.rows))
    lines: dict[str, list[str]] = {name: [] for name in layers}
    for rows in args.rows:
        x = torch.randn(rows, args.side).to(BF16)
        runs = {n: lambda layer=layer, x=x: timed(lambda: layer(x), clock) for n, layer in layers.items()}
        turns = by_turns(runs, args.repeats, warmup=2)
        found = {name: median(turn[name] for turn in turns) for name in layers}
        for name, ms in found.items():
            lines[name].append(f"{ms:.2f} ({found['dense bf16'] / ms:.2f})")
    for name, cells in lines.items():
        made.add_row(name, *cells)
    console = Console()
    console.print(made)
    terms = [layer for layer in layers.values() if isinstance(layer, Term)]
    console.print(f"native bfloat16 products: {native_bf16()}; {executed_by(seen(t) for t in terms)}")


if __name__ == "__main__":
    main()
