"""SVD-LLM, the whitening step (Wang et al., ICLR 2025, arXiv:2403.07378): truncation-aware SVD."""

from dataclasses import dataclass

from crunchmark import Gram, Layer, LowRank, Method, Room, Term, spectrum, whole


@dataclass(frozen=True)
class SVDLLM(Method):
    """The rank-r stand-in with the least output error on the calibration tokens.

    W L = U S V^T with C = X^T X = L L^T; W ~ U_r S_r V_r^T L^-1 = U_r (U_r^T W), so no inverse is taken.
    align: ranks are multiples of it.
    """

    align: int = 1

    needs = (Gram,)

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        whole("method.align", self.align)

    def compress(self, layer: Layer, room: Room) -> Term:
        """Project the weight on the leading directions of its outputs."""
        rank = LowRank.fits(layer.shape, room, layer.name, self.align)
        gram = layer[Gram].value
        directions = layer.memo("svd_llm", lambda: spectrum(layer.weight, gram)).basis  # (out, k)
        basis = directions[:, :rank].float()  # (out, r)
        return LowRank.of(basis, basis.T @ layer.weight, room.dtype)  # (out, r), (r, in)
