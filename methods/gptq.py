"""GPTQ (Frantar et al., ICLR 2023, arXiv:2210.17323): round columns, repair what follows."""

from dataclasses import dataclass

from crunchmark import Gram, Kept, Layer, Rounder, Term, flag, number, round_columns, whole


@dataclass(frozen=True)
class GPTQ(Rounder):
    """Optimal-brain-surgeon sweep of rounding; grids are fitted on the original weight, per group.

    group: inputs that share a scale, -1 for the whole row, null for the finest that fits.
    sym: symmetric grid. bits: of every weight, 2 to 8, null for the most that fit.
    act_order: columns by falling Hessian diagonal. damp: share of the mean Hessian diagonal added to it.
    block: columns per lazily updated block.
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
        mask = None if kept is None else kept.mask
        columns = round_columns(layer.weight, factor, bits, group, self.sym, self.block, mask)
        term = self.stored(columns.codes, columns.scale, columns.zero, bits, group, kept)
        return term.noted(**factor.notes)
