"""What a term loses of a layer: of its outputs, or of its weights."""

from collections.abc import Callable

import torch
from torch import Tensor

from crunchmark.fisher import Fisher
from crunchmark.interface import Layer
from crunchmark.linalg import calibrated_error
from crunchmark.stats import Gram, InputMean
from crunchmark.terms import Term, pad


def of_outputs(layer: Layer, term: Term) -> float:
    """tr((W - Q) C (W - Q)^T) / tr(W C W^T); without inputs, C is the identity.

    A bias that the term brings counts as part of Q, with the one that goes into it as an input.
    """
    gram = layer.stats.get(Gram)
    known = torch.eye(layer.shape[1], dtype=torch.float64) if gram is None else gram.value
    weight, stand_in, shift = layer.weight, term.dense(), term.shift()
    if shift is not None:
        weight, stand_in = pad(weight, 1), torch.cat([stand_in, shift[:, None]], 1)
        known = _with_one(known, layer[InputMean])
    return calibrated_error(weight, stand_in, known)


def of_weights(layer: Layer, term: Term) -> float:
    """|sqrt(F) * (W - Q)|^2 / |sqrt(F) * W|^2, F ones or, where a method asks for it, Fisher information."""
    whole = fisher_norm(layer, layer.weight)
    return fisher_norm(layer, layer.weight - term.dense()) / max(whole, 1e-300)


def fisher_norm(layer: Layer, matrix: Tensor) -> float:
    """|sqrt(F) * matrix|^2, in the unit of F (arXiv:2311.12023)."""
    fisher = layer.stats.get(Fisher)
    squares = matrix.double().square()  # (out, in)
    return float((squares if fisher is None else squares * fisher.value).sum())


LOST: dict[str, Callable[[Layer, Term], float]] = {"outputs": of_outputs, "weights": of_weights}


def _with_one(gram: Tensor, mean: InputMean) -> Tensor:
    """The Gram (in, in) of inputs with a last one that is always 1, (in + 1, in + 1)."""
    sums = mean.sums[:, None]  # (in, 1)
    count = torch.full((1, 1), float(mean.tokens), dtype=gram.dtype)
    return torch.cat([torch.cat([gram, sums], 1), torch.cat([sums.T, count], 1)])
