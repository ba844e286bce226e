"""What a run says of itself while it works: which cell, which stage, which layer. Nobody listens by default.

Who listens is called between two operations of the model: it must be quick, and may not raise.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Event:
    """What is under way. An outcome says that the cell is over: done, cached, failed, or its state."""

    study: str = ""
    cell: str = ""
    model: str = ""
    method: str = ""
    stages: tuple[str, ...] = ()  # around the method, where they do anything
    budget: float = 0.0
    stage: str = ""
    step: int = 0  # the one under way, from 1; 0 where nobody counts
    steps: int = 0
    unit: str = ""  # of the steps
    outcome: str = ""

    @property
    def kind(self) -> str:
        """What takes about the same time at every budget."""
        return kind_of(self.method, self.stages)


def kind_of(method: str, stages: tuple[str, ...]) -> str:
    """A method and the stages around it, in one word or more."""
    return " ".join((method, *stages))


def named(spec: Mapping[str, Any]) -> str:
    """An entry of a stage as the command line names it: the module of its target."""
    return str(spec["_target_"]).rpartition(".")[0].rpartition(".")[2]


Listener = Callable[[Event], None]
IDLE = Event()
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_now: ContextVar[Event] = ContextVar("now", default=IDLE)
_outcome: ContextVar[str] = ContextVar("outcome", default="")


def listen(listener: Listener | None) -> None:
    """From here on, this thread's events go to the listener."""
    _listener.set(listener)


def _tell(event: Event) -> None:
    _now.set(event)
    if listener := _listener.get():
        listener(event)


@contextmanager
def cell(event: Event) -> Iterator[None]:
    """A cell is computed inside; what ends is told of it, but not of a parent inside another cell."""
    before, ends = _now.get(), _outcome.set("done")
    _tell(event)
    try:
        yield
    except BaseException:
        outcome("failed")
        raise
    finally:
        if not before.cell:
            _tell(replace(event, outcome=_outcome.get()))
        _outcome.reset(ends)
        _tell(before)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """A stage of the cell runs inside."""
    before = _now.get()
    _tell(replace(before, stage=name, step=0, steps=0))
    try:
        yield
    finally:
        _tell(before)


def step(index: int, steps: int, unit: str) -> None:
    """That the stage has come to this one of so many units, from 0; outside a cell nothing is said."""
    now = _now.get()
    if now.cell:
        _tell(replace(now, step=index + 1, steps=steps, unit=unit))


def outcome(name: str) -> None:
    """How the cell will have ended, once it has."""
    _outcome.set(name)
