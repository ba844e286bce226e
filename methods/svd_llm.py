"""SVD-LLM, the whitening step (Wang et al., ICLR 2025, arXiv:2403.07378): truncation-aware SVD."""

from dataclasses import dataclass

from crunchmark import Gram, Layer, Projected, Spectrum, directions


@dataclass(frozen=True)
class SVDLLM(Projected):
    """The rank-r stand-in with the least output error on the calibration tokens.

    W L = U S V^T with C = X^T X = L L^T; W ~ U_r S_r V_r^T L^-1 = U_r (U_r^T W), so no inverse is taken.
    """

    needs = (Gram,)

    def directions(self, layer: Layer) -> Spectrum:
        """Eigenvectors of W C W^T, C = X^T X."""
        return directions(layer, "gram")
