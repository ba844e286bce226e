"""Magnitude pruning (Han et al., 2015, arXiv:1506.02626): drop the smallest weights."""

from dataclasses import dataclass

from crunchmark import Layer, Pruner, Room, Sparse, Term


@dataclass(frozen=True)
class Magnitude(Pruner):
    """Keep the largest |W| of every matrix.

    run: neighbouring inputs ranked together, 4 with half kept is 2:4; 0 ranks the whole matrix.
    """

    def compress(self, layer: Layer, room: Room) -> Term:
        """Rank by absolute value."""
        score = layer.weight.abs()  # (out, in)
        return Sparse.largest(layer.weight, score, room, layer.name, run=self.run, scope="layer")
