"""What a study shares: two ratios, in a store and a cache of their own.

python -m benchmarks.sharing
1. Compression seconds of svd_llm at budgets 0.1 to 0.5 in one process, over those of one budget: <= 1.6.
   Processor seconds of the pipeline's own compression stage; both sides start with nothing shared.
2. Seconds of adding a task to the finished study, over those of the first run, both by `run.py` in a
   process of its own; nothing may be compressed again.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from rich.console import Console

from crunchmark import pipeline
from crunchmark.cache import Cache
from crunchmark.cell import Cell, cell_from
from crunchmark.store import Store

ROOT = Path(__file__).resolve().parents[1]
BUDGETS = (0.1, 0.2, 0.3, 0.4, 0.5)
GOAL = 1.6


def cell(budget: float) -> Cell:
    """The cell a user's `method=svd_llm budget=...` composes, without tasks."""
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        config: Any = compose("config", overrides=["method=svd_llm", "label=svd_llm", f"budget={budget}"])
    found: Any = OmegaConf.to_container(config, resolve=True)
    made = [instantiate(found[name]) for name in ("method", "allocate", "compensate")]
    return cell_from(found, made[0], {}, *made[1:])


def spent(folder: Path, budgets: tuple[float, ...]) -> float:
    """Processor seconds of compressing at the budgets one after the other, nothing shared before."""
    seconds, compress = [], pipeline.compress

    def clocked(*args: Any) -> Any:
        start = time.process_time()
        terms = compress(*args)
        seconds.append(time.process_time() - start)
        return terms

    runner = pipeline.Runner(Store(folder / "store"), Cache(folder / "cache"))
    runner.run(cell(budgets[0]).dense())  # every study has it, whatever its budgets
    with patch.object(pipeline, "compress", clocked):
        for budget in budgets:
            runner.run(cell(budget))
    if len(seconds) != len(budgets):
        raise RuntimeError(f"{len(budgets)} cells compressed {len(seconds)} times")
    return sum(seconds)


def sweep(folder: Path, task: str, limit: int) -> float:
    """`run.py -m` over the budgets in a process of its own; its seconds on the wall."""
    overrides = ["method=svd_llm", f"budget={','.join(map(str, BUDGETS))}", f"task={task}", "study=shared"]
    where = [f"store={folder}/rows", f"cache.dir={folder}/kept", f"limit={limit}"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    start = time.perf_counter()
    command = [sys.executable, "run.py", "-m", *overrides, *where]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return time.perf_counter() - start


def artifacts(folder: Path) -> dict[str, int]:
    """When every artifact's manifest was written."""
    kept = folder / "kept"
    return {str(f.relative_to(kept)): f.stat().st_mtime_ns for f in kept.rglob("manifest.json")}


def main() -> int:
    """The command line; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--limit", type=int, default=40, help="items per task")
    args, console = parser.parse_args(), Console(width=120)
    with TemporaryDirectory(prefix="crunchmark-sharing-") as name:
        folder = Path(name)
        spent(folder / "warm", BUDGETS[2:3])
        alone, together = spent(folder / "one", BUDGETS[2:3]), spent(folder / "five", BUDGETS)
        first = sweep(folder, "ppl_nano", args.limit)
        before = artifacts(folder)
        second = sweep(folder, "nano_mcr", args.limit)
        after = artifacts(folder)
    again = sum(after[k] != before.get(k) for k in after)
    console.print(
        f"svd_llm, {len(BUDGETS)} budgets {together:.2f} s / one {alone:.2f} s: {together / alone:.2f}; "
        f"goal <= {GOAL}"
    )
    console.print(
        f"a task added {second:.1f} s / the first run {first:.1f} s: {second / first:.2f}; "
        f"{again} of {len(after)} artifacts made again; goal 0"
    )
    return 0 if together / alone <= GOAL and not again and len(before) > len(BUDGETS) else 1


if __name__ == "__main__":
    sys.exit(main())
