"""LQ-LoRA, untrained (Guo et al., ICLR 2024, arXiv:2311.12023): W ~ NormalFloat + low rank, in turns."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Any

import torch
from torch import Tensor

from crunchmark import (
    DENSE_BYTES,
    Blocks,
    Fisher,
    Layer,
    LowRank,
    Method,
    NormalFloat,
    NormalGrid,
    Room,
    Stat,
    Sum,
    Term,
    Weighed,
    flag,
    fraction,
    to_normal,
    whole,
)


@dataclass(frozen=True)
class Pair:
    """Q and the factors of L, none where Q alone is better."""

    blocks: Blocks
    b: Tensor | None = None  # (out, rank)
    a: Tensor | None = None  # (rank, in)
    tried: int = 0  # iterations


@dataclass(frozen=True)
class LQLoRA(Method):
    """In turns L = SVD_r(W - Q) and Q = NF(W - L), from Q = 0 until the error rises; the best pair is kept.

    The error is |sqrt(F) * (W - Q - L)|^2, F ones or the Fisher information; then L is found for
    D_row (W - Q) D_col, with D^2 the means of F. The paper trains L afterwards; this does not.
    rank: of L at most, 0 for NormalFloat alone. share: of the bytes that L takes at most, beyond one rank.
    iterations: at most. fisher: weigh errors by F.
    """

    rank: int = 64
    share: float = 0.2
    iterations: int = 100
    fisher: bool = False

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        whole("method.rank", self.rank, least=0)
        fraction("method.share", self.share)
        whole("method.iterations", self.iterations)
        flag("method.fisher", self.fisher)

    @property
    def needs(self) -> tuple[type[Stat], ...]:  # type: ignore[override]
        """The Fisher information where it weighs errors."""
        return (Fisher,) if self.fisher else ()

    def sizes(self, shape: tuple[int, int], room: Room) -> Sequence[int]:
        """Of every grid that pays, each with its own L."""
        return NormalFloat.sizes(shape, room, beside=partial(self._beside, shape, room))

    def compress(self, layer: Layer, room: Room) -> Term:
        """The finest grid that fits beside its L; found once for all rooms with that grid."""
        beside = partial(self._beside, layer.shape, room)
        grid = NormalFloat.fits(layer.shape, room, layer.name, beside=beside)
        rank = self._rank(layer.shape, room, NormalFloat.size(layer.shape, grid))
        key = f"pair {grid}, rank {rank}, {room.dtype}"
        pair = layer.memo(key, lambda: self._pair(layer, grid, rank, room.dtype))
        found = NormalFloat.of(layer.shape, pair.blocks)
        told: dict[str, Any] = {"iterations": pair.tried}
        if self.fisher and not layer[Fisher].value.any():
            told["note"] = "no gradient: every weight costs the same"
        if pair.b is None or pair.a is None:
            return found.noted(rank=0, **told)
        low = LowRank.of(pair.b, pair.a, room.dtype)
        both = Sum([found, low]).noted(rank=rank, **told)
        both.setting = found.setting
        return both

    def _rank(self, shape: tuple[int, int], room: Room, size: int) -> int:
        """The rank beside a grid of that size."""
        most = int(self.share / (1 - self.share) * size) // self._one(shape, room)
        return min(self.rank, *shape, max(1, most))

    def _beside(self, shape: tuple[int, int], room: Room, size: int) -> int:
        """Bytes of L (nominal: in 16 bit)."""
        return self._rank(shape, room, size) * self._one(shape, room)

    def _one(self, shape: tuple[int, int], room: Room) -> int:
        return (room.itemsize if room.nominal is None else DENSE_BYTES) * sum(shape)

    def _pair(self, layer: Layer, grid: NormalGrid, rank: int, dtype: torch.dtype) -> Pair:
        """The best of all iterates, and of Q alone; L is rounded to its dtype before Q makes up for it."""
        weight = lost = layer.weight  # (out, in) each
        prices = layer[Fisher].value if self.fisher else torch.ones_like(weight)
        weighed = Weighed.by(prices, layer.name)
        best, last = Pair(to_normal(weight, grid)), inf
        least = weighed.error(weight - best.blocks.value().view_as(weight))
        for tried in range(1, self.iterations + 1 if rank else 1):
            b, a = (t.to(dtype).float() for t in weighed.truncated(lost, rank))  # (out, r), (r, in)
            rest = weight - b @ a  # (out, in)
            blocks = to_normal(rest, grid)
            value = blocks.value().view_as(weight)  # (out, in)
            error, lost = weighed.error(rest - value), weight - value
            best = replace(best, tried=tried)
            if error < least:
                best, least = Pair(blocks, b, a, tried), error
            if error >= last:
                break
            last = error
        return best
