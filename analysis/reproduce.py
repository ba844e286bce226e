"""What papers got beside what was measured.

python -m analysis.reproduce STUDY ... [--store results]
python -m analysis.reproduce              # every experiment under conf/experiment/reproduce/
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from analysis import collect, command, schema
from crunchmark.store import Row, Store

EXPERIMENTS = Path(__file__).resolve().parents[1] / "conf" / "experiment" / "reproduce"


@dataclass(frozen=True)
class Point:
    """One published number, and ours."""

    study: str
    budget: float  # 0.0 is the dense parent
    metric: str
    expected: float
    tolerance: float  # relative
    source: str
    measured: float | None
    status: str  # agrees, differs, how the cell ended, or why there is no cell
    row: Row | None = None  # that measured it

    @property
    def off(self) -> float | None:
        """Relative difference."""
        return None if self.measured is None else self.measured / self.expected - 1


def points(study: str, expected: Mapping[str, Any], rows: Sequence[Row]) -> Iterator[Point]:
    """Every number a study is expected to give, dense first, with the rows that give it.

    Args:
        study: Its name.
        expected: As the experiment says it.
        rows: Of the study in the store; a draw of the calibration is a row of its own.
    """
    wanted = {0.0: expected["dense"], **{float(b): v for b, v in expected["values"].items()}}
    for budget, value in wanted.items():
        given = (study, budget, expected["metric"], float(value), expected["tolerance"], expected["source"])
        here = [row for row in rows if abs(row["budget"] - budget) < 1e-9]
        if not here:
            yield Point(*given, None, expected["status"])
        scored = [row for row in here if _asked(row, expected)]
        ended = {str(row["state"]) for row in here if row.get("reason")} or {"not measured"}
        if here and not scored:
            yield Point(*given, None, ", ".join(sorted(ended)))
        for row in scored:
            near = abs(row["value"] / value - 1) <= expected["tolerance"]
            yield Point(*given, float(row["value"]), "agrees" if near else "differs", row)


def _asked(row: Row, expected: Mapping[str, Any]) -> bool:
    return (row.get("task"), row.get("metric")) == (expected["task"], expected["metric"])


def of_study(study: str, store: Store) -> list[Point]:
    """The points of a study that was run.

    Raises:
        AnalysisError: there is no such study, or nothing is expected of it.
    """
    try:
        rows = schema.current(store.rows(study))
    except ValueError as missing:
        raise collect.AnalysisError(str(missing)) from None
    said = [row["expected"] for row in rows if row.get("expected")]
    if not said:
        raise collect.AnalysisError(
            f"study={study!r}: no row says what is expected; valid: a reproduce/ study"
        )
    return list(points(study, said[-1], rows))


def experiments(folder: Path = EXPERIMENTS) -> dict[str, dict[str, Any]]:
    """Study -> what is expected of it, of every experiment of a folder."""
    found = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.yaml"))]
    return {config["study"]: config["expected"] for config in found}


def everything(store: Store, folder: Path = EXPERIMENTS) -> list[Point]:
    """The points of every experiment of a folder, run or not."""
    found: list[Point] = []
    there = set(store.studies())
    for study, expected in experiments(folder).items():
        found += of_study(study, store) if study in there else points(study, expected, [])
    return found


def table(found: Sequence[Point]) -> Table:
    """A line per number."""
    shown = Table("study", "budget", "metric", "expected", "measured", "off by", "status", "source")
    for point in found:
        numbers = ("–", "–")
        if point.measured is not None and point.off is not None:
            numbers = (f"{point.measured:g}", f"{point.off:+.1%}")
        budget = "dense" if point.budget == 0 else f"{point.budget:g}"
        texts = (point.study, budget, point.metric, f"{point.expected:g}")
        shown.add_row(*texts, *numbers, point.status, point.source)
    return shown


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Read the options and print one table."""
    options = command.Options(description="What papers got beside what was measured")
    options.add_argument("study", nargs="*", help="studies; none: every experiment under reproduce/")
    options.add_argument("--store", default="results", help="folder of studies (default: results)")
    given = options.parse_args(argv)
    store = Store(given.store)
    found = [p for study in given.study for p in of_study(study, store)] or everything(store)
    Console(width=None if sys.stdout.isatty() else 160).print(table(found))
    return []


if __name__ == "__main__":
    sys.exit(command.run(main))
