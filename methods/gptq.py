"""GPTQ (Frantar et al., ICLR 2023, arXiv:2210.17323): round columns, repair what follows."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crunchmark import (
    Gram,
    Layer,
    Method,
    Quantised,
    Room,
    Term,
    check_grid,
    flag,
    grids,
    number,
    round_to,
    sweep,
    value_of,
    whole,
)


@dataclass(frozen=True)
class GPTQ(Method):
    """Optimal-brain-surgeon sweep of rounding; grids are fitted on the original weight, per group.

    group: inputs that share a scale, -1 for the whole row, null for the finest that fits.
    sym: symmetric grid. act_order: columns by falling Hessian diagonal.
    damp: share of the mean Hessian diagonal added to it. block: columns per lazily updated block.
    """

    group: int | None = None
    sym: bool = False
    act_order: bool = False
    damp: float = 0.01
    block: int = 128

    needs = (Gram,)

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        check_grid(self.group, self.sym)
        flag("method.act_order", self.act_order)
        number("method.damp", self.damp)
        whole("method.block", self.block)

    def sizes(self, shape: tuple[int, int], room: Room) -> Sequence[int]:
        """Of every number of bits, with the groups that there are."""
        return Quantised.sizes(shape, room, self.group, self.sym)

    def compress(self, layer: Layer, room: Room) -> Term:
        """Round column by column in the factor's order."""
        bits, group = Quantised.fits(layer.shape, room, layer.name, self.group, self.sym)
        factor = layer[Gram].inverse(self.damp, self.act_order)
        weight = layer.weight.masked_fill(factor.dead, 0.0)  # (out, in)
        scale, zero = grids(weight, bits, group, self.sym)  # (out, groups)
        scales, zeros = scale.T.float().contiguous(), zero.T.float().contiguous()  # (groups, out) each
        order = factor.order.tolist()
        codes = torch.zeros(weight.T.shape, dtype=torch.uint8)  # (in, out)

        def choose(left: Tensor, _: Tensor, j: int) -> Tensor:
            at = 0 if group == -1 else order[j] // group
            code = round_to(left[:, :1], scales[at], zeros[at], bits)  # (out, 1)
            codes[order[j]] = code[:, 0]
            return value_of(code, scales[at], zeros[at])[:, 0]  # (out,)

        sweep(weight[:, factor.order], factor.upper, choose, block=self.block)
        term = Quantised.of(codes.T, scale, None if self.sym else zero, bits, group)
        return term.noted(damping=factor.damping)
