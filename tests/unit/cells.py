"""Cells on a tiny model, and a task that can kill its process; for the tests of the pipeline."""

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from crunchmark.calib import Source
from crunchmark.cell import Cell, Draw
from crunchmark.task import Item, Metric, Task

HOUSE = Path(__file__).parents[2]
TIMES = ("written", "seconds", "peak", "artifact")  # parts of names of what differs between two runs


@dataclass
class Probe(Task):
    """Mean log-probability of fixed tokens, one item per sequence; notes each run in a file."""

    log: Path
    name: str = "probe"
    version: int = 1
    die_at: int = -1  # kill the process before this item

    def protocol(self):
        return f"probe-{self.name}-{self.version}"

    def metrics(self):
        return {"logp": Metric("logp"), "hit": Metric("hit", chance=0.1)}

    def run(self, model, tokenizer):
        with self.log.open("a") as file:
            file.write(f"{self.name}\n")
        ids = torch.randint(3, 2048, (6, 12), generator=torch.Generator().manual_seed(5))
        with torch.no_grad():
            logp = model(ids).logits.log_softmax(-1)[:, :-1].gather(2, ids[:, 1:, None])
        for i, row in enumerate(logp):
            if i == self.die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            yield Item(f"i{i}", "logp", float(row.mean()), extra={"question": f"{i}?", "target": i})
            yield Item(f"i{i}", "hit", float(row.mean() > -8))


def maker(spec, tmp_path):
    def cell(method, budget, **fields):
        text = Source(path=str(HOUSE / "tasks/nano/data/calib.txt"))
        base = Cell(
            "s", spec, method, Draw(text, n=4, length=16, batch=2), {"probe": Probe(tmp_path / "log")},
            {"method": repr(method)}, budget=budget, label=type(method).__name__.lower(),
        )  # fmt: skip
        return replace(base, **fields)

    return cell


def stable(rows):
    """Rows without what differs between two runs of the same thing."""
    kept = [{k: v for k, v in r.items() if not any(t in k for t in TIMES)} for r in rows]
    return sorted(kept, key=lambda r: (r["cell"], r.get("task", ""), r.get("metric", "")))


def runs(tmp_path):
    return (tmp_path / "log").read_text().split() if (tmp_path / "log").exists() else []
