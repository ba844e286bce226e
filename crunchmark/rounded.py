"""Rounding to the nearest level of a min-max grid: the baseline, and what cleverer rounding is tried with."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from crunchmark.budget import Room
from crunchmark.checks import naming
from crunchmark.interface import Layer
from crunchmark.rounding import nearest_codes, nearest_values
from crunchmark.stages import Rounder
from crunchmark.terms import Dense, Kept, Quantised, Term


@dataclass(frozen=True)
class Rounded(Rounder):
    """Every weight on its own."""

    def rounded(self, layer: Layer, bits: int, group: int, kept: Kept | None = None) -> Term:
        """The nearest codes."""
        codes, scale, zero = nearest_codes(layer.weight, bits, group, self.sym)  # (out, in), (out, groups)
        return self.stored(codes, scale, zero, bits, group, kept)


@dataclass(frozen=True)
class Grid:
    """How a layer is rounded to fit its room; no bits: not at all, it stays dense."""

    room: Room
    bits: int = 0
    group: int = -1
    sym: bool = False
    what: str = ""  # the layer's name, for complaints

    @classmethod
    def fits(
        cls,
        shape: tuple[int, int],
        room: Room,
        what: str,
        group: int | None,
        sym: bool,
        bits: int | None = None,
    ) -> Self:
        """Dense where the room allows it, else as `Quantised.fits` says.

        Raises:
            ValueError: group does not divide in.
            Unreachable: no setting fits.
        """
        if room.whole(shape):
            return cls(room, what=what)
        return cls(room, *Quantised.fits(shape, room, what, group, sym, bits), sym, what)

    def value(self, w: Tensor) -> Tensor:
        """The weight (out, in) as it will be, float32.

        Raises:
            ValueError: its levels are further apart than what holds them; names the layer.
        """
        if not self.bits:
            return w.to(self.room.dtype).float()
        with naming(self.what):
            return nearest_values(w, self.bits, self.group, self.sym)

    def term(self, w: Tensor) -> Term:
        """The weight (out, in) as it is stored.

        Raises:
            ValueError: its levels are further apart than what holds them; names the layer.
        """
        if not self.bits:
            return Dense.of(w, self.room)
        with naming(self.what):
            codes, scale, zero = nearest_codes(w, self.bits, self.group, self.sym)
        return Quantised.of(codes, scale, None if self.sym else zero, self.bits, self.group)
