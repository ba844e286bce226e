"""Round to nearest: the data-free baseline of every quantisation paper (see GPTQ, arXiv:2210.17323)."""

from collections.abc import Sequence
from dataclasses import dataclass

from crunchmark import Layer, Method, Quantised, Room, Term, check_grid, grids, round_to


@dataclass(frozen=True)
class RTN(Method):
    """Min-max grid per group of inputs with zero on it, nearest level per weight.

    group: inputs that share a scale, -1 for the whole row, null for the finest that fits.
    sym: symmetric grid, no stored zero.
    """

    group: int | None = None
    sym: bool = False

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        check_grid(self.group, self.sym)

    def sizes(self, shape: tuple[int, int], room: Room) -> Sequence[int]:
        """Of every number of bits, with the groups that there are."""
        return Quantised.sizes(shape, room, self.group, self.sym)

    def compress(self, layer: Layer, room: Room) -> Term:
        """Round to the most bits that fit."""
        bits, group = Quantised.fits(layer.shape, room, layer.name, self.group, self.sym)
        scale, zero = grids(layer.weight, bits, group, self.sym)  # (out, groups)
        parts = layer.weight.unflatten(1, (scale.shape[1], -1))  # (out, groups, inputs per group)
        codes = round_to(parts, scale, zero, bits).flatten(1)  # (out, in)
        return Quantised.of(codes, scale, None if self.sym else zero, bits, group)
