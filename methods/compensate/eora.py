"""EoRA (Liu et al., 2024, arXiv:2410.21271): a low-rank branch in the eigenspace of the inputs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crunchmark import Branch, Gram, Layer, number


@dataclass(frozen=True)
class EoRA(Branch):
    """Of all branches of that rank the one that leaves least output error on the calibration tokens.

    (W - Q) P = U S V^T with C = P P^T, B A = U_r S_r V_r^T P^-1 = U_r U_r^T (W - Q), so no inverse is taken.
    damp: share of the mean diagonal of C added to it: inputs that the tokens hardly show count a little.
    """

    damp: float = 0.01

    needs = (Gram,)

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        super().__post_init__()
        number("compensate.damp", self.damp)

    def metric(self, layer: Layer) -> Tensor:
        """C = X^T X + damp tr(C) / n I."""
        gram = layer[Gram].value
        ridge = self.damp * gram.diagonal().mean()
        return gram + ridge * torch.eye(len(gram), dtype=gram.dtype)  # (in, in)
