"""Seconds and peak memory of every method on a random Llama, beside the papers' own code.

python -m benchmarks.compress                        our side only
python -m benchmarks.compress --reference DIR        both, interleaved; DIR holds checkouts of
                                                     wanda, sparsegpt, gptq, TransformerCompression, SVD-LLM
Both sides get the same float32 model in memory and the same ids, and leave a model that can be evaluated.
"""

import argparse
import os
import re
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks import peers
from benchmarks.common import Cost, cost, llama, medians, options, record, tokens
from crunchmark.allocation import equal_shares
from crunchmark.calib import Calibration
from crunchmark.compress import compress
from crunchmark.interface import Method, ModelMethod
from crunchmark.shared import Shared
from crunchmark.view import View
from methods.gptq import GPTQ
from methods.magnitude import Magnitude
from methods.rtn import RTN
from methods.slicegpt import SliceGPT
from methods.sparsegpt import SparseGPT
from methods.svd import SVD
from methods.svd_llm import SVDLLM
from methods.wanda import Wanda


@dataclass(frozen=True)
class Job:
    """One method at one setting, for both sides."""

    name: str  # key of peers.PEERS
    method: Method | ModelMethod
    budget: float  # nominal
    peer: Mapping[str, Any] = field(default_factory=dict)
    inputs: str = "compressed"


JOBS = {
    "magnitude 50 %": Job("magnitude", Magnitude(), 0.5, {"sparsity": 0.5}),
    "wanda 50 %": Job("wanda", Wanda(), 0.5, {"sparsity": 0.5}),
    "wanda 2:4": Job("wanda", Wanda(run=4), 0.5, {"sparsity": 0.5, "n": 2, "m": 4}),
    "sparsegpt 50 %": Job("sparsegpt", SparseGPT(), 0.5, {"sparsity": 0.5}),
    "sparsegpt 2:4": Job("sparsegpt", SparseGPT(run=4), 0.5, {"sparsity": 0.5, "n": 2, "m": 4}),
    "rtn 4 bit": Job("rtn", RTN(group=-1), 0.75, {"bits": 4}),
    "gptq 4 bit": Job("gptq", GPTQ(group=-1), 0.75, {"bits": 4}),
    "gptq 4 bit g128": Job("gptq", GPTQ(group=128), 0.75, {"bits": 4, "group": 128}),
    "slicegpt 20 %": Job("slicegpt", SliceGPT(), 0.2, {"fraction": 0.2}),
    "svd 20 %": Job("svd", SVD(), 0.2, {"ratio": 0.2, "whiten": False}, "dense"),
    "svd_llm 20 %": Job("svd_llm", SVDLLM(), 0.2, {"ratio": 0.2}, "dense"),
}
SWEEPS = {  # cells that share one calibration, and (svd_llm) one spectrum per layer
    "svd_llm 10, 20, 30, 40, 50 %": [
        replace(JOBS["svd_llm 20 %"], budget=r, peer={"ratio": r}) for r in (0.1, 0.2, 0.3, 0.4, 0.5)
    ],
    "wanda 50 % and 2:4, sparsegpt 50 % and 2:4, gptq 4 bit; dense inputs": [
        replace(JOBS[name], inputs="dense")
        for name in ("wanda 50 %", "wanda 2:4", "sparsegpt 50 %", "sparsegpt 2:4", "gptq 4 bit")
    ],
}

SHAPE = {"hidden": 1024, "layers": 4, "heads": 16, "inner": 2816, "n": 16, "length": 512}


def ours(job: Job, model: Any, ids: Tensor, shared: Shared) -> None:
    """Compress the model in place with our code; what an earlier call computed is there."""
    view = View(model)
    plan = equal_shares(view, job.budget, "nominal", "blocks", torch.float32)
    compress(job.method, view, plan, Calibration(ids, job.inputs), "random", shared)


def theirs(job: Job, model: Any, ids: Tensor, reference: Path) -> None:
    """Compress the model in place with the paper's code."""
    peers.PEERS[job.name][1](reference, model, ids, **job.peer)


def once(work: Callable[[Job, Any, Shared], None], jobs: list[Job], parent: Any) -> Cost:
    """The cost of the jobs one after the other, from an empty memory; copying the parent is not counted."""
    total, shared = Cost(0.0, 0.0, 0), Shared()
    for job in jobs:
        model = deepcopy(parent)
        new = cost(lambda job=job, model=model: work(job, model, shared))
        total = Cost(total.seconds + new.seconds, total.cpu + new.cpu, max(total.rise, new.rise))
    return total


def measure(args: argparse.Namespace) -> dict[str, dict[str, Cost]]:
    """Medians by row and side; sides take turns, so that a slow minute of the machine hits both."""
    parent, ids = llama(args.hidden, args.layers, args.heads, args.inner), tokens(args.n, args.length)
    sides: dict[str, Callable[[Job, Any, Shared], None]] = {}
    sides["ours"] = lambda job, model, shared: ours(job, model, ids, shared)
    if args.reference:
        sides["peer"] = lambda job, model, _: theirs(job, model, ids, args.reference)
        warm(args.reference, JOBS.values())
    chosen = {**{name: [job] for name, job in JOBS.items()}, **SWEEPS}
    todo = {
        name: {side: partial(once, work, jobs, parent) for side, work in sides.items()}
        for name, jobs in chosen.items()
        if re.search(args.only, name)
    }
    return medians(todo, args.repeats)


def warm(reference: Path, jobs: Iterable[Job]) -> None:
    """Import the papers' code before the clock runs."""
    small, ids = llama(16, 1, 2, 16), tokens(1, 16)
    for job in jobs:
        if job.peer.get("group") is None:
            theirs(job, deepcopy(small), ids, reference)


def show(found: Mapping[str, Mapping[str, Cost]], console: Console) -> None:
    """The table: seconds on the wall, of the processor, and the rise of resident memory."""
    made = Table(
        "method",
        "ours s",
        "peer s",
        "peer / ours",
        "ours cpu s",
        "peer cpu s",
        "cpu ratio",
        "ours MB",
        "peer MB",
    )
    for name, row in found.items():
        a, b = row["ours"], row.get("peer")
        made.add_row(
            name,
            f"{a.seconds:.2f}",
            f"{b.seconds:.2f}" if b else "-",
            f"{b.seconds / a.seconds:.2f}" if b else "-",
            f"{a.cpu:.2f}",
            f"{b.cpu:.2f}" if b else "-",
            f"{b.cpu / a.cpu:.2f}" if b else "-",
            f"{a.rise / 1e6:.0f}",
            f"{b.rise / 1e6:.0f}" if b else "-",
        )
    console.print(made)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    args, console = options(parser, SHAPE), Console(width=150)
    torch.set_num_threads(args.threads)
    if args.reference is None:
        console.print("no --reference DIR: our side only")
    found = measure(args)
    show(found, console)
    if args.json:
        record(args, SHAPE, found)


if __name__ == "__main__":
    main()
