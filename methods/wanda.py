"""Wanda (Sun et al., ICLR 2024, arXiv:2306.11695): prune by |weight| times input norm."""

from dataclasses import dataclass

from crunchmark import InputNorm, Layer, Pruner, Room, Sparse, Term


@dataclass(frozen=True)
class Wanda(Pruner):
    """Keep, in every output row, the weights that score highest by S = |W| * ||x||  (eq. 1).

    run: neighbouring inputs ranked together, 4 with half kept is 2:4; 0 ranks the whole row.
    """

    needs = (InputNorm,)

    def compress(self, layer: Layer, room: Room) -> Term:
        """Rank by weight times input norm."""
        score = layer.weight.abs() * layer[InputNorm].value  # (out, in) * (in,)
        return Sparse.largest(layer.weight, score, room, layer.name, run=self.run, scope="row")
