"""The error's own singular vectors: what EoRA (arXiv:2410.21271) is compared with."""

from dataclasses import dataclass

from crunchmark import Branch, Layer


@dataclass(frozen=True)
class SVD(Branch):
    """Truncated SVD of W - Q: no input is looked at."""

    def metric(self, layer: Layer) -> None:
        """All inputs count alike."""
