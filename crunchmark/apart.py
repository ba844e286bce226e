"""Single weights set apart from a rounding sweep (SpQR, arXiv:2306.03078): which ones, and how many fit."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from crunchmark.rounding import spread, steps_of
from crunchmark.terms import Group

TRIES = 8  # sweeps at most, each with another bound
FILLED = 0.95  # of what may be set apart: more is not worth a sweep


@dataclass
class Swept:
    """What a sweep chose, column by column; a weight is set apart where its loss is above the bound."""

    bound: float
    codes: Tensor  # (in, out) uint8
    rest: Tensor  # (in, out) in the dtype it is stored in, what weights set apart have beyond their codes
    loss: Tensor  # (in, out), e^2 = (w - q)^2 / d^2 of every weight where it is not set apart
    groups: list[Group]

    @classmethod
    def empty(cls, bound: float, shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> "Swept":
        """Nothing chosen yet for a weight of shape (out, in)."""
        none = torch.zeros(shape[::-1])  # (in, out)
        return cls(bound, none.to(torch.uint8), none.to(dtype), none, [])

    @property
    def far(self) -> Tensor:
        """(in, out) bool, what is set apart."""
        return self.loss > self.bound

    @property
    def count(self) -> int:
        """How many are set apart."""
        return int(self.far.sum())

    def bound_of(self, count: int) -> float:
        """The bound that at most so many weights of this sweep are above."""
        return float(self.loss.flatten().kthvalue(max(1, self.loss.numel() - count)).values)


def filled(run: Callable[[float], Swept], start: float, most: int) -> Swept:
    """Of some sweeps the one that sets most weights apart, at most so many.

    Up to the first too low and the first too high, bounds are those that would have been right for the sweep
    before, which overshoot: what is set apart changes what is lost. Between the two it is interpolated.
    """
    bound, goal = start, (1 + FILLED) / 2 * most
    many: Swept | None = None
    best: Swept | None = None
    for _ in range(TRIES if most else 0):
        found = run(bound)
        if found.count > most:
            many = found if many is None or bound > many.bound else many
        elif best is None or found.count >= best.count:
            best = found
        if best is not None and best.count >= FILLED * most:
            break
        bound = found.bound_of(round(goal)) if many is None or best is None else _between(many, best, goal)
    return best or run(math.inf)


def _between(many: Swept, few: Swept, goal: float) -> float:
    """The bound for that many, if counts are a power of it."""
    high, low = math.log(many.count), math.log(few.count + 0.5)
    part = min(0.9, max(0.1, (high - math.log(goal)) / (high - low)))
    return many.bound * math.pow(few.bound / many.bound, part) if many.bound else 0.0


def ordinary(w: Tensor, d: Tensor, bits: int, bound: float) -> Tensor:
    """A group with its likely outliers at the mean of the others.

    Likely is a weight without which the others' grid is so much better that their loss falls by the bound.
    Only without an end of the grid there is another one: what lies between gains its own loss.

    Args:
        w: (out, g), current weights.
        d: (g,), diagonal of the factor of the inverse Hessian.
        bits: of the grid, 2 to 8.
        bound: inf: nothing is likely.

    Returns:
        (out, g).
    """
    if bound == math.inf or w.shape[1] == 1:
        return w
    rows = w.T  # (g, out)
    (lo, first), (hi, last) = rows.min(0, keepdim=True), rows.max(0, keepdim=True)  # (1, out) each
    above = rows.scatter(0, first, math.inf).amin(0, keepdim=True)  # (1, out), least of the others
    below = rows.scatter(0, last, -math.inf).amax(0, keepdim=True)  # (1, out)
    grids = spread(torch.stack([lo, above, lo]), torch.stack([hi, hi, below]), bits)  # (3, 1, out) each
    loss, *without = _loss(rows, d[:, None], *grids, bits)  # (g, out) each
    gain, all_of_it = loss, loss.sum(0, keepdim=True)  # (g, out), (1, out)
    for at, lost in zip((first, last), without, strict=True):
        gain = gain.scatter(0, at, all_of_it - lost.scatter(0, at, 0.0).sum(0, keepdim=True))
    likely = gain > bound  # (g, out)
    mean = rows.masked_fill(likely, 0.0).sum(0) / (~likely).sum(0).clamp(min=1)  # (out,)
    return torch.where(likely, mean, rows).T


def _loss(w: Tensor, d: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """e^2 of weights on grids that broadcast with them."""
    value = steps_of(w, scale, zero, bits).sub_(zero).mul_(scale)
    return value.sub_(w).div_(d).square_()
