"""Magnitude pruning (Han et al., 2015, arXiv:1506.02626): drop the smallest weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crunchmark import NM, Layer, Method, Room, Sparse, Term, whole


@dataclass(frozen=True)
class Magnitude(Method):
    """Keep the largest |W| of every matrix.

    run: neighbouring inputs ranked together, 4 with half kept is 2:4; 0 ranks the whole matrix.
    """

    run: int = 0

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        whole("method.run", self.run, least=0)

    def suits(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        """Runs must fill the rows of every layer."""
        NM.suits(shapes, self.run)

    def sizes(self, shape: tuple[int, int], room: Room) -> Sequence[int] | None:
        """Of every n of a run; any size where none is set."""
        return NM.sizes(shape, room, self.run) if self.run else None

    def least(self, shape: tuple[int, int], room: Room) -> int:
        """The bitmap."""
        return Sparse.least(shape, room)

    def compress(self, layer: Layer, room: Room) -> Term:
        """Rank by absolute value."""
        score = layer.weight.abs()  # (out, in)
        return Sparse.largest(layer.weight, score, room, layer.name, run=self.run, scope="layer")
