"""GPTQ (Frantar et al., ICLR 2023, arXiv:2210.17323): round columns, repair what follows."""

from dataclasses import dataclass

from torch import Tensor

from crunchmark import Columns, Gram, Kept, Layer, Rounder, Term, flag, number, sweep, whole


@dataclass(frozen=True)
class GPTQ(Rounder):
    """Optimal-brain-surgeon sweep of rounding; grids are fitted on the original weight, per group.

    group: inputs that share a scale, -1 for the whole row, null for the finest that fits.
    sym: symmetric grid. act_order: columns by falling Hessian diagonal.
    damp: share of the mean Hessian diagonal added to it. block: columns per lazily updated block.
    """

    act_order: bool = False
    damp: float = 0.01
    block: int = 128

    needs = (Gram,)

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        super().__post_init__()
        flag("method.act_order", self.act_order)
        number("method.damp", self.damp)
        whole("method.block", self.block)

    def rounded(self, layer: Layer, bits: int, group: int, kept: Kept | None = None) -> Term:
        """Column by column in the factor's order; what is pruned stays zero, as any error made up for."""
        factor = layer[Gram].inverse(self.damp, self.act_order)
        weight = layer.weight.masked_fill(factor.dead, 0.0)  # (out, in)
        columns, order = Columns(weight, bits, group, self.sym), factor.order.tolist()

        def choose(left: Tensor, _: Tensor, j: int) -> Tensor:
            value = columns(left[:, 0], order[j])  # (out,)
            return value if kept is None else value.masked_fill(~kept.mask[:, order[j]], 0.0)

        sweep(weight[:, factor.order], factor.upper, choose, block=self.block)
        term = self.stored(columns.codes, columns.scale, columns.zero, bits, group, kept)
        return term.noted(damping=factor.damping)
