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
from crunchmark.terms import LowRank, Shift, Sum, Term


def directions(layer: Layer, metric: str) -> Spectrum:
    """Eigenvectors of W C W^T for a metric C that several methods use: they share them.

    metric: "identity"; "gram", X^T X; "covariance", the same about the mean, X^T X - n m m^T.
    """
    return layer.common(f"spectrum {metric}", lambda: spectrum(layer.weight, METRICS[metric](layer)))


def _centred(layer: Layer) -> Tensor:
    """The Gram about the mean of the inputs."""
    return layer[Gram].value - layer[InputMean].outer  # (in, in)


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

    def most(self, shape: tuple[int, int]) -> int:
        """No rank above it."""
        return min(shape)

    def sizes(self, shape: tuple[int, int], room: Room) -> Sequence[int]:
        """Of every rank below the one where factors are as large as the weight."""
        return LowRank.sizes(shape, room, self.align, self.extra(shape), self.most(shape))

    def compress(self, layer: Layer, room: Room) -> Term:
        """Project the weight on the leading directions of its outputs."""
        extra, most = self.extra(layer.shape), self.most(layer.shape)
        rank = LowRank.fits(layer.shape, room, layer.name, self.align, extra, most)
        basis = self.directions(layer).basis[:, :rank].float()  # (out, r)
        return LowRank.of(basis, basis.T @ layer.weight, room.dtype)  # (out, r), (r, in)


@dataclass(frozen=True)
class Centred(Projected):
    """A projection of outputs about their mean, with a bias that keeps the mean.

    y ~ U_r U_r^T (y - mean y) + mean y, folded into W: no affine map of rank r has less output error.
    """

    needs = (Gram, InputMean)

    def directions(self, layer: Layer) -> Spectrum:
        """Principal directions of the outputs about their mean."""
        return directions(layer, "covariance")

    def extra(self, shape: tuple[int, int]) -> int:
        """The bias."""
        return shape[0]

    def compress(self, layer: Layer, room: Room) -> Term:
        """The projection, and what it takes from the mean output."""
        low = super().compress(layer, room)
        lost = layer.weight - low.dense()  # (out, in)
        return Sum([low, Shift.of(lost @ layer[InputMean].value, layer.shape[1], room.dtype)])
