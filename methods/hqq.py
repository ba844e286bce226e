"""HQQ: a real-valued zero point by half-quadratic splitting (Badri and Shaji, Mobius Labs blog, 2023)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crunchmark import (
    Layer,
    Method,
    Quantised,
    Room,
    Term,
    check_grid,
    fraction,
    grids,
    number,
    positive,
    snap,
    stored_scale,
    value_of,
    whole,
)


@dataclass(frozen=True)
class HQQ(Method):
    """Least sum of |W - Q|^p over the zero of every group; its scale is that of the smallest and largest.

    group: inputs that share a scale and a zero, -1 for the whole row, null for the finest that fits.
    p: below 1, so that few large errors are let be. beta: how close the split error is to the error, at
        first; it grows by `kappa` every iteration. Errors below beta^(-1 / (2 - p)), 0.17 as it comes, are
        split to nothing: for weights of language models each iterate is the least-squares zero of the last.
    judge: norm of the error by which the best of all iterates is chosen, group by group.
    bits: of every weight, 2 to 8, null for the most that fit.
    """

    group: int | None = None
    p: float = 0.7
    beta: float = 10.0
    kappa: float = 1.01
    iterations: int = 20
    judge: float = 2.0
    bits: int | None = None

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        check_grid(self.group, False, self.bits)
        fraction("method.p", self.p, one=True)
        positive("method.beta", self.beta)
        number("method.kappa", self.kappa, 1.0)
        whole("method.iterations", self.iterations)
        positive("method.judge", self.judge)

    def sizes(self, shape: tuple[int, int], room: Room) -> Sequence[int]:
        """Of every number of bits that may be, with the groups that there are."""
        return Quantised.sizes(shape, room, self.group, bits=self.bits, real=True)

    def compress(self, layer: Layer, room: Room) -> Term:
        """The best of all iterates per group, plain rounding with its whole zero among them."""
        bits, group = Quantised.fits(layer.shape, room, layer.name, self.group, bits=self.bits, real=True)
        scale, zero = grids(layer.weight, bits, group, sym=False)  # (out, groups)
        parts, zero = layer.weight.unflatten(1, (scale.shape[1], -1)), zero.half()  # (out, groups, g)
        least = self.error(parts, scale, zero, bits)  # (out, groups)
        for s, z in self.iterates(parts, bits):
            error = self.error(parts, s, z, bits)
            better = error < least
            scale, zero = torch.where(better, s, scale), torch.where(better, z, zero)
            least = torch.where(better, error, least)
        codes = snap(parts, scale.float(), zero.float(), bits).flatten(1)  # (out, in)
        return Quantised.of(codes, scale, zero, bits, group)

    def error(self, w: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
        """Sum of |W - Q|^judge of each group, (out, groups)."""
        off = w - value_of(snap(w, scale.float(), zero.float(), bits), scale, zero)
        return off.abs().pow(self.judge).sum(-1)

    def iterates(self, w: Tensor, bits: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Scales and zeros as stored, (out, groups) float16: the split error, then the zero that fits it."""
        low, high = w.amin(-1), w.amax(-1)
        scale = stored_scale((high - low) / (2**bits - 1))
        zero, beta = -low / scale.float(), self.beta
        for _ in range(self.iterations):
            yield scale, zero.half()
            codes = snap(w, scale.float(), zero.float(), bits)
            off = w - value_of(codes, scale, zero)
            split = off.sign() * (off.abs() - off.abs().pow(self.p - 1) / beta).clamp(min=0)
            zero = (codes - (w - split) / scale.float().unsqueeze(-1)).mean(-1)
            beta *= self.kappa
