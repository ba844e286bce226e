"""What a study shares: two ratios, from `run.py` as a user calls it, in a store and cache of its own.

python -m benchmarks.sharing
1. Compression seconds of svd_llm at budgets 0.1 to 0.5 in one process, over those of one budget: <= 1.6.
2. Seconds of adding a task to the finished study, over those of the first run; nothing is recompressed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from crunchmark.store import Row, Store

ROOT = Path(__file__).resolve().parents[1]
BUDGETS = (0.1, 0.2, 0.3, 0.4, 0.5)
GOAL = 1.6


def run(folder: Path, study: str, budgets: tuple[float, ...], task: str, limit: int) -> float:
    """A sweep in a process of its own; its seconds on the wall."""
    overrides = ["method=svd_llm", f"budget={','.join(map(str, budgets))}", f"task={task}", f"study={study}"]
    where = [f"store={folder}/{study}", f"cache.dir={folder}/{study}-cache", f"limit={limit}"]
    environment = os.environ | {
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
    }
    start = time.perf_counter()
    command = [sys.executable, "run.py", "-m", *overrides, *where]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return time.perf_counter() - start


def rows(folder: Path, study: str) -> list[Row]:
    """The study's rows of the method."""
    return [row for row in Store(str(folder / study)).rows(study) if row["method"] == "svd_llm"]


def seconds(found: list[Row]) -> dict[float, float]:
    """Compression seconds by budget."""
    return {row["budget"]: row["compress_seconds"] for row in found}


def artifacts(folder: Path, study: str) -> dict[str, int]:
    """When every artifact's manifest was written."""
    cache = folder / f"{study}-cache"
    return {str(f.relative_to(cache)): f.stat().st_mtime_ns for f in cache.rglob("manifest.json")}


def main() -> int:
    """The command line; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--limit", type=int, default=40, help="items per task")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    args, console = parser.parse_args(), Console()
    with TemporaryDirectory(prefix="crunchmark-sharing-") as name:
        folder = Path(name)
        run(folder, "one", BUDGETS[2:3], "ppl_nano", args.limit)
        first = run(folder, "five", BUDGETS, "ppl_nano", args.limit)
        alone, together = seconds(rows(folder, "one")), seconds(rows(folder, "five"))
        before = artifacts(folder, "five")
        second = run(folder, "five", BUDGETS, "nano_mcr", args.limit)
        after = artifacts(folder, "five")
    ratio = sum(together.values()) / sum(alone.values())
    again = sum(after[k] != before.get(k) for k in after)
    console.print(
        f"svd_llm, {len(together)} budgets / one: {ratio:.2f} of compression seconds; goal <= {GOAL}"
    )
    console.print(
        f"a task added / the first run: {second / first:.2f} of all seconds; "
        f"{again} of {len(after)} artifacts made again; goal 0"
    )
    if args.json:
        data = {"five_over_one": ratio, "added_over_first": second / first, "recompressed": again}
        data |= {"first_seconds": first, "added_seconds": second, "alone": alone, "together": together}
        args.json.write_text(json.dumps(data, indent=1) + "\n")
    return 0 if ratio <= GOAL and not again and len(together) == len(BUDGETS) and before else 1


if __name__ == "__main__":
    sys.exit(main())
