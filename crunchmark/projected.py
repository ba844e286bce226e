"""The one projection most of low rank comes down to: W ~ U_r U_r^T W, U_r the best outputs under a metric.

For inputs with second moments C, the minimiser of tr((W - Q) C (W - Q)^T) over rank r is U_r U_r^T W, with
U_r the leading eigenvectors of W C W^T. The papers differ in C: the identity (plain SVD), a diagonal (ASVD),
the Gram of calibration inputs (SVD-LLM), their covariance (AFM, LoRD). Of an error instead of W it is EoRA.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from crunchmark.budget import Room
from crunchmark.checks import whole
from crunchmark.interface import Layer, Method
from crunchmark.linalg import Spectrum, spectrum
from crunchmark.stats import Gram, InputMean
from crunchmark.terms import LowRank, Term


def directions(layer: Layer, metric: str) -> Spectrum:
    """Eigenvectors of W C W^T for a metric C that several methods use: they share them.

    metric: "identity"; "gram", X^T X; "covariance", the same about the mean, X^T X - n m m^T.
    """
    return layer.common(f"spectrum {metric}", lambda: spectrum(layer.weight, METRICS[metric](layer)))


def _centred(layer: Layer) -> Tensor:
    """The Gram about the mean of the inputs."""
    gram, mean = layer[Gram], layer[InputMean].value.double()  # mean (in,)
    return gram.value - gram.tokens * mean.outer(mean)  # (in, in)


METRICS: Mapping[str, Callable[[Layer], Tensor | None]] = {
    "identity": lambda layer: None,
    "gram": lambda layer: layer[Gram].value,
    "covariance": _centred,
}


@dataclass(frozen=True)
class Projected(Method):
    """A low-rank method that says no more than its metric.

    align: ranks are multiples of it (rounded down; below one multiple, what fits).
    """

    align: int = 1

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        whole("method.align", self.align)

    @abstractmethod
    def directions(self, layer: Layer) -> Spectrum:
        """Eigenvectors of W C W^T under the paper's metric, found once for all ranks."""

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
