"""Single weights set apart from a rounding sweep (SpQR, arXiv:2306.03078): which ones, and how many fit."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from crunchmark.rounding import spread, steps_of
from crunchmark.terms import Group

TRIES = 8  # sweeps at most, each with another bound
FILLED = 0.96  # of what may be set apart: more is not worth a sweep
FLATTEST, STEEPEST = 0.1, 1.0  # slopes that two sweeps may tell
TINIEST = 1e-38  # bound that is looked for
CLOSE = 0.005  # of a bound: one so near to the last is not worth a sweep
Point = tuple[float, float]  # logarithm of a bound, and how much rarer than wanted it is to be above


@dataclass(frozen=True)
class Usual:
    """What is known of losses before any sweep."""

    bound: float
    share: float  # of the weights that is above it
    slope: float  # of log(-log(share)) over the bound's logarithm


@dataclass
class Swept:
    """What a sweep chose, column by column; a weight is set apart where its loss is above the bound."""

    bound: float
    d: Tensor  # (in,), diagonal of the factor of the inverse Hessian
    codes: Tensor  # (in, out) float32, whole numbers
    lost: Tensor  # (in, out), w - q of every weight where it is not set apart
    rest: Tensor  # (in, out) in the dtype it is stored in, the same of weights set apart, 0 elsewhere
    groups: list[Group]

    @classmethod
    def empty(cls, bound: float, d: Tensor, out: int, dtype: torch.dtype = torch.float32) -> "Swept":
        """Nothing chosen yet for a weight of so many rows."""
        codes, lost = d.new_zeros(2, len(d), out)  # (in, out) each
        return cls(bound, d, codes, lost, codes.new_zeros(codes.shape, dtype=dtype), [])

    @property
    def farthest(self) -> Tensor:
        """(in,), what a weight may lose and not be set apart."""
        return self.d * math.sqrt(self.bound)

    @cached_property
    def count(self) -> int:
        """How many are set apart."""
        return int(self.rest.count_nonzero())

    def bound_of(self, count: int) -> float:
        """The bound that at most so many weights of this sweep are above."""
        loss = (self.lost / self.d[:, None]).square_().flatten()  # (in * out,)
        return float(loss.kthvalue(max(1, len(loss) - count)).values)


def filled(run: Callable[[float], Swept], usual: Usual, most: int, size: int) -> Swept:
    """Of some sweeps the one that sets most weights apart, at most so many.

    Bounds are looked for by regula falsi: log(-log(share above)) over log(bound) is nearly straight.

    Args:
        run: a sweep with a bound.
        usual: where the search begins; with bound 0 there is nothing to lose.
        most: weights that may be set apart.
        size: weights there are.
    """

    def rarity(count: float) -> float:
        return math.log(-math.log((count + 0.5) / (size + 1)))

    most = min(most, size)
    if not most or not usual.bound:
        return run(math.inf)
    aim, enough = (1 + FILLED) / 2 * most, max(1, math.floor(FILLED * most))
    at = math.log(usual.bound) + (rarity(aim) - rarity(usual.share * size)) / usual.slope
    best: Swept | None = None
    seen: list[Point] = []
    for _ in range(TRIES):
        found = run(math.exp(at))
        if found.count <= most and (best is None or found.count >= best.count):
            best = found
        seen.append((at, rarity(found.count) - rarity(aim)))
        if 0 < found.count < size / 2:
            at = _onward(seen, usual.slope)
        else:  # what the bound should have been, were the same lost with another one
            at = math.log(max(found.bound_of(round(aim)), TINIEST))
        if best and (best.count >= enough or abs(at - seen[-1][0]) < CLOSE):
            break
    return best or run(math.inf)


def _onward(seen: Sequence[Point], usual: float) -> float:
    """Where to look next: between the ends there are, else on a line through the two nearest points."""
    over, under = [p for p in seen if p[1] < 0], [p for p in seen if p[1] >= 0]
    if over and under:
        (x, off), (x2, off2) = max(over), min(under)
        return x + min(0.9, max(0.1, off / (off - off2))) * (x2 - x)
    (x, off), *others = sorted(seen, key=lambda p: abs(p[1]))
    slopes = [min(STEEPEST, max(FLATTEST, (off2 - off) / (x2 - x))) for x2, off2 in others[:1]]
    return x - off / (*slopes, usual)[0]


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
