"""Rounding to the nearest level of a min-max grid: the baseline, and what cleverer rounding is tried with."""

from dataclasses import dataclass

from crunchmark.interface import Layer
from crunchmark.rounding import nearest_codes
from crunchmark.stages import Rounder
from crunchmark.terms import Kept, Term


@dataclass(frozen=True)
class Rounded(Rounder):
    """Every weight on its own."""

    def rounded(self, layer: Layer, bits: int, group: int, kept: Kept | None = None) -> Term:
        """The nearest codes."""
        codes, scale, zero = nearest_codes(layer.weight, bits, group, self.sym)  # (out, in), (out, groups)
        return self.stored(codes, scale, zero, bits, group, kept)
