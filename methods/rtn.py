"""Round to nearest: the data-free baseline of every quantisation paper (see GPTQ, arXiv:2210.17323)."""

from dataclasses import dataclass

from crunchmark import Kept, Layer, Rounder, Term, grids, round_to


@dataclass(frozen=True)
class RTN(Rounder):
    """Min-max grid per group of inputs with zero on it, nearest level per weight.

    group: inputs that share a scale, -1 for the whole row, null for the finest that fits.
    sym: symmetric grid, no stored zero.
    """

    def rounded(self, layer: Layer, bits: int, group: int, kept: Kept | None = None) -> Term:
        """Every weight on its own."""
        scale, zero = grids(layer.weight, bits, group, self.sym)  # (out, groups)
        parts = layer.weight.unflatten(1, (scale.shape[1], -1))  # (out, groups, inputs per group)
        codes = round_to(parts, scale, zero, bits).flatten(1)  # (out, in)
        return self.stored(codes, scale, zero, bits, group, kept)
