"""Truncated SVD of every weight (Eckart and Young, 1936; the LLM baseline of arXiv:2403.07378)."""

from dataclasses import dataclass

from crunchmark import Layer, Projected


@dataclass(frozen=True)
class SVD(Projected):
    """The best rank-r stand-in in Frobenius norm, W ~ U_r (U_r^T W)."""

    metric_name = "identity"

    def metric(self, layer: Layer) -> None:
        """All inputs count alike."""
