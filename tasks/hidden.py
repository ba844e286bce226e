"""How hidden states (tokens N, width d) fill their space: diagnostics of one model that need no label."""

import math

import torch
from torch import Tensor

LEAST = 8  # tokens: below that a spectrum says nothing


def rows_on_sphere(states: Tensor, centred: bool) -> Tensor:
    """Rows of unit length (N, d), float64; centred: the mean row is taken off before. A zero row stays."""
    r = states.double()
    r = r - r.mean(0) if centred else r
    return r / r.norm(dim=1, keepdim=True).clamp(min=torch.finfo(r.dtype).tiny)


def matrix_nuclear_norm(states: Tensor) -> float:
    """Matrix Nuclear-Norm (arXiv:2410.10672): sum of the D = min(N, d) largest column norms, over N.

    Of centred unit rows; stands in for the nuclear norm without an SVD, and unlike it depends on the basis.
    At most sqrt(D / N), so compare the same tokens, and the same width.
    """
    r = rows_on_sphere(states, centred=True)
    tokens, width = r.shape
    columns = r.norm(dim=0).sort(descending=True).values
    return float(columns[: min(tokens, width)].sum()) / tokens


def matrix_entropy(states: Tensor) -> float:
    """Entropy in nats of the spectrum of Z'Z / N for centred unit rows Z (arXiv:2401.17139).

    exp of it is the effective rank: of m equally strong directions the entropy is ln m.
    """
    values = _spectrum(rows_on_sphere(states, centred=True)) / len(states)
    share = values / values.sum() if float(values.sum()) > 0 else values
    return float(torch.special.entr(share).sum())


def coding_rate(states: Tensor, precision: float) -> float:
    """R = 1/2 logdet(I + d / (N eps^2) Z'Z) in nats, of unit rows Z and precision eps.

    The rate of MCR2 (arXiv:2006.08558) and CRATE (arXiv:2306.01129); it depends on no basis.
    """
    tokens, width = states.shape
    values = _spectrum(rows_on_sphere(states, centred=False))
    return float(torch.log1p(values * width / (tokens * precision**2)).sum()) / 2


def measures(states: Tensor, precision: float) -> dict[str, float | None]:
    """All of them by name; None where there are too few tokens, or states that are not finite."""
    if len(states) < LEAST or not bool(torch.isfinite(states).all()):
        return dict.fromkeys(NAMES)
    norm = matrix_nuclear_norm(states)
    bound = math.sqrt(min(states.shape) / len(states))
    found = (norm, norm / bound, matrix_entropy(states), coding_rate(states, precision))
    return dict(zip(NAMES, found, strict=True))


NAMES = ("nuclear_norm", "nuclear_norm_share", "matrix_entropy", "coding_rate")


def _spectrum(z: Tensor) -> Tensor:
    """Eigenvalues of Z'Z that can be other than zero, from the smaller Gram matrix (min(N, d),)."""
    gram = z.T @ z if len(z) >= z.shape[1] else z @ z.T
    return torch.linalg.eigvalsh(gram).clamp(min=0)
