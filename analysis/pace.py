"""What the stored cells of a study took and saved: the measure of what is still to come."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from crunchmark.progress import kind_of, named
from crunchmark.store import Store

T = TypeVar("T")
STAGES = ("load", "allocate", "compress", "pack")
AROUND = ("allocate", "compensate")
HEAD = 4096  # bytes of a task's file that hold its seconds; the items behind them can be megabytes
_SECONDS = re.compile(rb'"eval_seconds": ([0-9.e+-]+)')


@dataclass(frozen=True)
class Known:
    """One stored cell."""

    name: str
    kind: str
    state: str  # "" where it has scores
    reason: str
    scored: bool
    seconds: dict[str, float]  # by stage, as far as it was measured
    dense_bytes: float
    bytes: float


class Pace:
    """The cells of a study's folder; `refresh` reads those that changed. Sums are made once for a look."""

    def __init__(self, store: Path | str, study: str) -> None:
        self.store, self.study = Store(store), study
        self._known: dict[str, tuple[int, Known | None]] = {}  # by folder, as of its last change
        self._damaged: set[str] = set()  # folders
        self._sums: dict[tuple[str, ...], Any] = {}

    @property
    def cells(self) -> list[Known]:
        """Those whose file could be read, in no order that means anything."""
        return [cell for _, cell in self._known.values() if cell]

    @property
    def damaged(self) -> list[Path]:
        """Folders of cells whose file can not be read."""
        return [self.store.cell(self.study, name) for name in sorted(self._damaged)]

    def refresh(self) -> Pace:
        """Look again."""
        try:
            with os.scandir(self.store.root / self.study) as entries:
                there = {e.name: e.stat().st_mtime_ns for e in entries if e.is_dir()}
        except (FileNotFoundError, NotADirectoryError):
            there = {}
        changed = [name for name, at in there.items() if self._known.get(name, (0, None))[0] != at]
        self._known |= {name: (there[name], self._read(name)) for name in changed}
        self._known = {name: self._known[name] for name in there}
        self._damaged &= set(there)
        self._sums.clear()
        return self

    def _read(self, name: str) -> Known | None:
        """The cell of a folder; None where there is none, or a damaged one."""
        self._damaged.discard(name)
        try:
            facts = self.store.get_cell(self.study, name)
            paths = self.store.cell(self.study, name).glob("task-*.json")
            tasks = {f"task {path.stem.removeprefix('task-')}": _took(path) for path in paths}
        except (OSError, ValueError):
            self._damaged.add(name)
            return None
        return None if facts is None else _known(facts, tasks)

    def _sum(self, make: Callable[..., T], *given: str) -> T:
        key = (make.__name__, *given)
        if key not in self._sums:
            self._sums[key] = make(self.cells, *given)
        found: T = self._sums[key]
        return found

    def states(self) -> Counter[str]:
        """How many cells ended how; `begun` is compressed and not scored yet."""
        return self._sum(_states)

    def stage(self, kind: str, stage: str) -> float | None:
        """Mean seconds of a stage of such cells; None where none was measured."""
        return self._sum(_stage, kind, stage)

    def cell(self, kind: str) -> float | None:
        """Mean seconds of such a cell with all its tasks; None where none was measured."""
        return self._sum(_whole, kind)

    def saved(self) -> tuple[float, float]:
        """Bytes that compressed cells saved, and of how many dense ones."""
        return self._sum(_saved)


def _states(cells: list[Known]) -> Counter[str]:
    return Counter(cell.state or ("done" if cell.scored else "begun") for cell in cells)


def _stage(cells: list[Known], kind: str, stage: str) -> float | None:
    return _mean(cell.seconds[stage] for cell in cells if cell.kind == kind and stage in cell.seconds)


def _whole(cells: list[Known], kind: str) -> float | None:
    alike = [cell.seconds for cell in cells if cell.kind == kind and not cell.state]
    stages = dict.fromkeys(stage for seconds in alike for stage in seconds)
    if not any(stage not in STAGES for stage in stages):
        return None
    return sum(fmean(s[stage] for s in alike if stage in s) for stage in stages)


def _saved(cells: list[Known]) -> tuple[float, float]:
    there = [cell for cell in cells if cell.kind != "dense" and cell.dense_bytes and cell.bytes]
    dense = sum(cell.dense_bytes for cell in there)
    return dense - sum(cell.bytes for cell in there), dense


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return fmean(found) if found else None


def _known(facts: dict[str, Any], tasks: dict[str, float | None]) -> Known:
    """A cell as its files say it."""
    config = facts.get("config") or {}
    around = tuple(named(config[stage]) for stage in AROUND if "_target_" in (config.get(stage) or {}))
    kind = kind_of(str(facts.get("method")), around)
    seconds = {stage: _number(facts.get(f"{stage}_seconds")) for stage in STAGES} | tasks
    return Known(
        name=f"{kind} {_number(facts.get('budget')) or 0:.4g}",
        kind=kind,
        state=str(facts.get("state") or ""),
        reason=" ".join(str(facts.get("reason") or "").split()),
        scored=bool(tasks),
        seconds={stage: took for stage, took in seconds.items() if took is not None},
        dense_bytes=_number(facts.get("dense_model_bytes")) or 0,
        bytes=_number(facts.get("model_bytes")) or 0,
    )


def _number(value: Any) -> float | None:
    """A number from a file; None for what is none."""
    return float(value) if isinstance(value, int | float) else None


def _took(path: Path) -> float | None:
    """Seconds a task took: its file begins with them."""
    with path.open("rb") as file:
        found = _SECONDS.search(file.read(HEAD))
    return float(found[1]) if found else None
