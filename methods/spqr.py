"""SpQR (Dettmers et al., ICLR 2024, arXiv:2306.03078): tiny groups, and a few weights that stay."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crunchmark import (
    Bilevel,
    Gram,
    Layer,
    Method,
    Nest,
    Outliers,
    Room,
    Sum,
    Swept,
    Term,
    Usual,
    filled,
    flag,
    number,
    one_of,
    ordinary,
    positive,
    steps_of,
    sweep,
    whole,
)

BLOCK = 128  # columns per lazily updated block, rounded up to whole groups


@dataclass(frozen=True)
class SpQR(Method):
    """GPTQ's sweep on groups whose scales and zeros are rounded too; weights that lose much are kept apart.

    threshold: tau, the loss in units of the layer's variance above which a weight is kept; null: none is.
        In bytes another one is looked for, that with the most bits that fit fills the room.
    group: inputs that share a scale. rows: outputs whose scales share a grid.
    scale_bits: of a scale, and of a zero.
    act_order: columns by falling Hessian diagonal. damp: share of the mean Hessian diagonal added to it.
    """

    threshold: float | None = 0.2
    group: int = 16
    rows: int = 16
    scale_bits: int = 3
    act_order: bool = True
    damp: float = 1.0

    needs = (Gram,)

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        if self.threshold is not None:
            positive("method.threshold", self.threshold)
        for name, value in (("group", self.group), ("rows", self.rows)):
            whole(f"method.{name}", value)
        one_of("method.scale_bits", self.scale_bits, range(1, 9))
        flag("method.act_order", self.act_order)
        number("method.damp", self.damp)

    @property
    def nest(self) -> Nest:
        """How groups share."""
        return Nest(self.group, self.rows, self.scale_bits, self.scale_bits)

    def sizes(self, shape: tuple[int, int], room: Room) -> Sequence[int] | None:
        """Any, for outliers fill what is left; nominal: of every number of bits."""
        return None if room.nominal is None else Bilevel.nominal_sizes(shape)

    def least(self, shape: tuple[int, int], room: Room) -> int:
        """Of 2 bits without outliers."""
        return Bilevel.size(shape, 2, self.nest, self.act_order) + Outliers.size(shape, 0, room.itemsize)

    def compress(self, layer: Layer, room: Room) -> Term:
        """Sweep until the outliers fill what the codes leave; they lie beside their nearest codes."""
        shape, beside = layer.shape, Outliers.size(layer.shape, 0, room.itemsize)
        bits = Bilevel.fits(shape, room, layer.name, self.nest, self.act_order, beside)
        factor = layer[Gram].inverse(self.damp, self.act_order)
        weight = layer.weight.masked_fill(factor.dead, 0.0)[:, factor.order]  # (out, in)
        variance = weight.var(0, correction=min(1, len(weight) - 1))  # (in,)
        unit = float((variance / factor.upper.diagonal().square()).mean())
        bound = math.inf if self.threshold is None else self.threshold * unit

        def run(bound: float) -> Swept:
            return self._swept(weight, factor.upper, bits, bound, room.dtype)

        if room.nominal is not None or bound == math.inf:
            found = run(bound)
        else:
            spare = room.nbytes - beside - Bilevel.size(shape, bits, self.nest, self.act_order)
            found = filled(run, usual(bits, unit), spare // (2 + room.itemsize), weight.numel())
        order, back = factor.order if self.act_order else None, factor.order.argsort()
        term = Bilevel.of(found.codes.T.to(torch.uint8), found.groups, bits, self.nest, order)
        rest = found.rest[back].T  # (out, in)
        both = Sum([term, Outliers.of(rest, rest != 0, room.dtype)])
        both.setting = term.setting
        tau = found.bound / unit if unit and found.bound < math.inf else None
        return both.noted(**factor.notes, outliers=found.count / weight.numel(), threshold=tau)

    def _swept(self, weight: Tensor, upper: Tensor, bits: int, bound: float, dtype: torch.dtype) -> Swept:
        """One sweep; what is set apart loses nothing but its 16-bit rounding."""
        made = Swept.empty(bound, upper.diagonal(), len(weight), dtype)
        rows = zip(made.farthest.tolist(), made.codes, made.lost, made.rest, strict=True)

        def choose(left: Tensor, d: Tensor, j: int) -> Tensor:
            if j % self.group == 0:
                w = ordinary(left[:, : self.group], d[: self.group], bits, bound)  # (out, g)
                made.groups.append(self.nest.grid(w, bits))
            group, w = made.groups[-1], left[:, 0]  # (out,)
            farthest, codes, lost, rest = next(rows)  # (out,) each
            steps_of(w, group.scale, group.zero, bits, out=codes)
            value: Tensor = (codes - group.zero).mul_(group.scale)  # (out,)
            torch.sub(w, value, out=lost)
            rest.copy_(torch.hardshrink(lost, farthest))
            return value.add_(rest)

        sweep(weight, upper, choose, block=-(-BLOCK // self.group) * self.group)
        return made


def usual(bits: int, unit: float) -> Usual:
    """As layers of the built-in model have it; beyond 5 bits scales and zeros lose more than the codes."""
    return Usual({2: 0.8, 3: 0.2, 4: 0.05, 5: 0.015}.get(bits, 0.011) * unit, 0.017, 0.4 if bits < 6 else 0.3)
