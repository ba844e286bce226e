"""Methods that can stand behind one another: a pruner makes zeros, a rounder keeps them."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from crunchmark.budget import Room
from crunchmark.checks import whole
from crunchmark.interface import Layer, Method
from crunchmark.rounding import check_grid
from crunchmark.terms import NM, Kept, Quantised, Sparse, SparseQuantised, Term

ZEROS, GRID = "zeros", "grid"  # what a stage makes of a weight, and another one may undo


@dataclass(frozen=True)
class Pruner(Method):
    """Takes single weights away.

    run: neighbouring inputs ranked together, 4 with half kept is 2:4.
    """

    run: int = 0

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        whole("method.run", self.run, least=0)

    @property
    def makes(self) -> frozenset[str]:
        """Of its result, what a stage behind it must preserve."""
        return frozenset({ZEROS})

    def suits(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        """Runs must fill the rows of every layer."""
        NM.suits(shapes, self.run)

    def sizes(self, shape: tuple[int, int], room: Room) -> Sequence[int] | None:
        """Of every n of a run; any size where none is set."""
        return NM.sizes(shape, room, self.run) if self.run else None

    def least(self, shape: tuple[int, int], room: Room) -> int:
        """The bitmap."""
        return Sparse.least(shape, room)


@dataclass(frozen=True)
class Rounder(Method):
    """Puts weights on a grid per group of inputs.

    group: inputs that share a scale, -1 for the whole row, null for the finest that fits.
    sym: symmetric grid, no stored zero.
    bits: of every weight, 2 to 8, null for the most that fit.
    """

    group: int | None = None
    sym: bool = False
    bits: int | None = None

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        check_grid(self.group, self.sym, self.bits)

    @property
    def preserves(self) -> frozenset[str]:
        """What of a stage before it is still there behind it."""
        return frozenset({ZEROS})

    def sizes(self, shape: tuple[int, int], room: Room) -> Sequence[int] | None:
        """Of every number of bits that may be, with the groups that there are."""
        return Quantised.sizes(shape, room, self.group, self.sym, self.bits)

    def compress(self, layer: Layer, room: Room) -> Term:
        """Round to the most bits that fit."""
        bits, group = Quantised.fits(layer.shape, room, layer.name, self.group, self.sym, self.bits)
        return self.rounded(layer, bits, group)

    @abstractmethod
    def rounded(self, layer: Layer, bits: int, group: int, kept: Kept | None = None) -> Term:
        """The weight in that many bits; where kept says which weights there are, the others stay zero."""

    def stored(
        self, codes: Tensor, scale: Tensor, zero: Tensor, bits: int, group: int, kept: Kept | None
    ) -> Quantised | SparseQuantised:
        """The term for codes (out, in) on grids (out, groups)."""
        zeros = None if self.sym else zero
        if kept is None:
            return Quantised.of(codes, scale, zeros, bits, group)
        return SparseQuantised.of(kept, codes, scale, zeros, bits, group)


def check_stages(first: object, then: object, valid: Mapping[str, str]) -> None:
    """Check that the second of two stages leaves what the first has made.

    valid: names of methods for each, for messages.

    Raises:
        ValueError: one is of another kind, or undoes it; names those that go.
    """
    if not isinstance(first, Pruner):
        raise ValueError(f"method.first={first!r} prunes no single weights; valid: {valid['first']}")
    preserves: frozenset[str] = then.preserves if isinstance(then, Rounder) else frozenset()
    if lost := first.makes - preserves:
        told = f"does not preserve the {' and '.join(sorted(lost))} that method.first={first!r} makes"
        raise ValueError(f"method.then={then!r} {told}; valid: {valid['then']}")
    if isinstance(then, Rounder) and then.bits is not None:
        raise ValueError(f"method.then.bits={then.bits}: of a pipeline they are method.bits; valid: null")
