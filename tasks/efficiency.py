"""Efficiency: how fast the packed model really runs here, by turns with its dense parent, and its bytes.

Latencies of reading a prompt (prefill) and of writing after it (decode), over a grid of batch and length.
"""

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from crunchmark.calib import context
from crunchmark.checks import whole
from crunchmark.efficiency import (
    Roof,
    Work,
    by_turns,
    peak_bytes,
    read_and_write,
    resident_bytes,
    roof_of,
    work_of,
)
from crunchmark.energy import Energy
from crunchmark.machine import Others, hardware
from crunchmark.task import Item, Metric, Scene, Task
from tasks.common import digest

PHASES = ("decode", "prefill")
OURS, DENSE = "model", "dense"
SHARE = 0.1  # of the processors busy with something else, from which on a row says so
SIZES = ("peak_bytes", "resident_bytes", "file_bytes")


@dataclass(frozen=True)
class Point:
    """One place on the grid: prompts of `length` tokens, `batch` at a time, then `new` tokens each."""

    batch: int
    length: int
    new: int

    def __str__(self) -> str:
        return f"b{self.batch}_l{self.length}"

    def tokens(self, phase: str) -> int:
        """Tokens a phase handles."""
        return self.batch * (self.new if phase == "decode" else self.length)

    def ids(self, model: Any) -> Tensor:
        """The same arbitrary tokens for every model (batch, length)."""
        size = model.config.get_text_config().vocab_size
        ids = torch.randint(0, size, (self.batch, self.length), generator=torch.Generator().manual_seed(0))
        return ids.to(next(model.parameters()).device)


@dataclass(frozen=True)
class Turn:
    """Seconds of both phases, and joules where they are counted."""

    decode: float
    prefill: float
    joules: float | None


@dataclass
class Efficiency(Task):
    """Latency, rate, speedup, FLOPs and energy per point of the grid; bytes at the peak, at rest, on disk."""

    of_weights = False

    name: str = "efficiency"
    device: str = "cpu"
    batches: Sequence[int] = (1, 8)  # prompts at a time
    lengths: Sequence[int] = (32, 128)  # tokens of a prompt
    new: int = 4  # tokens written after it
    repeats: int = 10  # turns
    warmup: int = 2  # turns that do not count

    def __post_init__(self) -> None:
        for name in ("batches", "lengths"):
            values = getattr(self, name)
            if isinstance(values, str) or not isinstance(values, Sequence) or not values:
                raise ValueError(f"{self.name}.{name}={values!r} is no list of numbers; valid: as [1,8]")
            for value in values:
                whole(f"{self.name}.{name}", value)
        whole(f"{self.name}.new", self.new)
        whole(f"{self.name}.repeats", self.repeats, least=2)
        whole(f"{self.name}.warmup", self.warmup, least=0)

    @property
    def points(self) -> list[Point]:
        """The grid, the smallest first."""
        return [Point(b, n, self.new) for b in sorted(set(self.batches)) for n in sorted(set(self.lengths))]

    def protocol(self) -> str:
        """Device and threads to read, then the digest of the grid and of this machine."""
        grid = {"points": [vars(p) for p in self.points], "repeats": self.repeats, "warmup": self.warmup}
        machine = hardware(self.device)
        parts = grid | {"device": self.device, "machine": machine, "version": 3}
        return f"speed-{self.device}-t{machine['threads']}-{digest(parts)}"

    def metrics(self) -> Mapping[str, Metric]:
        """The first point's speedup of writing first; all of them told, none judged."""
        found = [m for p in self.points for m in _point_metrics(p)]
        sizes = [Metric(n, higher_is_better=False, margin=None) for n in SIZES]
        return {m.name: m for m in (*found, *sizes)}

    def run(self, model: Any, tokenizer: Any) -> Iterator[Item]:
        """A model beside itself: how much a speedup of nothing scatters."""
        yield from self._sizes(model, {})
        for point in self.points:
            yield from self._point(point, model, model)

    def ask(self, scene: Scene) -> Iterator[Item]:
        """The packed model, alone for its bytes, then by turns with its packed parent."""
        model = scene.model(packed=True)
        yield from self._sizes(model, scene.sizes())
        dense = scene.dense(packed=True)
        for point in self.points:
            yield from self._point(point, model, dense)

    def _sizes(self, model: Any, written: Mapping[str, int]) -> Iterator[Item]:
        """Bytes; the peak is of the largest point that fits the context."""
        fitting = [p for p in self.points if not _too_long(p, model)]
        found = dict.fromkeys(SIZES) | {
            "resident_bytes": resident_bytes(model),
            "file_bytes": written.get("file_bytes"),
        }
        if fitting:
            device = next(model.parameters()).device
            peak = _or_none(lambda: peak_bytes(_once(model, fitting[-1]), device))
            found["peak_bytes"] = peak or None  # 0: the system tells nothing
        for metric, size in found.items():
            yield Item(f"{self.name}/{metric}", metric, size)

    def _point(self, point: Point, model: Any, dense: Any) -> Iterator[Item]:
        """Every metric of a point, or the reason why it has none."""
        if _too_long(point, model):
            yield from self._blank(point, "beyond_context")
            return
        energy, others = Energy(self.device), Others()
        racers = {n: functools.partial(_turn, m, point, energy) for n, m in ((OURS, model), (DENSE, dense))}
        turns = _or_none(lambda: by_turns(racers, self.repeats, self.warmup))
        if turns is None:
            yield from self._blank(point, "beyond_memory")
            return
        beside = _beside(others.busy())
        both, prefill = work_of(_once(model, point)), work_of(_once(model, point, new=0))
        roof = roof_of(next(model.parameters()).device, next(model.parameters()).dtype, resident_bytes(model))
        for phase, work in (("decode", both - prefill), ("prefill", prefill)):
            yield Item(f"{self.name}/{point}", f"flops_{phase}_{point}", work.flops)
            extra = _limits(work, roof, [getattr(t[OURS], phase) for t in turns])
            extra |= beside | {"flags": [*extra["flags"], *beside["flags"]]}
            for i, turn in enumerate(turns):
                yield from self._timed(point, phase, i, turn, extra)
        for i, turn in enumerate(turns):
            blank = {"reason": energy.reason, "flags": ["no_counter"]}
            extra = blank if energy.reason else {"dense": turn[DENSE].joules}
            yield Item(self._id(point, i), f"energy_j_{point}", turn[OURS].joules, extra=extra)

    def _timed(
        self, point: Point, phase: str, i: int, turn: Mapping[str, Turn], extra: Mapping[str, Any]
    ) -> Iterator[Item]:
        """One turn's latency, rate and speedup of a phase."""
        seconds = [getattr(turn[name], phase) for name in (OURS, DENSE)]
        ms = [1000 * s / (point.new if phase == "decode" else 1) for s in seconds]
        found = {
            f"{phase}_ms_{point}": ms,
            f"{phase}_p95_ms_{point}": ms,
            f"{phase}_tps_{point}": [point.tokens(phase) / s for s in seconds],
            f"speedup_{phase}_{point}": [seconds[1] / seconds[0], 1.0],
        }
        for metric, (score, dense) in found.items():
            yield Item(self._id(point, i), metric, score, extra={**extra, "dense": dense})

    def _blank(self, point: Point, why: str) -> Iterator[Item]:
        """No score for any metric of the point."""
        for metric in _point_metrics(point):
            once = metric.name.startswith("flops")
            ids = [f"{self.name}/{point}"] if once else [self._id(point, i) for i in range(self.repeats)]
            for name in ids:
                yield Item(name, metric.name, None, extra={"flags": [why]})

    def _id(self, point: Point, turn: int) -> str:
        return f"{self.name}/{point}/{turn:03d}"


def _point_metrics(point: Point) -> Iterator[Metric]:
    """Of one point, what is wanted most first."""
    for phase in PHASES:
        yield Metric(f"speedup_{phase}_{point}", "median", margin=None)
    for phase in PHASES:
        yield Metric(f"{phase}_ms_{point}", "median", higher_is_better=False, margin=None)
        yield Metric(f"{phase}_p95_ms_{point}", "p95", higher_is_better=False, margin=None)
        yield Metric(f"{phase}_tps_{point}", "median", margin=None)
        yield Metric(f"flops_{phase}_{point}", higher_is_better=False, margin=None)
    yield Metric(f"energy_j_{point}", higher_is_better=False, margin=None)


def _too_long(point: Point, model: Any) -> bool:
    longest = context(model.config)
    return longest is not None and point.length + point.new > longest


def _once(model: Any, point: Point, new: int | None = None) -> Callable[[], Any]:
    return functools.partial(read_and_write, model, point.ids(model), point.new if new is None else new)


def _turn(model: Any, point: Point, energy: Energy) -> Turn:
    """One racer's part of a turn."""
    before = energy.read()
    prefill, decode = _once(model, point)()
    return Turn(decode, prefill, energy.since(before))


def _limits(work: Work, roof: Roof, seconds: Sequence[float]) -> dict[str, Any]:
    """What binds, as a flag of the row, and how much of the best turn's seconds the roofs explain."""
    limits, badge = roof.seconds(work), roof.badge(work)
    share = limits[badge] / min(seconds)
    return {"flags": [f"{badge}_bound"], "limits": limits, "roof": roof.to_json(), "share": share}


def _beside(busy: float | None) -> dict[str, Any]:
    """What ran beside the turns, and a flag where it was much: such a latency is no quiet machine's."""
    loud = busy is not None and busy > SHARE * (os.cpu_count() or 1)
    return {"others": busy, "flags": ["busy"] if loud else []}


def _or_none(run: Callable[[], Any]) -> Any:
    """What it gives; None where memory was not enough."""
    try:
        return run()
    except (torch.OutOfMemoryError, MemoryError):
        return None
    except RuntimeError as error:  # how torch says it on a CPU
        if "can't allocate memory" not in str(error):
            raise
        return None
