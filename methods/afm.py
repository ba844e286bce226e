"""Atomic feature mimicking (Yu and Wu, AAAI 2023; for CTR models Yu et al., KDD 2024, arXiv:2405.18146)."""

from dataclasses import dataclass

from torch import Tensor

from crunchmark import Gram, InputMean, Layer, Projected, Room, Shift, Sum, Term


@dataclass(frozen=True)
class AFM(Projected):
    """PCA of a layer's outputs: directions of their covariance, and a bias that keeps their mean.

    y ~ U_r U_r^T (y - mean y) + mean y, folded into W: no affine map of rank r has less output error.
    The bias is counted. LoRD (arXiv:2309.14021) is this on code.
    """

    metric_name = "covariance"
    needs = (Gram, InputMean)

    def metric(self, layer: Layer) -> Tensor:
        """X^T X - n m m^T, the centred Gram."""
        gram, mean = layer[Gram], layer[InputMean].value.double()  # mean (in,)
        return gram.value - gram.tokens * mean.outer(mean)  # (in, in)

    def extra(self, shape: tuple[int, int]) -> int:
        """The bias."""
        return shape[0]

    def compress(self, layer: Layer, room: Room) -> Term:
        """The projection, and what it takes from the mean output."""
        low = super().compress(layer, room)
        lost = layer.weight - low.dense()  # (out, in)
        return Sum([low, Shift.of(lost @ layer[InputMean].value, layer.shape[1], room.dtype)])
