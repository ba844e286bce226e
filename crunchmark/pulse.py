"""A sign of life: what each process that works on a study is doing, in a small file of the study's folder.

    <root>/<study>/.running-<host>-<pid>.json      written every few seconds, gone when the process ends well

A reader needs neither torch nor hydra. A process that was killed leaves its file; the next run removes it.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from crunchmark.files import TEMP
from crunchmark.progress import Event

NAME = ".running-"
BEAT = 2.0  # seconds between two writes, at least
CALM = 10.0  # seconds between two writes where nothing has changed
SILENT = 60.0  # seconds without a write after which a process shows no sign of life
LOST = 600.0  # seconds without one after which its file may go; it writes another should it still be there
ENDLESS = 1e11  # seconds; no clock says more
TEXTS = ("host", "space", "sweep", "kind")
TIMES = ("started", "beat", "cell_started", "stage_started")
Counts = Mapping[str, int]


@dataclass(frozen=True)
class Sign:
    """What one process says of itself. `plan` is of the process that started a sweep: cells of each kind."""

    host: str
    pid: int
    space: str  # where its pid means this process: a boot of a machine, a container on it
    sweep: str  # the same for all processes of one sweep
    started: float
    beat: float
    plan: Counts = field(default_factory=dict)
    ended: Mapping[str, Counts] = field(default_factory=dict)  # kind of cell -> outcome -> how many
    event: Event = field(default_factory=Event)
    kind: str = ""  # of the cell under way, which may have its parent computed just now
    cell_started: float = 0.0
    stage_started: float = 0.0

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{NAME}{self.host}-{self.pid}.json"

    @cached_property
    def gone(self) -> bool:
        """Whether it is known that there is no such process."""
        if self.space != space():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False
        return False

    def silent(self, now: float) -> bool:
        """Whether there should have been a sign of life since the last one."""
        return self.gone or now - self.beat > SILENT


def space() -> str:
    """Where process ids mean the same."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def signs(folder: Path) -> tuple[dict[Path, Sign], list[Path]]:
    """What processes say in a study's folder, the oldest first; and files that say nothing readable."""
    found, damaged = {}, []
    for path in sorted(folder.glob(f"{NAME}*.json")):
        try:
            found[path] = _sign(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:  # it ended just now
            continue
        except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
            damaged.append(path)
    return dict(sorted(found.items(), key=lambda one: one[1].started)), damaged


def _sign(told: Any) -> Sign:
    """The sign of a file, every field of its type."""
    parts: dict[str, Any] = {name: type(value)(told["event"][name]) for name, value in vars(Event()).items()}
    event = Event(**parts | {"stages": tuple(map(str, parts["stages"]))})
    ended = {str(kind): _counts(counts) for kind, counts in told["ended"].items()}
    times: dict[str, Any] = {name: float(told[name]) for name in TIMES}
    if not all(0 <= at < ENDLESS for at in times.values()):
        raise ValueError(f"times {times}")
    texts: dict[str, Any] = {name: str(told[name]) for name in TEXTS}
    return Sign(pid=int(told["pid"]), plan=_counts(told["plan"]), ended=ended, event=event, **texts, **times)


def _counts(told: Any) -> Counts:
    return {str(name): int(count) for name, count in told.items()}


def clean(folder: Path, sweep: str = "") -> None:
    """Remove what killed processes left, and the files of a sweep that is over."""
    now = time.time()
    for path, sign in signs(folder)[0].items():
        if sign.gone or now - sign.beat > LOST or sign.sweep == sweep:
            path.unlink(missing_ok=True)
            path.with_name(f"{TEMP}{path.name}").unlink(missing_ok=True)


def _led(folder: Path, sweep: str) -> bool:
    """Whether the process that started a sweep is there, or has left its file."""
    return any(sign.sweep == sweep and sign.plan for sign in signs(folder)[0].values())


class Pulse:
    """Writes this process's sign while it listens; a folder that can not be written to is one warning.

    root: the folder of studies. sweep: of which sweep it is a part; a new one by default.
    """

    def __init__(self, root: Path | str, study: str, plan: Counts | None = None, sweep: str = "") -> None:
        now, host = time.time(), socket.gethostname()
        self.root, self.study, self.owner = Path(root), study, not sweep
        sweep = sweep or f"{host}-{os.getpid()}-{now:.0f}"
        self.sign = Sign(host, os.getpid(), space(), sweep, now, now, dict(plan or {}))
        self._began: dict[str, float] = {}  # when which stage of the cell under way began
        self._wrote: tuple[Path, Sign] | None = None
        self._warned = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        """Write from here on, in a thread of its own: what is told costs the run no disk."""
        self._thread.start()

    def stop(self) -> None:
        """Remove the file."""
        self._over.set()
        self._thread.join(timeout=BEAT)
        if self._wrote:
            self._guarded(self._remove)

    def __call__(self, event: Event) -> None:
        """Take note of what is under way."""
        now, sign = time.time(), self.sign
        if event.outcome:
            self.count(sign.kind or event.kind, event.outcome)
            return
        if not event.cell:
            self._began.clear()
            self.sign = replace(sign, event=event, kind="")
            return
        if not sign.kind:
            self.study, sign = event.study, replace(sign, kind=event.kind, cell_started=now)
        began = self._began.setdefault(f"{event.cell}/{event.stage}", now)
        self.sign = replace(sign, event=event, stage_started=began)

    def count(self, kind: str, outcome: str) -> None:
        """One more cell of a kind ended so."""
        counts = dict(self.sign.ended.get(kind, {}))
        counts[outcome] = counts.get(outcome, 0) + 1
        self.sign = replace(self.sign, ended={**self.sign.ended, kind: counts})

    def _run(self) -> None:
        while True:
            self._guarded(self._write)
            if self._over.wait(BEAT):
                return

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do it; what the disk refuses is said once, and tried again in silence."""
        try:
            work()
        except OSError as problem:
            if not self._warned:
                self._warned = True
                why = f"{problem.strerror}: {problem.filename or self.root / self.study}"
                sys.stderr.write(f"warning: no progress for `analysis.status` ({why}); the sweep goes on\n")

    def _write(self) -> None:
        """Write the sign where it has changed or is old; only a cell makes the study's folder."""
        now, folder, told = time.time(), self.root / self.study, self.sign
        if self._wrote and self._wrote[0] != folder:
            self._remove()
        if not folder.is_dir():
            return
        if not self.owner and not told.event.cell and not _led(folder, told.sweep):
            self._guarded(self._remove)  # the sweep is over: nobody would tidy up behind this process
            return
        if not self._wrote:
            clean(folder)
        elif self._wrote[1] == replace(told, beat=self._wrote[1].beat) and now - self._wrote[1].beat < CALM:
            return
        told = replace(told, beat=now)
        temp = folder / f"{TEMP}{told.name}"
        try:
            temp.write_text(json.dumps(asdict(told)), encoding="utf-8")  # no fsync: it is of no use tomorrow
            os.replace(temp, folder / told.name)
        except OSError:
            with suppress(OSError):
                temp.unlink(missing_ok=True)
            raise
        self._wrote = folder, told

    def _remove(self) -> None:
        folder, told = self._wrote or (self.root, self.sign)
        self._wrote = None
        (folder / told.name).unlink(missing_ok=True)
        if self.owner:
            clean(folder, told.sweep)
