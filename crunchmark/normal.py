"""NormalFloat grids, scales quantised too (QLoRA, arXiv:2305.14314; LQ-LoRA, arXiv:2311.12023)."""

from dataclasses import dataclass
from functools import cache
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

BITS = (2, 3, 4, 8)  # of a code, and of a code of a scale
EDGE = 0.9677083  # the last quantile; the grid of 4 bits is then that of bitsandbytes
_TINIEST = torch.finfo(torch.float32).tiny


class NormalGrid(NamedTuple):
    """How finely a weight is rounded: b, b0, B0 and B1 of LQ-LoRA."""

    bits: int  # of a code
    scale_bits: int  # of the code of a block's scale
    block: int  # weights that share a scale
    run: int  # blocks whose scales share their largest

    def __str__(self) -> str:
        return (
            f"{self.bits} bit, blocks of {self.block}, scales of {self.scale_bits} bit in runs of {self.run}"
        )

    def counts(self, weights: int) -> tuple[int, int]:
        """Blocks and runs of so many weights; the last of each may be shorter."""
        blocks = -(-weights // self.block)
        return blocks, -(-blocks // self.run)


def check_normal(grid: NormalGrid) -> None:
    """Check what a grid can get wrong.

    Raises:
        ValueError: a number of bits has no grid, or a block or run is empty.
    """
    for name in ("bits", "scale_bits"):
        value = getattr(grid, name)
        if value not in BITS:
            raise ValueError(f"{name}={value!r} is out of range; valid: {', '.join(map(str, BITS))}")
    for name in ("block", "run"):
        value = getattr(grid, name)
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}={value!r} is out of range; valid: a whole number >= 1")


@cache
def levels(bits: int) -> Tensor:
    """Quantiles of a normal distribution between -1 and 1, with zero among them, (2**bits,) float32.

    Evenly spaced quantiles on either side of the median, one more above it.
    """
    half = 2 ** (bits - 1)
    below = torch.linspace(1 - EDGE, 0.5, half, dtype=torch.float64)[:-1]
    above = torch.linspace(0.5, EDGE, half + 1, dtype=torch.float64)
    last = torch.special.erfinv(torch.tensor(2 * EDGE - 1, dtype=torch.float64)) * sqrt(2)
    found: Tensor = torch.special.ndtri(torch.cat([below, above])) / last  # (2**bits,)
    return found.float()


@dataclass(frozen=True)
class Blocks:
    """A flat weight on the grid: level of the code times the scale of its block."""

    grid: NormalGrid
    codes: Tensor  # (weights,) uint8
    scale: Tensor  # (blocks,) uint8, codes of the scales
    top: Tensor  # (runs,) bfloat16, the largest scale of a run above the offset
    offset: Tensor  # (1,) float32, the smallest scale of all

    def value(self) -> Tensor:
        """What the codes stand for, (weights,) float32."""
        known = levels(self.grid.bits).to(self.codes.device)  # (2**bits,)
        return known[self.codes.int()] * self._by_weight()

    def _by_weight(self) -> Tensor:
        """The scale of every weight, (weights,)."""
        return self.scales().repeat_interleave(self.grid.block)[: len(self.codes)]

    def scales(self) -> Tensor:
        """The scale of every block: code * top / (2**scale_bits - 1) + offset, (blocks,) float32."""
        step = self.top.float() / (2**self.grid.scale_bits - 1)  # (runs,)
        steps: Tensor = step.repeat_interleave(self.grid.run)[: len(self.scale)]  # (blocks,)
        return self.scale.float() * steps + self.offset


def to_normal(weight: Tensor, grid: NormalGrid) -> Blocks:
    """The nearest levels for the scales as they are stored.

    The weight is read as one row. Where blocks do not fill it, the last one is shorter, and so is the last
    run: zeros are thought behind them, and none of these is stored.
    weight: any shape, float32.
    """
    flat, most = weight.flatten(), 2**grid.scale_bits - 1
    peaks = _filled(flat.abs(), grid.block).amax(1)  # (blocks,)
    offset = peaks.min().reshape(1)
    above = _filled(peaks - offset, grid.run)  # (runs, run)
    top = above.amax(1).bfloat16()  # (runs,)
    step = (top.float() / most).clamp(min=_TINIEST)
    scale = (above / step[:, None]).round_().clamp_(0, most).to(torch.uint8).flatten()[: len(peaks)]
    zeros = Blocks(grid, torch.zeros_like(flat, dtype=torch.uint8), scale, top, offset)
    known = levels(grid.bits).to(flat.device)  # (2**bits,)
    steps = flat / zeros._by_weight().clamp(min=_TINIEST)  # a scale of zero makes any code a zero
    codes = torch.bucketize(steps, (known[1:] + known[:-1]) / 2).to(torch.uint8)
    return Blocks(grid, codes, scale, top, offset)


def _filled(flat: Tensor, wide: int) -> Tensor:
    """Rows of that width, with zeros behind the last."""
    return F.pad(flat, (0, -len(flat) % wide)).view(-1, wide)
