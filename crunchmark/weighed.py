"""Squared errors of a weight, each entry at its own price, and low rank under them (arXiv:2311.12023)."""

from dataclasses import dataclass
from math import inf
from typing import Self

import torch
from torch import Tensor

from crunchmark.branch import truncated

FLOOR = 1e-3  # of the largest row or column: what hardly matters is not divided by next to nothing


@dataclass(frozen=True)
class Weighed:
    """Prices of a weight's entries, and roots of their means: a price is about a row's times a column's."""

    each: Tensor  # (out, in), the largest 1: no error depends on the unit
    rows: Tensor  # (out, 1), the largest 1
    cols: Tensor  # (1, in), the largest 1

    @classmethod
    def by(cls, prices: Tensor, what: str) -> Self:
        """Prices (out, in) of the layer of that name; where all are zero every entry costs the same.

        Raises:
            ValueError: one is not finite or below zero.
        """
        most = float(prices.max())
        if not most < inf or not bool((prices >= 0).all()):
            raise ValueError(f"squared gradients of {what} reach {most}; valid: finite, none below 0")
        each = prices / most if most else torch.ones_like(prices)
        means = (each.mean(dim, keepdim=True).sqrt() for dim in (1, 0))
        return cls(each, *(mean.div(mean.max()).clamp(min=FLOOR) for mean in means))

    def error(self, lost: Tensor) -> float:
        """The sum of price * square."""
        return float((lost.square() * self.each).sum(dtype=torch.float64))

    def truncated(self, lost: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        """Factors (out, r), (r, in) closest to what was lost, were a price a row's times a column's."""
        b, a, _ = truncated(self.rows * lost * self.cols, None, rank)
        return b / self.rows, a / self.cols
