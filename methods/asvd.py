"""ASVD (Yuan et al., 2023, arXiv:2312.05821): inputs weigh by their mean magnitude."""

from dataclasses import dataclass

from crunchmark import InputMean, Layer, Projected, Spectrum, number, spectrum


@dataclass(frozen=True)
class ASVD(Projected):
    """SVD of W diag(s) with s_j = (mean |x_j|)^alpha, unscaled afterwards: the metric is diag(s^2).

    alpha: 0 is plain SVD. The paper finds ranks by sensitivity: allocate=strs.
    """

    alpha: float = 0.5

    needs = (InputMean,)

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        super().__post_init__()
        number("method.alpha", self.alpha, least=0)

    def directions(self, layer: Layer) -> Spectrum:
        """Left singular vectors of W diag(s), the floor 1e-6 of s as in the released code."""
        scale = layer[InputMean].absolute.double() ** self.alpha + 1e-6  # (in,)
        return layer.memo("asvd", lambda: spectrum(layer.weight, scale.square()))
