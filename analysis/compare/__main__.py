"""What got worse from A to B, beyond chance and beyond a margin, and what else changed.

python -m analysis.compare A B [--margin 0.05] [--store results] [--out DIR] [--format md,csv,json]

A and B are studies, or cells as STUDY:KEY; either behind a folder of studies, as old/results/demo:1f3c.
`published` is what a paper got. Exit code 0: no regression; 1: at least one; 2: a mistake of the caller's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from analysis import command, style
from analysis.collect import AnalysisError
from analysis.compare import changed, published, sides, tests
from analysis.compare.show import FORMATS, Comparison, show, write
from analysis.compare.sides import Side

SIDE = "STUDY, or STUDY:KEY for the cell whose key starts so; FOLDER/STUDY[:KEY] in another folder of studies"


def main(argv: Sequence[str] | None = None) -> command.Answer:
    """Read the options, compare, print, and write what was asked for."""
    given = _options().parse_args(argv)
    if given.margin is not None and not 0 <= given.margin < 1:
        raise AnalysisError(f"--margin={given.margin:g}: valid is from 0 to below 1")
    formats = command.listed(given.format, "format", FORMATS)
    found = compared(given)
    if not found.tested and not found.faults:
        raise AnalysisError(f"{_nothing(found)}; A is {found.a}, B is {found.b}")
    show(found, Console(width=None if sys.stdout.isatty() else 160), given.all)
    paths = write(found, Path(given.out), formats) if given.out else []
    return command.Answer(paths, int(found.faults > 0))


def _options() -> argparse.ArgumentParser:
    options = command.Options(
        description="What got worse from A to B, beyond chance and a margin, and what else changed.",
        epilog="Exit code 0: no regression, 1: at least one, 2: nothing to compare, or a wrong option.",
    )
    options.add_argument("a", metavar="A", help=f"what is compared with: {SIDE}")
    options.add_argument(
        "b",
        metavar="B",
        help="what is judged, in the same way. `published` on either side: what the other one's rows expect; "
        "`published:EXPERIMENT`: what one of conf/experiment/reproduce does",
    )
    options.add_argument("--store", default="results", help="folder of studies (default: results)")
    options.add_argument(
        "--margin",
        type=float,
        help="share that may be lost (default: of the metric, 0.05; published: tolerance)",
    )
    options.add_argument("--metric", default="", help="metrics, or all (default: the headline of each task)")
    options.add_argument(
        "--strict", action="store_true", help="what is only in A, or not compared, counts too"
    )
    options.add_argument("--all", action="store_true", help="print every line, also those without news")
    options.add_argument(
        "--out", default="", help="folder to write compare.* to (default: nothing is written)"
    )
    options.add_argument("--format", default="md,csv,json", help="md, csv, json (default: all three)")
    command.mixed_option(options)
    return options


def compared(given: argparse.Namespace) -> Comparison:
    """What the options ask for."""
    words = [name for name in (given.a, given.b) if published.asked(name)]
    if len(words) == 2:
        raise AnalysisError(f"A={given.a!r}, B={given.b!r}: one of the two must be a study or a cell")
    if words:
        other = given.b if published.asked(given.a) else given.a
        side = sides.read(other, "B", given)
        found, absent = published.lines(words[0], side, given.margin)
        return Comparison(words[0], _told(side), found, [], absent, [], given.strict, True)
    a, b = sides.read(given.a, "A", given), sides.read(given.b, "B", given)
    pairing = sides.paired(a, b)
    if not pairing.pairs:
        raise AnalysisError(
            f"A={given.a!r}, B={given.b!r}: no cell of the one has the settings of one of the other"
        )
    if any(map(a.compressed, a.cells)) and not any(a.compressed(cell) for cell, _ in pairing.pairs):
        raise AnalysisError(
            f"A={given.a!r}, B={given.b!r}: of the compressed cells of A none is in B, dense alone is"
        )
    found = tests.lines(a, b, pairing, command.listed(given.metric), given.margin)
    only_a, only_b = [
        [side.titles[cell] for cell in cells] for side, cells in ((a, pairing.only_a), (b, pairing.only_b))
    ]
    changes = changed.changes(a, b, pairing)
    return Comparison(_told(a), _told(b), found, changes, only_a, only_b, given.strict)


def _told(side: Side) -> str:
    """A side in words."""
    cells = list(side.cells)
    what = f"{side.titles[cells[0]]}, cell {cells[0][:8]}" if side.one else f"{len(cells)} cells"
    return style.printable(f"{side.store.root / side.study}: {what}")


def _nothing(found: Comparison) -> str:
    """Why nothing was compared."""
    notes = list(dict.fromkeys(found.lines["note"]))
    return f"nothing could be compared: {notes[0] if notes else 'they share no task'}"


if __name__ == "__main__":
    sys.exit(command.run(main))
