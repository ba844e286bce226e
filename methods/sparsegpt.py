"""SparseGPT (Frantar and Alistarh, ICML 2023, arXiv:2301.00774): prune columns, repair what follows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crunchmark import NM, Factor, Gram, Layer, Method, Room, Sparse, Term, number, sweep, top, whole


@dataclass(frozen=True)
class SparseGPT(Method):
    """Optimal-brain-surgeon sweep; the mask is chosen on the way by S = w^2 / d^2 (section 3.2).

    run: neighbouring inputs ranked together, 4 with half kept is 2:4; 0 ranks a whole block of columns.
    damp: share of the mean Hessian diagonal added to it. block: columns per lazily updated block.
    """

    run: int = 0
    damp: float = 0.01
    block: int = 128

    needs = (Gram,)

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        whole("method.run", self.run, least=0)
        number("method.damp", self.damp)
        whole("method.block", self.block)

    def suits(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        """Runs must fill the rows of every layer."""
        NM.suits(shapes, self.run)

    def sizes(self, shape: tuple[int, int], room: Room) -> Sequence[int] | None:
        """Of every n of a run; any size where none is set."""
        return NM.sizes(shape, room, self.run) if self.run else None

    def least(self, shape: tuple[int, int], room: Room) -> int:
        """The bitmap."""
        return Sparse.least(shape, room)

    def compress(self, layer: Layer, room: Room) -> Term:
        """Sweep the columns of the damped problem; dead inputs get no weight."""
        return self._runs(layer, room) if self.run else self._blocks(layer, room)

    def _problem(self, layer: Layer) -> tuple[Tensor, Factor]:
        """The weight (out, in) without dead inputs, and the factor of the inverse."""
        factor = layer[Gram].inverse(self.damp)
        return layer.weight.masked_fill(factor.dead, 0.0), factor

    def _blocks(self, layer: Layer, room: Room) -> Term:
        """The lowest scores of every block go, so that the whole matrix keeps what fits."""
        drop = layer.weight.numel() - Sparse.keeps(layer.shape, room, layer.name)
        weight, factor = self._problem(layer)
        gone = torch.zeros_like(weight, dtype=torch.bool)  # (out, in)

        def start(left: Tensor, d: Tensor, lo: int) -> None:
            hi = lo + left.shape[1]
            quota = drop * hi // weight.shape[1] - drop * lo // weight.shape[1]
            score = (left / d).square()  # (out, hi - lo)
            gone[:, lo:hi] = ~top(score.flatten(), score.numel() - quota).view_as(score)

        def choose(left: Tensor, d: Tensor, j: int) -> Tensor:
            return left[:, 0].masked_fill(gone[:, j], 0.0)  # (out,)

        swept = sweep(weight, factor.upper, choose, start, self.block)
        return Sparse.of(swept, ~gone, room.dtype).noted(damping=factor.damping)

    def _runs(self, layer: Layer, room: Room) -> Term:
        """Keep n of every run, judged when the sweep reaches it, on weights repaired so far."""
        keep = NM.fits(layer.shape, room, self.run, layer.name)
        weight, factor = self._problem(layer)
        gone = torch.zeros_like(weight, dtype=torch.bool)  # (out, in)

        def choose(left: Tensor, d: Tensor, j: int) -> Tensor:
            if j % self.run == 0:
                score = (left[:, : self.run] / d[: self.run]).square()  # (out, run)
                gone[:, j : j + self.run] = ~top(score, keep)
            return left[:, 0].masked_fill(gone[:, j], 0.0)  # (out,)

        block = max(self.run, self.block - self.block % self.run)  # a run never straddles two blocks
        swept = sweep(weight, factor.upper, choose, block=block)
        return NM.of(swept, ~gone, keep, self.run, room.dtype).noted(damping=factor.damping)
