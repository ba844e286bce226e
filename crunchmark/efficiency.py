"""What a speed is made of: turns beside the dense parent, counts of what runs, roofs of this machine."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from crunchmark.machine import measured

T = TypeVar("T")
Clock = Callable[[], float]
ATEN = torch.ops.aten
CPU_ATTENTION = ATEN._scaled_dot_product_flash_attention_for_cpu
SIDE = {"cpu": 768, "cuda": 8192}  # of the square matrices whose product shows the peak rate
LEAST, MOST = 2**20, 2**28  # bytes copied to show the bandwidth
OPS = 500  # calls that show what a call costs
FREE = (torch.ops.aten._unsafe_view.default,)  # moves nothing either, though it calls itself no view
TRIES = 5  # the best counts: a roof is what is possible


def by_turns(racers: Mapping[str, Callable[[], T]], repeats: int, warmup: int) -> list[dict[str, T]]:
    """What each racer gives, per turn; every second turn the other way round, so that drift hits all alike.

    repeats: turns that count.
    warmup: turns before them that do not.
    """
    turns, order = [], list(racers)
    for turn in range(warmup + repeats):
        found = {name: racers[name]() for name in (order if turn % 2 == 0 else order[::-1])}
        if turn >= warmup:
            turns.append(found)
    return turns


@torch.no_grad()
def read_and_write(
    model: Any, ids: Tensor, new: int, clock: Clock = time.perf_counter
) -> tuple[float, float]:
    """Seconds of reading ids (batch, length) up to the first greedy token, and of `new` steps from there."""
    _wait(ids.device)
    start = clock()
    out = model(input_ids=ids, use_cache=True, logits_to_keep=1)
    token = out.logits[:, -1:].argmax(-1)  # (batch, 1)
    _wait(ids.device)
    middle = clock()
    for _ in range(new):
        out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
        token = out.logits[:, -1:].argmax(-1)
    _wait(ids.device)
    return middle - start, clock() - middle


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Work:
    """What a run asked of the machine."""

    flops: int = 0  # of products and attention; a multiplication and an addition are two
    ops: int = 0  # calls that compute or move something
    bytes: int = 0  # that these calls read and wrote, caches aside

    def __sub__(self, other: "Work") -> "Work":
        """What is left without the other."""
        return Work(self.flops - other.flops, self.ops - other.ops, self.bytes - other.bytes)


class _Tally(TorchDispatchMode):
    """Counts calls and the bytes of their tensors; views cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.ops = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and func not in FREE:
            self.ops += 1
            looked_up = func is torch.ops.aten.embedding.default  # of its table only what comes out is read
            leaves = tree_leaves((args[1:], out, out) if looked_up else (args, kwargs, out))
            tensors = [t for t in leaves if isinstance(t, Tensor)]
            self.bytes += sum(t.numel() * t.element_size() for t in tensors)
        return out


def work_of(run: Callable[[], Any]) -> Work:
    """What one run asks for, counted while it runs."""
    counter = FlopCounterMode(display=False, custom_mapping={CPU_ATTENTION: _attention, **KERNELS})
    with torch.no_grad(), _Tally() as tally, counter:
        run()
    return Work(counter.get_total_flops(), tally.ops, tally.bytes)


def _product(x: Any, *args: Any, out_shape: Any, **kwargs: Any) -> int:
    """Rows of x by a packed weight; torch's counter does not know these operators."""
    return int(2 * x[0] * x[1] * out_shape[-1])


KERNELS = dict.fromkeys(
    (ATEN._weight_int8pack_mm, ATEN._weight_int4pack_mm_for_cpu, ATEN._weight_int4pack_mm), _product
)


def _attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    """Two products of every query with every key; torch's counter leaves out attention on a CPU."""
    batch, heads, length, width = query
    return int(2 * batch * heads * length * key[-2] * (width + value[-1]))


def resident_bytes(model: nn.Module) -> int:
    """Parameters and buffers, what is shared once."""
    tensors = {t.data_ptr(): t for t in (*model.parameters(), *model.buffers()) if t.numel()}
    return sum(t.numel() * t.element_size() for t in tensors.values())


def peak_bytes(run: Callable[[], Any], device: torch.device) -> int:
    """Peak while it runs: tensors on a GPU; on a CPU all that the process holds, Python and torch with it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return int(torch.cuda.max_memory_allocated(device))
    with measured() as stage:
        run()
    return stage.peak_bytes


@dataclass(frozen=True)
class Roof:
    """What this machine can do at best."""

    flops: float  # per second, of a large product
    bytes: float  # per second, read and written by a copy of the size of the model
    launch: float  # seconds of a linear layer that has next to nothing to do

    def seconds(self, work: Work) -> dict[str, float]:
        """How long the work takes at least, were there only this limit."""
        return {
            "compute": work.flops / self.flops,
            "memory": work.bytes / self.bytes,
            "launch": work.ops * self.launch,
        }

    def badge(self, work: Work) -> str:
        """The limit that binds: compute, memory or launch."""
        limits = self.seconds(work)
        return max(limits, key=lambda name: limits[name])

    def to_json(self) -> dict[str, float]:
        """Its numbers."""
        return asdict(self)


def roof_of(device: torch.device, dtype: torch.dtype, size: int) -> Roof:
    """Measured in well under a second; size: bytes of the model, in whose cache level copies are timed."""
    return _roof(str(device), dtype, 1 << (min(max(size, LEAST), MOST) - 1).bit_length())


@cache
@torch.no_grad()
def _roof(device: str, dtype: torch.dtype, size: int) -> Roof:
    side, where = SIDE[torch.device(device).type], torch.device(device)
    a = torch.randn(side, side, device=where).to(dtype)
    source = torch.zeros(size, dtype=torch.uint8, device=where)
    target = torch.zeros_like(source)
    one, layer = torch.zeros(1, 1, device=where, dtype=dtype), nn.Linear(1, 1, device=where, dtype=dtype)

    def calls() -> None:
        for _ in range(OPS):
            layer(one)

    return Roof(
        flops=2 * side**3 / _best(lambda: a @ a, where),
        bytes=2 * size / _best(lambda: target.copy_(source), where),
        launch=_best(calls, where) / OPS,
    )


def _best(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds of the best of some runs."""
    found = []
    for _ in range(1 + TRIES):
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        found.append(time.perf_counter() - start)
    return min(found[1:])
