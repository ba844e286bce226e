"""LREC of INT2.1 (Chai et al., 2023, arXiv:2306.08162): adapters that undo the error of quantisation."""

from dataclasses import dataclass

from torch import Tensor

from crunchmark import Branch, Gram, Layer


@dataclass(frozen=True)
class LREC(Branch):
    """A start for training the adapters: the minimum of a squared error of every layer's outputs.

    That is EoRA without damping. The paper starts at zero and trains against the dense model's outputs;
    training comes with recovery. A twentieth of the room is what makes its 2 bits "2.1".
    """

    share: float = 0.05

    needs = (Gram,)

    def metric(self, layer: Layer) -> Tensor:
        """C = X^T X."""
        return layer[Gram].value
