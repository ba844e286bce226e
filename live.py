"""What a sweep shows while it runs: a live view on a terminal, elsewhere a line per cell, or nothing."""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from rich.console import Console, RenderableType
from rich.file_proxy import FileProxy
from rich.live import Live
from rich.text import Text

from analysis.status import Board
from crunchmark import progress
from crunchmark.pulse import Pulse
from hydra_plugins.crunchmark_grids import batch

MODES = ("auto", "live", "lines", "quiet")
SWEEP = "CRUNCHMARK_SWEEP"  # tells the processes that a launcher starts which sweep they belong to
IDLE = ("uniform", "none")  # stages around a method that do nothing
REFRESH = 2  # pictures a second
_open = ExitStack()  # what must be closed again; of this process, whatever copies Hydra makes of the callback
_pulse: list[Pulse] = []


class Show:
    """A Hydra callback: listens to this process and, where it started the sweep, shows all of it."""

    def on_run_start(self, config: Any, **_: Any) -> None:
        """One cell."""
        begin(config, Counter([kind(config.hydra.runtime.choices, config.label)]))

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        """As many as the grid has."""
        begin(config, Counter(_kind_of_job(job, config) for job in jobs(config)))

    def on_job_start(self, config: Any, **_: Any) -> None:
        """In a process that a launcher started, nobody listens yet."""
        if not _pulse:
            begin(config, None)

    def on_job_end(self, config: Any, job_return: Any = None, **_: Any) -> None:
        """A job that returns false says that its config was no cell."""
        if _pulse and getattr(job_return, "_return_value", None) is False:
            _pulse[0].count(kind(config.hydra.runtime.choices, config.label), "refused")

    def on_compose_config(self, config: Any, **_: Any) -> None:
        """Nothing to do (only Hydra 1.4 calls it)."""

    def on_run_end(self, config: Any, **_: Any) -> None:
        """Make room for the table."""
        _open.close()

    def on_multirun_end(self, config: Any, **_: Any) -> None:
        """Make room for the table."""
        _open.close()


@contextmanager
def shown() -> Iterator[None]:
    """Whatever happens inside, the terminal is in order behind it, and no file says that this still runs."""
    try:
        yield
    finally:
        _open.close()


def begin(config: Any, plan: Counter[str] | None) -> None:
    """Listen from here on; draw where this process started the sweep, and is asked to."""
    pulse = Pulse(
        str(config.store), str(config.study), plan, "" if plan is not None else os.environ.get(SWEEP, "")
    )
    _pulse.append(pulse)
    _open.callback(_pulse.clear)
    progress.listen(pulse)
    _open.callback(progress.listen, None)
    pulse.start()
    _open.callback(pulse.stop)
    if plan is not None:
        os.environ[SWEEP] = pulse.sign.sweep
        _open.callback(os.environ.pop, SWEEP, None)
        if drawn(str(config.progress)):
            _open.enter_context(view(pulse))


def drawn(mode: str) -> bool:
    """Whether there is a live view: by default on a terminal that can, and not where CI says it is one."""
    if mode != "auto":
        return mode == "live"
    dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
    return sys.stderr.isatty() and not dumb and not os.environ.get("CI")


class Above(FileProxy):
    """Prints above the picture; says that it is no terminal, so that nobody draws bars of his own into it."""

    def isatty(self) -> bool:
        """No."""
        return False


@contextmanager
def view(pulse: Pulse) -> Iterator[None]:
    """Inside, a picture of the sweep below what is printed; what goes into a file or a pipe still does."""
    console = Console(file=sys.stderr, force_terminal=True)
    boards: dict[str, Board] = {}

    def draw() -> RenderableType:
        board = boards.setdefault(pulse.study, Board(pulse.root, pulse.study, lambda: pulse.sign))
        try:
            return board.draw(time.time())
        except Exception as problem:  # a picture is worth no cell
            return Text(f"no picture: {type(problem).__name__}: {problem}", "dim")

    given = {
        "refresh_per_second": REFRESH,
        "transient": True,
        "redirect_stdout": False,
        "redirect_stderr": False,
    }
    with ExitStack() as stack:
        stack.enter_context(Live(get_renderable=draw, console=console, **given))
        stack.enter_context(redirect_stderr(Above(console, sys.stderr)))
        if sys.stdout.isatty():
            stack.enter_context(redirect_stdout(Above(console, sys.stdout)))
        yield


def jobs(config: Any) -> Sequence[Sequence[str]]:
    """The overrides of every cell of a sweep."""
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    try:
        return batch(parser, config.hydra.sweeper, list(config.hydra.overrides.task))
    except HydraException:  # the sweeper is about to say so
        return []


def kind(choices: Mapping[str, Any], label: str) -> str:
    """As the core calls the cell of these choices."""
    if choices.get("method") == "dense":
        return progress.kind_of("dense", ())
    stages = tuple(str(choices.get(stage)) for stage in ("allocate", "compensate"))
    return progress.kind_of(str(label), tuple(stage for stage in stages if stage not in IDLE))


def _kind_of_job(words: Sequence[str], config: Any) -> str:
    """Of the cell of these overrides."""
    said = dict(word.lstrip("+").split("=", 1) for word in words if "=" in word)
    choices = {**config.hydra.runtime.choices, **said}
    return kind(choices, said.get("label", choices["method"]))
