"""One HTML file of a study: what fits and keeps its tasks, the frontier, every cell, and how to get it again.

python -m analysis.report STUDY [--store results] [--from wandb:entity/project] [--flips 20] [--out DIR]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from analysis import command, outfile
from analysis.collect import AnalysisError
from analysis.report import build, page
from crunchmark.store import Store


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Read the options and write the page."""
    options = command.parser("One HTML file of a study, which opens from disk with no network")
    options.add_argument(
        "--flips", type=int, default=20, help="items per cell that it lost, at most (default: 20; 0: none)"
    )
    chosen = options.parse_args(argv)
    if chosen.flips < 0:
        raise AnalysisError(f"--flips={chosen.flips}: valid: 0 or more")
    data = command.read(chosen)
    store = None if chosen.source else Store(Path(chosen.store))
    text = page.html(build.payload(data, chosen.study, store, chosen.flips))
    path = Path(chosen.out or Path(chosen.store) / chosen.study) / "report.html"
    with outfile.whole(path) as temp:
        temp.write_text(text, encoding="utf-8")
    return [path]


if __name__ == "__main__":
    sys.exit(command.run(main))
