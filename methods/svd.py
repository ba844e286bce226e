"""Truncated SVD of every weight (Eckart and Young, 1936; the LLM baseline of arXiv:2403.07378)."""

from dataclasses import dataclass

from crunchmark import Layer, Projected, Spectrum, directions


@dataclass(frozen=True)
class SVD(Projected):
    """The best rank-r stand-in in Frobenius norm, W ~ U_r (U_r^T W)."""

    def directions(self, layer: Layer) -> Spectrum:
        """Left singular vectors: all inputs count alike."""
        return directions(layer, "identity")
