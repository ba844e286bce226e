"""What the benchmarks share: a random Llama, calibration without text, a meter for seconds and memory."""

import argparse
import gc
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.peers import REPOSITORIES, commit
from crunchmark.machine import facts, measured, trim

VOCABULARY = 4096


def llama(hidden: int = 1024, layers: int = 4, heads: int = 16, inner: int = 2816) -> Any:
    """A Llama with random float32 weights, the same every time, in eval mode."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=inner,
        vocab_size=VOCABULARY,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )
    config.use_cache = False
    return LlamaForCausalLM(config).eval()


def tokens(n: int, length: int) -> Tensor:
    """(n, length) random ids."""
    return torch.randint(VOCABULARY, (n, length), generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True)
class Cost:
    """What one run took."""

    seconds: float  # on the wall
    cpu: float  # of all threads: what other work on the machine does not move
    rise: int  # resident bytes at the peak, above those at the start


def cost(work: Callable[[], object]) -> Cost:
    """Run it and measure."""
    gc.collect()
    trim()  # freed pages would hide what is asked for again
    before, cpu = _resident(), time.process_time()
    with measured() as stage:
        work()
    return Cost(stage.seconds, time.process_time() - cpu, max(0, stage.peak_bytes - before))


def middle(costs: list[Cost]) -> Cost:
    """The median of every column."""
    return Cost(
        median(c.seconds for c in costs), median(c.cpu for c in costs), int(median(c.rise for c in costs))
    )


def total(costs: list[Cost]) -> Cost:
    """One after the other."""
    return Cost(sum(c.seconds for c in costs), sum(c.cpu for c in costs), max(c.rise for c in costs))


def medians(todo: Mapping[str, Mapping[str, Callable[[], Cost]]], repeats: int) -> dict[str, dict[str, Cost]]:
    """Medians by row and column; columns take turns, so that a slow minute of the machine hits all."""
    found: dict[str, dict[str, list[Cost]]] = {name: {k: [] for k in row} for name, row in todo.items()}
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("Compressing", total=repeats * sum(map(len, todo.values())))
        for _ in range(repeats):
            for name, row in todo.items():
                for column, run in row.items():
                    found[name][column].append(run())
                    bar.advance(task)
    return {name: {k: middle(c) for k, c in row.items()} for name, row in found.items()}


def _resident() -> int:
    """Resident bytes now; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def options(parser: argparse.ArgumentParser, shape: Mapping[str, int]) -> argparse.Namespace:
    """The command line of a benchmark beside the papers' code, on a model and ids of that shape."""
    parser.add_argument("--reference", type=Path, help="folder with the checkouts; without it our side only")
    parser.add_argument("--repeats", type=int, default=3, help="runs per row and side; the median counts")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="rows whose name this regular expression finds")
    parser.add_argument("--json", type=Path, help="write the numbers and the machine's facts here")
    for name, value in shape.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


def record(
    args: argparse.Namespace, shape: Mapping[str, int], found: Mapping[str, Mapping[str, Cost]]
) -> None:
    """Write the costs by row and column, the model's shape, the machine and the papers' commits."""
    rows = {name: {side: asdict(c) for side, c in row.items()} for name, row in found.items()}
    there = [f for f in REPOSITORIES if args.reference and (args.reference / f).is_dir()]
    commits = {f: commit(args.reference, f) for f in there}
    model = {name: getattr(args, name) for name in (*shape, "repeats")}
    data = {"rows": rows, "model": model, "machine": facts(), "reference": commits}
    args.json.write_text(json.dumps(data, indent=1) + "\n")
