"""The one projection most of low rank comes down to: W ~ U_r U_r^T W, U_r the best outputs under a metric.

For inputs with second moments C, the minimiser of tr((W - Q) C (W - Q)^T) over rank r is U_r U_r^T W, with
U_r the leading eigenvectors of W C W^T. The papers differ in C: the identity (plain SVD), a diagonal (ASVD),
the Gram of calibration inputs (SVD-LLM), their covariance (AFM, LoRD). Of an error instead of W it is EoRA.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from crunchmark.budget import Room
from crunchmark.checks import whole
from crunchmark.interface import Layer, Method
from crunchmark.linalg import Spectrum, spectrum
from crunchmark.terms import LowRank, Term


@dataclass(frozen=True)
class Projected(Method):
    """A low-rank method that says no more than its metric.

    align: ranks are multiples of it (rounded down; below one multiple, what fits).
    """

    align: int = 1

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        whole("method.align", self.align)

    @property
    def metric_name(self) -> str:
        """Names the metric among all methods: those of one name share their spectra."""
        return type(self).__name__

    @abstractmethod
    def metric(self, layer: Layer) -> Tensor | None:
        """C: (in, in) float64, the diagonal (in,) of one, or None for the identity."""

    def directions(self, layer: Layer) -> Spectrum:
        """Eigenvectors of W C W^T, found once for all ranks."""
        name = f"spectrum {self.metric_name}"
        return layer.common(name, lambda: spectrum(layer.weight, self.metric(layer)))

    def extra(self, shape: tuple[int, int]) -> int:
        """Real numbers stored beside the factors."""
        return 0

    def sizes(self, shape: tuple[int, int], room: Room) -> Sequence[int]:
        """Of every rank below the one where factors are as large as the weight."""
        return LowRank.sizes(shape, room, self.align, self.extra(shape))

    def compress(self, layer: Layer, room: Room) -> Term:
        """Project the weight on the leading directions of its outputs."""
        rank = LowRank.fits(layer.shape, room, layer.name, self.align, self.extra(layer.shape))
        basis = self.directions(layer).basis[:, :rank].float()  # (out, r)
        return LowRank.of(basis, basis.T @ layer.weight, room.dtype)  # (out, r), (r, in)
