"""SqueezeLLM (Kim et al., ICML 2024, arXiv:2306.07629): levels where the loss needs them, row by row."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crunchmark import (
    Fisher,
    Layer,
    Method,
    Outliers,
    Room,
    Sum,
    Table,
    Term,
    divided,
    fraction,
    grid,
    kmeans_of_rows,
    nearest_of_rows,
    top,
    whole,
)

ROWS = 256  # clustered at a time


@dataclass(frozen=True)
class SqueezeLLM(Method):
    """Each row gets the levels of a k-means that weighs errors with squared gradients; some weights stay.

    sensitive: share of a layer's weights that stay because their squared gradient is largest.
    outliers: share that stays because |w| is, of the others; with one fence for the whole model, as in the
        paper, layers have different shares of that mean. iterations: of k-means at most.
    """

    sensitive: float = 0.0005
    outliers: float = 0.004
    iterations: int = 50

    needs = (Fisher,)

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        fraction("method.sensitive", self.sensitive, zero=True)
        fraction("method.outliers", self.outliers, zero=True)
        whole("method.iterations", self.iterations)
        if self.sensitive + self.outliers >= 1:
            both = f"method.sensitive={self.sensitive}, method.outliers={self.outliers}"
            raise ValueError(f"{both} leave no weight; valid: shares with a sum below 1")

    def sizes(self, shape: tuple[int, int], room: Room) -> Sequence[int]:
        """Of every number of bits, beside the weights that stay."""
        return Table.sizes(shape, room, self._beside(shape, room))

    def compress(self, layer: Layer, room: Room) -> Term:
        """What stays is what its level, the one nearest to zero, lacks."""
        bits = Table.fits(layer.shape, room, layer.name, self._beside(layer.shape, room))
        fisher = layer[Fisher].value  # (out, in)
        if not torch.isfinite(fisher).all() or bool((fisher < 0).any()):
            raise ValueError(
                f"{layer.name}: squared gradients hold nan, inf or less than 0; valid: finite ones"
            )
        stays = self._stays(layer.weight, fisher)  # (out, in)
        weights = fisher.masked_fill(stays, 0.0)  # (out, in)
        weights = torch.where((weights > 0).any(1, keepdim=True), weights, (~stays).float())
        rest = layer.weight.masked_fill(stays, 0.0)  # (out, in)
        parts = zip(rest.split(ROWS), weights.split(ROWS), strict=True)
        table = torch.cat([self._table(w, f, bits, room.dtype) for w, f in parts])  # (out, 2^bits)
        codes = nearest_of_rows(rest, table)  # (out, in)
        term = Table.of(codes.to(torch.uint8), table)
        if not any(self._counts(layer.shape)):
            return term
        both = Sum([term, Outliers.of(layer.weight - term.dense(), stays, room.dtype)])
        both.setting = term.setting
        return both.noted(outliers=int(stays.sum()) / stays.numel())

    def _counts(self, shape: tuple[int, int]) -> tuple[int, int]:
        """How many weights stay for each of the two reasons."""
        return int(self.sensitive * shape[0] * shape[1]), int(self.outliers * shape[0] * shape[1])

    def _beside(self, shape: tuple[int, int], room: Room) -> int:
        """Bytes of what stays."""
        kept = sum(self._counts(shape))
        return Outliers.size(shape, kept, room.itemsize) if kept else 0

    def _stays(self, weight: Tensor, fisher: Tensor) -> Tensor:
        """(out, in) bool, exactly as many as there should be."""
        sensitive, outliers = self._counts((weight.shape[0], weight.shape[1]))
        first = top(fisher.flatten(), sensitive)  # (out in,)
        second = top(weight.abs().flatten().masked_fill(first, -1.0), outliers)  # (out in,)
        return (first | second).view_as(weight)

    def _table(self, weight: Tensor, fisher: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
        """Rounding's levels, or k-means from these or from parts of the row: each row's best as stored."""
        scale, zero = grid(weight, bits, sym=False)  # (rows,), (rows,)
        plain = (torch.arange(2**bits) - zero.float().unsqueeze(1)) * scale.float().unsqueeze(1)
        starts = (plain, divided(weight, fisher, 2**bits))  # (rows, 2^bits) each
        moved = (kmeans_of_rows(weight, fisher, start, self.iterations) for start in starts)
        tables = torch.stack([table.to(dtype) for table in (plain, *moved)])  # (3, rows, 2^bits)
        losses = torch.stack([loss(weight, fisher, table) for table in tables])  # (3, rows)
        return tables[losses.argmin(0), torch.arange(len(weight))]


def loss(weight: Tensor, fisher: Tensor, table: Tensor) -> Tensor:
    """Weighted squared error of each row (rows,) with the nearest values of its table."""
    off = table.float().gather(1, nearest_of_rows(weight, table)) - weight  # (rows, in)
    return (off.double().square() * fisher).sum(1)
