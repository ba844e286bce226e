"""Seconds of low-rank and structured methods on a random Llama: one budget, five, and the papers' code.

python -m benchmarks.lowrank                         our side only
python -m benchmarks.lowrank --reference DIR         both, in turns; 1 where a goal is missed
One budget is 0.2, five are 0.1 to 0.5. `shared` are the cells of one study: one pass, one spectrum
per layer. `alone` are the same cells with nothing shared. The peer runs its code once per budget.
Goals, in processor seconds: peer / ours at least 1 for one budget, peer / shared at least 2 for five.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks import peers
from benchmarks.common import Cost, cost, llama, medians, options, record, tokens, total
from benchmarks.compress import Job, once, ours, theirs, warm
from crunchmark.allocation import equal_shares
from crunchmark.calib import Calibration
from crunchmark.compress import allocate, compress
from crunchmark.interface import Method, ModelMethod
from crunchmark.projected import Projected
from crunchmark.shared import Shared
from crunchmark.view import View
from methods.allocate.evopress import EvoPress
from methods.svd import SVD

CONF = Path(__file__).resolve().parents[1] / "conf/method"
BUDGETS = (0.1, 0.2, 0.3, 0.4, 0.5)
ONE = 0.2
OTHERS = ("compactifai", "vq", "lr2vq", "slicegpt", "shortgpt", "wanda_sp", "flap", "modegpt")
PEER: Mapping[str, Mapping[str, Any]] = {
    **{"svd": {"whiten": False}, "svd_llm": {}, "asvd": {}, "welore": {}},
    **{"slicegpt": {}, "flap": {}},
}
EXACT = "asvd, exact"  # ASVD's code with a full SVD, as ours is, in place of its randomised one
TOGETHER = "all projections together"
SEARCH = "evopress, svd"  # 5 generations of 16 on 2 and 16 of four times as many sequences
SEARCHED: Mapping[str, Any] = {"generations": 5, "offspring": 16, "survivors": (2, 1)}
STAGES = (2, 16)  # sequences
GOALS = {"one": 1.0, "five": 2.0}  # peer / ours
SHAPE = {"hidden": 512, "layers": 2, "heads": 8, "inner": 1408, "n": 16, "length": 256}


def family() -> dict[str, Method | ModelMethod]:
    """Every method that is a projection, then those that factor, cut or share otherwise, by their yaml."""
    found: dict[str, Method | ModelMethod] = {}
    for file in sorted(CONF.glob("*.yaml")):
        found[file.stem] = instantiate(OmegaConf.load(file).method)
    projected = [name for name, method in found.items() if isinstance(method, Projected)]
    return {name: found[name] for name in (*projected, *OTHERS)}


def job(name: str, method: Method | ModelMethod, budget: float, **how: Any) -> Job:
    """A method at a budget; both sides look at the dense model's inputs. how: told to the peer."""
    share = {"fraction" if name == "slicegpt" else "ratio": budget}  # SliceGPT's: of the width
    return Job(name, method, budget, {**share, **PEER.get(name, {}), **how}, "dense")


def work(args: argparse.Namespace) -> dict[str, dict[str, Callable[[], Cost]]]:
    """What is measured, by row and column."""
    parent, ids = llama(args.hidden, args.layers, args.heads, args.inner), tokens(args.n, args.length)

    def us(jobs: list[Job]) -> Cost:
        return once(lambda job, model, shared: ours(job, model, ids, shared), jobs, parent)

    def them(jobs: list[Job]) -> Cost:
        return once(lambda job, model, _: theirs(job, model, ids, args.reference), jobs, parent)

    def row(name: str, method: Method | ModelMethod, **how: Any) -> dict[str, Callable[[], Cost]]:
        one, *five = (job(name, method, budget, **how) for budget in (ONE, *BUDGETS))
        made = {"one": lambda: us([one]), "shared": lambda: us(five)}
        made["alone"] = lambda: total([us([each]) for each in five])
        if args.reference and name in PEER:
            warm(args.reference, [one])
            made |= {"peer one": lambda: them([one]), "peer five": lambda: them(five)}
        return made

    chosen = {name: method for name, method in family().items() if re.search(args.only, name)}
    found = {name: row(name, method) for name, method in chosen.items()}
    if args.reference and "asvd" in chosen:
        found[EXACT] = row("asvd", chosen["asvd"], exact=True)
    if re.search(args.only, SEARCH.partition(",")[0]):
        found[SEARCH] = searches(args, parent, ids)
    every = [
        job(name, method, budget)
        for name, method in chosen.items()
        if isinstance(method, Projected)
        for budget in BUDGETS
    ]
    return {**found, TOGETHER: {"shared": lambda: us(every)}}


def searches(args: argparse.Namespace, parent: Any, ids: Tensor) -> dict[str, Callable[[], Cost]]:
    """EvoPress's search for one budget, each side with its own levels of plain SVD."""
    ids = torch.cat([ids, *(ids.roll(k, 1) for k in (1, 2, 3))])  # (4 n, T)

    def us(model: Any) -> None:
        view, calib, shared = View(model), Calibration(ids), Shared()
        plan = equal_shares(view, ONE, "nominal", "blocks", torch.float32)
        found = allocate(EvoPress(samples=STAGES, **SEARCHED), SVD(), view, plan, calib, "random", shared)
        compress(SVD(), view, found, calib, "random", shared)

    def them(model: Any) -> None:
        told = {"ratio": ONE, "tokens": [count * ids.shape[1] for count in STAGES], **SEARCHED}
        peers.PEERS["evopress"][1](args.reference, model, ids, **told)

    def timed(side: Callable[[Any], None]) -> Cost:
        model = deepcopy(parent)
        return cost(lambda: side(model))

    if args.reference:
        told = {"ratio": ONE, "tokens": (16,), "generations": 1, "offspring": 1, "survivors": (1,)}
        peers.PEERS["evopress"][1](args.reference, llama(16, 1, 2, 16), tokens(1, 16), **told)  # imported
    return {"one": lambda: timed(us)} | ({"peer one": lambda: timed(them)} if args.reference else {})


def ratios(row: Mapping[str, Cost]) -> dict[str, float]:
    """Peer / ours in processor seconds, for one budget and for five; {} where there is no peer."""
    if "peer one" not in row:
        return {}
    made = {"one": row["peer one"].cpu / row["one"].cpu}
    return made | ({"five": row["peer five"].cpu / row["shared"].cpu} if "shared" in row else {})


def missed(found: Mapping[str, Mapping[str, Cost]]) -> list[str]:
    """The goals that are missed, in words."""
    return [
        f"{name}, {key}: peer / ours {ratio:.2f}; goal >= {GOALS[key]}"
        for name, row in found.items()
        for key, ratio in ratios(row).items()
        if ratio < GOALS[key]
    ]


def show(found: Mapping[str, Mapping[str, Cost]]) -> Table:
    """Processor seconds and ratios."""
    columns = ("one", "peer one", "shared", "alone", "peer five")
    heads = (*(f"{c} s" for c in columns), "peer / ours, one", "alone / shared", "peer / shared, five")
    made = Table("method", *heads)
    for name, row in found.items():
        seconds = [f"{row[c].cpu:.2f}" if c in row else "-" for c in columns]
        beside = {key: f"{ratio:.2f}" for key, ratio in ratios(row).items()}
        gain = f"{row['alone'].cpu / row['shared'].cpu:.2f}" if "alone" in row else "-"
        made.add_row(name, *seconds, beside.get("one", "-"), gain, beside.get("five", "-"))
    return made


def main() -> int:
    """The command line; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    args, console = options(parser, SHAPE), Console(width=150)
    torch.set_num_threads(args.threads)
    found = medians(work(args), args.repeats)
    console.print(show(found))
    if args.reference is None:
        console.print("no --reference DIR: our side only, no goal is checked")
    if args.json:
        record(args, SHAPE, found)
    for words in missed(found):
        console.print(words)
    return 1 if missed(found) else 0


if __name__ == "__main__":
    sys.exit(main())
