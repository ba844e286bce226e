"""A pruner, then a rounder that keeps its zeros: SparseGPT's joint sweep (arXiv:2301.00774) in two steps."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from crunchmark import (
    Kept,
    Layer,
    Layout,
    Method,
    Pruner,
    Room,
    Rounder,
    Settings,
    SparseQuantised,
    Term,
    check_group,
    check_stages,
    fraction,
    groups_for,
    one_of,
)

VALID = {"first": "magnitude, wanda, sparsegpt", "then": "rtn, gptq"}


@dataclass(frozen=True)
class Pipeline(Method):
    """Prune, then round what is left; of sparsity and bits one is null and follows from the room.

    first: the method that prunes; its run makes it N:M. then: the method that rounds what is kept.
    sparsity: share of the weights that go, the same in every layer; null: what fits.
    bits: of the kept weights, 2 to 8; null: the most that fit.
    """

    first: Pruner
    then: Rounder
    sparsity: float | None = None
    bits: int | None = 4

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        check_stages(self.first, self.then, VALID)
        one_of("method.bits", self.bits, (None, *range(2, 9)))
        told = f"method.sparsity={self.sparsity!r} and method.bits={self.bits!r}"
        if (self.sparsity is None) == (self.bits is None):
            raise ValueError(f"{told} do not go together; valid: exactly one of them null")
        if self.sparsity is not None:
            fraction("method.sparsity", self.sparsity)
            run = self.first.run
            if run and abs(run * self.sparsity - round(run * self.sparsity)) > 1e-9:
                valid = ", ".join(f"{n / run:g}" for n in range(1, run))
                raise ValueError(f"method.sparsity={self.sparsity} is no n of {run} inputs; valid: {valid}")
        stages = (self.first, self.then)
        object.__setattr__(self, "needs", tuple(dict.fromkeys(n for stage in stages for n in stage.needs)))
        object.__setattr__(self, "random", any(stage.random for stage in stages))

    def suits(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        """Both stages must go with every layer."""
        self.first.suits(shapes)
        self.then.suits(shapes)
        for name, (_, wide) in shapes.items():
            check_group(wide, groups_for(wide, self.then.group)[0], name)

    def sizes(self, shape: tuple[int, int], room: Room) -> Sequence[int] | None:
        """Of every number of bits, or every n of a run; any size where single weights go to fit."""
        settings = self._settings(shape)
        return None if settings is None else settings.sizes(room)

    def least(self, shape: tuple[int, int], room: Room) -> int:
        """Bitmap and grids."""
        return SparseQuantised.least(shape, room, self.bits or 2, self._usual(shape), self.then.sym)

    def compress(self, layer: Layer, room: Room) -> Term:
        """The rounder sees what the pruner left, and which weights that is."""
        keep, bits, group = self._choose(layer, room)
        pruned = self.first.compress(layer, Room(0, keep / layer.weight.numel(), torch.float32))
        kept = Kept.of(pruned)
        kept.check(pruned.dense(), layer.name, "method.first", keep)
        term = self.then.rounded(replace(layer, weight=pruned.dense()), bits, group, kept)
        kept.check(term.dense(), layer.name, "method.then", keep)
        return term.noted(**{**pruned.notes, **term.notes}, sparsity=1 - kept.count / kept.mask.numel())

    def _choose(self, layer: Layer, room: Room) -> tuple[int, int, int]:
        """Weights kept, bits and group that fit; equally many in every row, as some pruners want it."""
        settings = self._settings(layer.shape)
        if settings is not None:
            return settings.fits(room, layer.name)
        bits, group, (out, _) = self.bits or 2, self._usual(layer.shape), layer.shape
        keep = SparseQuantised.keeps(layer.shape, room, layer.name, bits, group, self.then.sym)
        return keep // out * out, bits, group

    def _settings(self, shape: tuple[int, int]) -> Settings | None:
        """What a room chooses from; None: as many single weights as fit."""
        (out, wide), run = shape, self.first.run
        if self.sparsity is not None:
            keep = out * (wide - math.floor(self.sparsity * wide + 1e-9))
            layout = Layout("nm", run) if run else Layout()
            groups = groups_for(wide, self.then.group)
            return Settings(shape, [keep], range(8, 1, -1), groups, self.then.sym, layout)
        if run:
            return Settings.of_runs(shape, run, self.bits or 2, self._usual(shape), self.then.sym)
        return None

    def _usual(self, shape: tuple[int, int]) -> int:
        """Where the room decides the sparsity: the group given, else the widest of those that divide in."""
        return max(groups_for(shape[1], self.then.group))
