"""What the built-in study costs with one cache, and what its cells would cost one by one without any.

    python -m benchmarks.study [STUDY] [--store results]

Shared: the seconds its rows say they took (loading, compressing, packing, scoring), each score counted once.
Alone: for each method one cell is run in a process of its own with an empty cache, so that it evaluates its
dense parent and gathers its statistics itself; times the number of cells that were asked the whole suite.
"""

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from crunchmark.store import Store

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("load_seconds", "allocate_seconds", "compress_seconds", "pack_seconds")
SUITE = (
    "nano_factoid",
    "ppl_nano",
    "nano_instruct",
    "fidelity_nano",
)  # a cell with these had all of kick_nano


def shared(rows: list[dict[str, Any]]) -> float:
    """Seconds that the cells of a study took, whoever made them."""
    cells = {row["cell"]: sum(row.get(stage) or 0.0 for stage in STAGES) for row in rows}
    scores = {(row["cell"], row["task"]): row["eval_seconds"] for row in rows if row.get("task")}
    return sum(cells.values()) + sum(scores.values())


def whole(rows: list[dict[str, Any]]) -> Counter[str]:
    """Compressed cells per method that were asked the whole suite."""
    asked: dict[str, set[str]] = {}
    for row in rows:
        asked.setdefault(row["cell"], set()).add(row.get("task") or "")
    methods = {row["cell"]: row["method"] for row in rows if row["budget"]}
    return Counter(method for cell, method in methods.items() if asked[cell] >= set(SUITE))


def alone(method: str, limit: int | None = None) -> float:
    """Seconds of one cell in a process and a cache of its own."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with TemporaryDirectory(prefix="crunchmark-study-") as name:
        where = [
            f"store={name}/rows",
            f"cache.dir={name}/kept",
            f"limit={'null' if limit is None else limit}",
        ]
        command = [sys.executable, "run.py", f"method={method}", "budget=0.5", *where]
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
        return time.perf_counter() - start


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("study", nargs="?", default="kick_nano")
    parser.add_argument("--store", default="results", help="folder of studies (default: results)")
    args, console = parser.parse_args(), Console(width=120)
    rows = Store(args.store).rows(args.study)
    together, counts, total = shared(rows), whole(rows), 0.0
    for method, count in counts.items():
        seconds = alone(method)
        total += count * seconds
        console.print(
            f"{method}: one cell alone {seconds:.0f} s, {count} cells {count * seconds / 60:.0f} min"
        )
    console.print(
        f"one by one {total / 60:.0f} min ({sum(counts.values())} cells) / "
        f"all of the study with one cache {together / 60:.0f} min: {total / together:.1f}"
    )


if __name__ == "__main__":
    main()
