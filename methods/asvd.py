"""ASVD (Yuan et al., 2023, arXiv:2312.05821): inputs weigh by their mean magnitude."""

from dataclasses import dataclass

from torch import Tensor

from crunchmark import InputMean, Layer, Projected, number


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

    @property
    def metric_name(self) -> str:
        """One spectrum per alpha."""
        return f"absmean {self.alpha}"

    def metric(self, layer: Layer) -> Tensor:
        """diag(s^2), the floor 1e-6 of s as in the released code."""
        return (layer[InputMean].absolute.double() ** self.alpha + 1e-6).square()  # (in,)
