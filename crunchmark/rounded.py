"""Rounding to the nearest level of a min-max grid: the baseline, and what cleverer rounding is tried with."""

from collections.abc import Sequence
from dataclasses import dataclass

from crunchmark.budget import Room
from crunchmark.interface import Layer, Method
from crunchmark.rounding import check_grid, nearest_codes
from crunchmark.terms import Quantised, Term


@dataclass(frozen=True)
class Rounded(Method):
    """A method whose settings are bits and groups.

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
        codes, scale, zero = nearest_codes(layer.weight, bits, group, self.sym)
        return Quantised.of(codes, scale, None if self.sym else zero, bits, group)
