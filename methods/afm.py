"""Atomic feature mimicking (Yu and Wu, AAAI 2023; for CTR models Yu et al., KDD 2024, arXiv:2405.18146)."""

from dataclasses import dataclass

from crunchmark import Gram, InputMean, Layer, Projected, Room, Shift, Spectrum, Sum, Term, directions


@dataclass(frozen=True)
class AFM(Projected):
    """PCA of a layer's outputs: directions of their covariance, and a bias that keeps their mean.

    y ~ U_r U_r^T (y - mean y) + mean y, folded into W: no affine map of rank r has less output error.
    The bias is counted. LoRD (arXiv:2309.14021) is this on code.
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
