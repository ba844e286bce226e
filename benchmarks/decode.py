"""Tokens per second of 8- and 4-bit weights on a processor, in bfloat16 and float32, by the efficiency task.

python -m benchmarks.decode [--hidden 1024 ...]
Writes a random Llama with the built-in tokenizer to a folder, rounds it (rtn: 8 bit in whole rows, 4 bit in
groups of 128 and of 32), and times every packed model by turns with its dense parent, in both dtypes.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import llama
from crunchmark.store import Store

ROOT = Path(__file__).resolve().parents[1]
NANO = ROOT / "tasks/nano/model"
SETTINGS = {"8 bit, whole rows": (8, -1), "4 bit, groups of 128": (4, 128), "4 bit, groups of 32": (4, 32)}
DTYPES = ("bfloat16", "float32")
POINTS = ("decode_tps_b1_l32", "decode_tps_b8_l32", "prefill_tps_b1_l32")
SHAPE = {"hidden": 1024, "layers": 4, "heads": 16, "inner": 2816}


def parent(folder: Path, **shape: int) -> Path:
    """A folder with a random Llama in bfloat16 and a tokenizer."""
    model = llama(**shape)
    model.bfloat16().save_pretrained(folder)
    for file in NANO.glob("tokenizer*.json"):
        shutil.copy(file, folder)
    return folder


def run(model: Path, folder: Path, repeats: int) -> None:
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
    for dtype in DTYPES:
        for bits, group in SETTINGS.values():
            method = ["method=rtn", f"method.bits={bits}", f"method.group={group}", "budget=0.3"]
            where = [f"model.path={model}", f"model.compute={dtype}", f"model.name=random-{dtype}"]
            command = [sys.executable, "run.py", *method, *where, *task]
            subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)


def lines(rows: list[dict[str, Any]]) -> Iterator[list[str]]:
    """A line per dtype and setting: what ran, bytes on disk, tokens/s and how many times dense."""
    cells: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        if row.get("metric"):
            cells.setdefault(row["cell"], {})[row["metric"]] = row
    for found in sorted(cells.values(), key=lambda c: (c[POINTS[0]]["model"], -c[POINTS[0]]["file_bytes"])):
        first = found[POINTS[0]]
        what = str(first["method"] if first["method"] == "dense" else first["setting"])
        told = [(found[p]["value"], found[p]["dense"] or found[p]["value"]) for p in POINTS]
        speeds = [f"{value:.1f} ({value / dense:.2f})" for value, dense in told]
        size = f"{first['file_bytes'] / 1e6:.0f} MB"
        yield [str(first["model"]), what, str(first["executed_by"]), size, *speeds]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help="turns per model")
    for name, value in SHAPE.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    made = Table("model", "weights", "run by", "on disk", *(f"{p} (x dense)" for p in POINTS))
    with TemporaryDirectory(prefix="crunchmark-decode-") as name:
        folder = Path(name)
        model = parent(folder / "model", **{key: getattr(args, key) for key in SHAPE})
        run(model, folder, args.repeats)
        for line in lines(Store(folder / "rows").rows("decode")):
            made.add_row(*line)
    Console(width=170).print(made)


if __name__ == "__main__":
    main()
