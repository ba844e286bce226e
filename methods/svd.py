"""Truncated SVD of every weight (Eckart and Young, 1936; the LLM baseline of arXiv:2403.07378)."""

from dataclasses import dataclass

from crunchmark import Layer, LowRank, Method, Room, Term, spectrum, whole


@dataclass(frozen=True)
class SVD(Method):
    """The best rank-r stand-in in Frobenius norm, W ~ U_r (U_r^T W).

    align: ranks are multiples of it (rounded down; below one multiple, what fits).
    """

    align: int = 1

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        whole("method.align", self.align)

    def compress(self, layer: Layer, room: Room) -> Term:
        """Project the weight on its leading left singular vectors."""
        rank = LowRank.fits(layer.shape, room, layer.name, self.align)
        basis = layer.memo("svd", lambda: spectrum(layer.weight)).basis[:, :rank].float()  # (out, r)
        return LowRank.of(basis, basis.T @ layer.weight, room.dtype)  # (out, r), (r, in)
