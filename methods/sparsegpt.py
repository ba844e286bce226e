"""SparseGPT (Frantar and Alistarh, ICML 2023, arXiv:2301.00774): prune columns, repair what follows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crunchmark import (
    GRID,
    NM,
    Columns,
    Gram,
    Kept,
    Layer,
    Layout,
    Pruner,
    Room,
    Settings,
    Sparse,
    SparseQuantised,
    Term,
    check_grid,
    check_group,
    number,
    one_of,
    sweep,
    top,
    whole,
)


@dataclass(frozen=True)
class SparseGPT(Pruner):
    """Optimal-brain-surgeon sweep; the mask is chosen on the way by S = w^2 / d^2 (section 3.2).

    run: neighbouring inputs ranked together, 4 with half kept is 2:4; 0 ranks a whole block of columns.
    damp: share of the mean Hessian diagonal added to it. block: columns per lazily updated block.
    bits: of the kept weights, rounded in the same sweep (section 3.4), 2 to 8; null: they stay 16 bit.
    group: inputs that share a grid, found before anything is pruned; -1 for the whole row.
    """

    damp: float = 0.01
    block: int = 128
    bits: int | None = None
    group: int = -1

    needs = (Gram,)

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        super().__post_init__()
        number("method.damp", self.damp)
        whole("method.block", self.block)
        one_of("method.bits", self.bits, (None, *range(2, 9)))
        check_grid(self.group, sym=False)
        if self.group is None:
            raise ValueError("method.group=null is out of range; valid: -1 (whole row) or >= 1")

    @property
    def makes(self) -> frozenset[str]:
        """Zeros, and with bits a grid."""
        return super().makes | ({GRID} if self.bits else frozenset())

    def suits(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        """Runs, and groups of a grid, must fill the rows of every layer."""
        super().suits(shapes)
        for name, (_, wide) in shapes.items():
            check_group(wide, self.group, name)

    def sizes(self, shape: tuple[int, int], room: Room) -> Sequence[int] | None:
        """Of every n of a run; any size where none is set."""
        if self.bits is None or not self.run:
            return super().sizes(shape, room)
        return Settings.of_runs(shape, self.run, self.bits, self.group).sizes(room)

    def least(self, shape: tuple[int, int], room: Room) -> int:
        """The bitmap, and with bits the grids."""
        if self.bits is None:
            return super().least(shape, room)
        return SparseQuantised.least(shape, room, self.bits, self.group)

    def compress(self, layer: Layer, room: Room) -> Term:
        """Sweep the columns of the damped problem; dead inputs get no weight."""
        keep, wide = self._keeps(layer.shape, room, layer.name), layer.shape[1]
        n, drop = keep * self.run // layer.weight.numel(), layer.weight.numel() - keep
        factor = layer[Gram].inverse(self.damp)
        weight = layer.weight.masked_fill(factor.dead, 0.0)  # (out, in)
        columns = None if self.bits is None else Columns(weight, self.bits, self.group)
        gone = torch.zeros_like(weight, dtype=torch.bool)  # (out, in)

        def start(left: Tensor, d: Tensor, lo: int) -> None:
            if self.run:
                return
            hi = lo + left.shape[1]
            quota = drop * hi // wide - drop * lo // wide
            score = (left / d).square()  # (out, hi - lo)
            gone[:, lo:hi] = ~top(score.flatten(), score.numel() - quota).view_as(score)

        def choose(left: Tensor, d: Tensor, j: int) -> Tensor:
            if self.run and j % self.run == 0:  # judged on weights repaired so far
                score = (left[:, : self.run] / d[: self.run]).square()  # (out, run)
                gone[:, j : j + self.run] = ~top(score, n)
            value = left[:, 0] if columns is None else columns(left[:, 0], j)  # (out,)
            return value.masked_fill(gone[:, j], 0.0)

        block = max(self.run, self.block - self.block % (self.run or 1))  # no run straddles two blocks
        swept = sweep(weight, factor.upper, choose, start, block)
        return self._term(swept, ~gone, n, columns, room).noted(**factor.notes)

    def _keeps(self, shape: tuple[int, int], room: Room, what: str) -> int:
        """How many weights of the matrix stay."""
        if self.bits is None:
            n = NM.fits(shape, room, self.run, what) if self.run else 0
            return shape[0] * shape[1] // self.run * n if self.run else Sparse.keeps(shape, room, what)
        if self.run:
            return Settings.of_runs(shape, self.run, self.bits, self.group).fits(room, what)[0]
        return SparseQuantised.keeps(shape, room, what, self.bits, self.group)

    def _term(self, swept: Tensor, mask: Tensor, n: int, columns: Columns | None, room: Room) -> Term:
        if columns is not None:
            kept = Kept(mask, Layout("nm", self.run)) if self.run else Kept(mask)
            return SparseQuantised.of(
                kept, columns.codes, columns.scale, columns.zero, columns.bits, self.group
            )
        return NM.of(swept, mask, n, self.run, room.dtype) if self.run else Sparse.of(swept, mask, room.dtype)
