"""Tokens per second of compressed models on a processor, by the efficiency task.

python -m benchmarks.decode [--hidden 1024 ...]    8 and 4 bit, in bfloat16 and float32
python -m benchmarks.decode --structured           models with parts deleted, in float32
Writes a random Llama with the built-in tokenizer to a folder, rounds it (rtn: 8 bit in whole rows, 4 bit in
groups of 128 and of 32) or deletes 25 and 50 % of it, and times every model by turns with its dense parent.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import llama
from crunchmark.store import Store

ROOT = Path(__file__).resolve().parents[1]
NANO = ROOT / "tasks/nano/model"
FEW_BITS = [
    [f"model.compute={dtype}", f"model.name=random-{dtype}", "method=rtn", "budget=0.3", *how]
    for dtype in ("bfloat16", "float32")
    for how in (
        ["method.bits=8", "method.group=-1"],
        ["method.bits=4", "method.group=128"],
        ["method.bits=4", "method.group=32"],
    )
]
FEW_PARTS = [
    ["model.compute=float32", "model.name=random", f"method={method}", f"budget={budget}", "calib.n=8"]
    for budget in (0.25, 0.5)
    for method in ("shortgpt", "flap", "wanda_sp", "slicegpt", "modegpt")
]
POINTS = ("decode_tps_b1_l32", "decode_tps_b8_l32", "prefill_tps_b1_l32")
SHAPE = {"hidden": 1024, "layers": 4, "heads": 16, "inner": 2816}


def parent(folder: Path, **shape: int) -> Path:
    """A folder with a random Llama in bfloat16 and a tokenizer."""
    model = llama(**shape)
    model.bfloat16().save_pretrained(folder)
    for file in NANO.glob("tokenizer*.json"):
        shutil.copy(file, folder)
    return folder


def run(model: Path, folder: Path, jobs: Sequence[Sequence[str]], repeats: int) -> None:
    """Every cell of the table into a store of its own."""
    task = [
        "task=efficiency",
        "task.efficiency.new=8",
        "task.efficiency.lengths=[32]",
        f"task.efficiency.repeats={repeats}",
        f"store={folder}/rows",
        f"cache.dir={folder}/kept",
        "study=decode",
    ]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    for job in jobs:
        command = [sys.executable, "run.py", f"model.path={model}", *job, *task]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)


def lines(rows: list[dict[str, Any]]) -> Iterator[list[str]]:
    """A line per model: what ran, bytes on disk, tokens/s and how many times dense."""
    cells: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        if row.get("metric"):
            cells.setdefault(row["cell"], {})[row["metric"]] = row
    for found in sorted(cells.values(), key=lambda c: (c[POINTS[0]]["model"], -c[POINTS[0]]["file_bytes"])):
        first = found[POINTS[0]]
        what = str(first["setting"] or first["method"])
        if not first["setting"] and first["method"] != "dense":
            what += f", {first['achieved_bytes']:.0%} removed"
        told = [(found[p]["value"], found[p]["dense"] or found[p]["value"]) for p in POINTS]
        speeds = [f"{value:.1f} ({value / dense:.2f})" for value, dense in told]
        size = f"{first['file_bytes'] / 1e6:.0f} MB"
        yield [str(first["model"]), what, str(first["executed_by"]), size, *speeds]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help="turns per model")
    parser.add_argument("--structured", action="store_true", help="delete parts instead of bits")
    for name, value in SHAPE.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    made = Table("model", "weights", "run by", "on disk", *(f"{p} (x dense)" for p in POINTS))
    with TemporaryDirectory(prefix="crunchmark-decode-") as name:
        folder = Path(name)
        model = parent(folder / "model", **{key: getattr(args, key) for key in SHAPE})
        run(model, folder, FEW_PARTS if args.structured else FEW_BITS, args.repeats)
        rows = Store(folder / "rows").rows("decode")
        for row in rows:
            if row.get("state"):
                print(f"{row['method']} budget={row['budget']}: {row['state']}, {row['reason']}")
        for line in lines(rows):
            made.add_row(*line)
    Console(width=170).print(made)


if __name__ == "__main__":
    main()
