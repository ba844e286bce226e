"""Trackers: what a finished cell is told to. A tracker that fails never fails a cell."""

import importlib
import json
import math
import netrc
import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from crunchmark.files import locked, write_json
from crunchmark.keys import key_of
from crunchmark.store import run_id
from crunchmark.told import Rows, summary

MODES = ("auto", "online", "offline", "disabled")
AGENT = ("WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_RUN_ID")  # what `wandb agent` sets
QUIET = {
    **{"silent": True, "console": "off", "symlink": False, "use_dot_wandb": False},
    **{"save_code": False, "disable_code": True, "disable_git": True, "x_save_requirements": False},
    **{"x_disable_meta": True, "x_disable_stats": True, "x_disable_machine_info": True},
    **{"host": "", "program": "run.py"},  # else the machine's name and the script's whole path
}
ROOM = 16_000_000  # bytes that must be free: W&B loses a run on a full disk without a word
LOST: set[str] = set()  # projects that did not answer in this process: later cells do not wait for them again


class Tracker(ABC):
    """Is told of every finished cell."""

    @abstractmethod
    def log(self, config: Mapping[str, Any], rows: Rows) -> None:
        """Tell of one cell: its resolved config and its rows as the store gives them. Never raises."""


class Silent(Tracker):
    """Tells nobody."""

    def log(self, config: Mapping[str, Any], rows: Rows) -> None:
        """Nothing."""


@dataclass(frozen=True)
class WandB(Tracker):
    """One Weights & Biases run per cell, in the group of its study.

    mode: auto is online where W&B has a key and is not switched off, offline elsewhere.
    dir: runs are written to <dir>/wandb, and what was logged is remembered in <dir>/wandb/logged.
    timeout: seconds a cell waits at most for W&B to start a run, and as many to take it.

    Raises:
        ValueError: a field is out of range; names it.
    """

    project: str = "crunchmark"
    entity: str | None = None
    mode: str = "auto"
    dir: str = "results"
    timeout: float = 30.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"track.mode={self.mode!r} is unknown; valid: {', '.join(MODES)}")
        if not self.project or set(str(self.project)) & set("/\\#?%:"):
            raise ValueError(
                f"track.project={self.project!r} is no project name; valid: text without / \\ # ? % :"
            )
        if not isinstance(self.timeout, int | float) or not 0 < self.timeout < math.inf:
            raise ValueError(f"track.timeout={self.timeout!r} is out of range; valid: seconds above 0")

    def log(self, config: Mapping[str, Any], rows: Rows) -> None:
        """One run, unless these rows were logged before; what fails is a line on stderr.

        The run that an agent of a W&B sweep started is its cell's, logged before or not; dense has its own.
        """
        if not rows or self.mode == "disabled":
            return
        try:
            if os.environ.get(AGENT[0]) and rows[0]["method"] != "dense":
                mode = self._mode()
                if mode != "disabled":
                    self._send(mode, config, rows)
                return
            with apart():
                self._log(config, rows)
        except Exception as problem:  # W&B can fail in any way; the rows are in the store all the same
            warn(f"cell {rows[0]['cell'][:24]} is not logged: {brief(problem)}; {self._mend(problem)}")

    def _log(self, config: Mapping[str, Any], rows: Rows) -> None:
        folder, name = Path(self.dir) / "wandb" / "logged", run_id(rows[0])
        content = key_of(entity=self.entity, project=self.project, rows=rows, told=sorted(summary(rows)))
        with locked(folder / f".{name}.lock"):
            free = shutil.disk_usage(folder).free
            if free < ROOM:
                raise OSError(f"only {free} bytes are free in {str(folder)!r}")
            mark = folder / f"{name}.json"
            known = json.loads(mark.read_text(encoding="utf-8")) if mark.is_file() else {}
            same = known.get("content") == content
            if same and (known["online"] or self.mode == "offline"):
                return
            mode = self._mode()
            online = mode == "online" and self._reached(config, rows)
            if mode != "disabled":
                if not online and not same:
                    self._send("offline", config, rows)
                write_json(mark, {"content": content, "online": online})

    def _mode(self) -> str:
        """What auto comes to on this machine."""
        if self.mode != "auto":
            return self.mode
        settings = package().setup().settings
        if settings.mode in ("offline", "dryrun", "disabled"):
            return "disabled" if settings.mode == "disabled" else "offline"
        return "online" if has_key(settings) else "offline"

    def _reached(self, config: Mapping[str, Any], rows: Rows) -> bool:
        """Whether the run is at W&B now; says why not, once per process and project."""
        where = f"{self.entity}/{self.project}"
        if where in LOST:
            return False
        try:
            if not has_key(package().setup().settings):  # W&B would stop and ask for one
                raise ValueError("there is no key")
            self._send("online", config, rows)
        except Exception as problem:  # no key, a wrong one, no network, a hang: all end in an offline run
            LOST.add(where)
            package().teardown()  # W&B's service holds the id of a run that failed to start
            warn(
                f"{brief(problem)}; logged offline from here on; mend: `wandb login` or WANDB_API_KEY, "
                f"and the network; then `wandb sync {Path(self.dir) / 'wandb'}`"
            )
            return False
        return True

    def _send(self, mode: str, config: Mapping[str, Any], rows: Rows) -> None:
        wandb, cell, swept = package(), rows[0], bool(os.environ.get(AGENT[0]))
        waits = {"init_timeout": self.timeout, "finish_timeout": self.timeout, "finish_timeout_raises": True}
        run = wandb.init(
            project=None if swept else self.project,  # an agent has said which run, and where
            entity=None if swept else self.entity,
            dir=self.dir,
            id=None if swept else run_id(cell),
            group=cell["study"],
            name=f"{cell['method']} {cell['budget']:g}",
            config=dict(config),
            resume="allow" if mode == "online" and not swept else None,  # offline has nothing to resume from
            reinit="create_new",
            settings=wandb.Settings(mode=mode, **QUIET, **waits),
        )
        try:
            run.summary.update(summary(rows))
        finally:
            run.finish()  # `with run` would print a traceback of its own

    def _mend(self, problem: Exception) -> str:
        if isinstance(problem, ImportError):
            return "mend: pip install wandb, or track=none"
        if isinstance(problem, OSError):
            return f"mend: make track.dir={self.dir!r} a folder that can be written and has room"
        return "mend: run the cell again to log it, or track=none"


@contextmanager
def apart() -> Iterator[None]:
    """Outside the sweep of an agent, whose run W&B would take in place of the one it is told."""
    kept = {name: os.environ.pop(name) for name in AGENT if name in os.environ}
    if kept:
        package().teardown()
    try:
        yield
    finally:
        os.environ.update(kept)
        if kept:
            package().teardown()


def package() -> Any:
    """The wandb package, told to keep quiet; imported here alone, and only where something is tracked."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its crash reports would leave the machine
    wandb = importlib.import_module("wandb")
    wandb.setup(wandb.Settings(silent=True))
    return wandb


def has_key(settings: Any) -> bool:
    """Whether W&B finds a key without asking: environment, its settings, or netrc for its host."""
    if settings.api_key or settings.identity_token_file:
        return True
    homes = [Path.home() / ".netrc", Path.home() / "_netrc"]
    files = [Path(os.environ["NETRC"]).expanduser()] if os.environ.get("NETRC") else homes
    try:
        found = [netrc.netrc(path) for path in files if path.is_file()]
    except (OSError, netrc.NetrcParseError):
        return False
    return any(entry.authenticators(urlsplit(settings.base_url).netloc) for entry in found)


def brief(problem: Exception) -> str:
    """An exception in one line."""
    return " ".join(f"{type(problem).__name__}: {problem}".split())


def warn(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"warning: W&B: {text}\n")
    sys.stderr.flush()
