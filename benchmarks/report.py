"""Size and times of the page of made-up studies: to write it, until it is usable and until the plot is drawn.

python -m benchmarks.report [--cells 50 500 5000] [--repeats 3]
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from analysis import collect
from analysis.report import build, page
from benchmarks import browser

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "analysis"))  # where studies are made up
from large_study import Memory, many


def write(path: Path, cells: int) -> float:
    """Write the page of so many cells of seven tasks, 40 items and 120 layers; CPU seconds of it."""
    rows = many(cells)
    begin = time.process_time()
    data: Any = build.payload(collect.frame(rows), f"made_up_{cells}", Memory(rows))
    path.write_text(page.html(data), encoding="utf-8")
    return time.process_time() - begin


def opened(driver: Any, path: Path, repeats: int) -> tuple[float, float]:
    """Median seconds from opening until usable, and until drawn."""
    found = [browser.load(driver, path) for _ in range(repeats)]
    return median(f["usable"] for f in found) / 1000, median(f["drawn"] for f in found) / 1000


def main() -> None:
    """Measure and print the table of docs/report.md."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[50, 500, 5000])
    parser.add_argument("--repeats", type=int, default=3, help="how often each page is opened")
    args = parser.parse_args()
    if lacking := browser.missing():
        sys.exit(f"error: {lacking}")
    table = Table("cells", "file", "to write (CPU)", "usable", "plot")
    with TemporaryDirectory() as folder, browser.opened() as driver:
        for cells in args.cells:
            path = Path(folder) / f"{cells}.html"
            spent = write(path, cells)
            usable, drawn = opened(driver, path, args.repeats)
            size = path.stat().st_size / 1e6
            table.add_row(str(cells), f"{size:.1f} MB", f"{spent:.1f} s", f"{usable:.2f} s", f"{drawn:.1f} s")
    Console().print(table)


if __name__ == "__main__":
    main()
