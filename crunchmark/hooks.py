"""Hooks: statistics of layers' inputs, gradients of their outputs, and the calls of a module."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from crunchmark.stats import InputStat, Stat
from crunchmark.view import Site

Stats = Mapping[type[Stat], Stat]
Call = tuple[tuple[Any, ...], dict[str, Any]]  # arguments of a module; of a block, without hidden states


class Enough(Exception):
    """Every watched layer of a block has seen its input, which a pass shows it once: no need to go on."""


def _gather(
    stats: Sequence[InputStat], name: str, seen: Callable[[], None]
) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    """A forward pre-hook that updates the statistics with the module's input."""

    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        try:
            for stat in stats:
                stat.update(args[0])
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        seen()

    return hook


def of_inputs(needs: Sequence[type[Stat]]) -> list[type[InputStat]]:
    """Those of the needs that a walk gathers, each once."""
    return [kind for kind in dict.fromkeys(needs) if issubclass(kind, InputStat)]


@contextmanager
def watching(
    sites: Sequence[Site], needs: Sequence[type[Stat]], stop: nn.Module | None = None
) -> Iterator[dict[str, Stats]]:
    """Inside, forward passes fill the statistics, once per input group; hooks never outlive it.

    stop: a block whose passes end with `Enough` once each group was seen in them.
    """
    kinds = of_inputs(needs)
    groups: dict[str, Stats] = {}
    seen: set[str] = set()

    def tick(group: str) -> None:
        seen.add(group)
        if stop is not None and len(seen) == len(groups):
            raise Enough

    with ExitStack() as stack:
        if stop is not None:
            stack.callback(stop.register_forward_pre_hook(lambda *_: seen.clear()).remove)
        for site in sites:
            if site.group not in groups:
                stats = [kind.zero(site.shape[1]) for kind in kinds]
                groups[site.group] = dict(zip(kinds, stats, strict=True))
                hook = _gather(stats, site.name, partial(tick, site.group))
                stack.callback(site.module.register_forward_pre_hook(hook).remove)
        yield {site.name: groups[site.group] for site in sites}


@contextmanager
def sloping(sites: Sequence[Site], take: Callable[[str, Tensor, Tensor], None]) -> Iterator[None]:
    """Inside, backward passes tell a layer's name, its input, and the gradient of what it made of it."""

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def forward(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
            if out.requires_grad:
                out.register_hook(lambda slope: take(name, args[0], slope))

        return forward

    with ExitStack() as stack:
        for site in sites:
            stack.callback(site.module.register_forward_hook(watch(site.name)).remove)
        yield


@contextmanager
def recording(module: nn.Module) -> Iterator[list[Call]]:
    """Inside, the list grows by what the module is called with."""
    calls: list[Call] = []
    hook = module.register_forward_pre_hook(lambda m, *call: calls.append(call), with_kwargs=True)
    with ExitStack() as stack:
        stack.callback(hook.remove)
        yield calls
