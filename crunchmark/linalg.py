"""Numerics two papers share: damping ladders, inverse factors, truncated spectra, orthogonal bases."""

from dataclasses import dataclass

import torch
from torch import Tensor

LADDER = (1.0, 10.0, 100.0, 1000.0)  # how far a failing factorisation may raise its damping


@dataclass(frozen=True)
class Factor:
    """An inverse-Hessian factor and how it was obtained."""

    upper: Tensor  # (n, n) float32, inverse = upper^T upper
    order: Tensor  # (n,) int64, column order in which the factor eliminates
    dead: Tensor  # (n,) bool, channels the calibration never excited, in original order
    damping: float  # share of the mean diagonal that was added


def damped_inverse(gram: Tensor, damp: float, descending: bool = False) -> Factor:
    """Upper Cholesky factor of the inverse of gram + damp * mean(diag) * I.

    gram: (n, n) float64. descending: eliminate columns by falling diagonal (GPTQ's act order).
    The damping is raised tenfold while the factorisation fails; the one used is returned.

    Raises:
        ValueError: gram holds nan or inf, or no damping of the ladder makes it positive definite.
    """
    if not torch.isfinite(gram).all():
        raise ValueError("gram holds nan or inf; valid: finite values")
    diag = gram.diagonal()
    dead = diag == 0
    h = gram.clone()
    h.diagonal()[dead] = 1.0
    order = torch.argsort(diag, descending=True, stable=True) if descending else torch.arange(len(diag))
    h = h[order][:, order]
    ridge = float(h.diagonal().mean())
    for step in LADDER:
        damped = h.clone()
        damped.diagonal().add_(step * damp * ridge)
        lower, info = torch.linalg.cholesky_ex(damped)
        if int(info) == 0:
            inverse = torch.cholesky_inverse(lower)
            upper, info = torch.linalg.cholesky_ex(inverse, upper=True)
            if int(info) == 0:
                return Factor(upper.float(), order, dead, step * damp)
    raise ValueError(
        f"gram stays indefinite with damping {LADDER[-1] * damp:g} of its mean diagonal; "
        "valid: a positive semi-definite matrix"
    )


@dataclass(frozen=True)
class Spectrum:
    """An orthonormal output basis, best direction first: U_r U_r^T W is the best rank-r stand-in."""

    basis: Tensor  # (out, k) float64
    energy: Tensor  # (k,) float64, squared error a direction saves, descending


def spectrum(weight: Tensor, gram: Tensor | None = None) -> Spectrum:
    """Directions of W C W^T, the energy of the layer's outputs; without a Gram plain SVD of W.

    One basis serves every rank. Equal to whitening by Cholesky, truncating and un-whitening (SVD-LLM,
    arXiv:2403.07378), without a factor of C, so a rank-deficient C needs no damping.
    weight: (out, in). gram: (in, in) float64, the diagonal (in,) of one, or None.
    """
    w = weight.double()
    c_w = w if gram is None else w * gram if gram.ndim == 1 else w @ gram  # (out, in)
    if w.shape[0] <= w.shape[1]:
        energy, basis = torch.linalg.eigh(c_w @ w.T)  # (out,), (out, out)
        energy, basis = energy.flip(0).clamp(min=0), basis.flip(1)
    else:
        basis, energy = _tall(w, gram)
    return Spectrum(_signed(basis), energy)


def _tall(w: Tensor, gram: Tensor | None) -> tuple[Tensor, Tensor]:
    """The same for out > in, through the smaller input side: W L = U S V^T with C = L L^T."""
    if gram is None:
        u, s, _ = torch.linalg.svd(w, full_matrices=False)
        return u, s.square()
    if gram.ndim == 1:
        u, s, _ = torch.linalg.svd(w * gram.sqrt(), full_matrices=False)
        return u, s.square()
    lam, q = torch.linalg.eigh(gram)
    root = q * lam.clamp(min=0).sqrt()  # (in, in), C = root root^T
    u, s, _ = torch.linalg.svd(w @ root, full_matrices=False)  # (out, in)
    return u, s.square()


def principal(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvectors (n, n) and eigenvalues (n,) of a symmetric matrix, largest first, signs fixed."""
    values, vectors = torch.linalg.eigh(gram.double())
    return _signed(vectors.flip(1)), values.flip(0)


def _signed(vectors: Tensor) -> Tensor:
    """The same unit columns, each with its largest entry positive."""
    return vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()


def calibrated_error(weight: Tensor, stand_in: Tensor, gram: Tensor) -> float:
    """tr((W-Q) C (W-Q)^T) / tr(W C W^T): share of the layer's output energy that is lost."""
    d, w = (weight - stand_in).double(), weight.double()
    return float(((d @ gram) * d).sum() / ((w @ gram) * w).sum().clamp(min=1e-300))
