"""Numerics two papers share: damping ladders, inverse factors, truncated spectra, orthogonal bases."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

FEW, LARGE = 8, 256  # a partial solution pays where one direction in so many is wanted, of so many at least
OVERSAMPLE = 8  # directions iterated beside those that are wanted
STEPS, ROUNDS = 4, 6  # subspace iterations between two checks, and how often it is checked
MISSED = 1e-3  # share of the energy that a partial solution may miss at most
CLOSE = 1e-6  # smallest over largest squared singular value from which a Gram matrix loses nothing
FLOOR = 1e-12  # of the mean second moment: smaller ones count as so large
LADDER = (1.0, 10.0, 100.0, 1000.0)  # how far a failing factorisation may raise its damping
FOOT = 1e-4  # damping that is raised where less was asked for: none at all could not climb


@dataclass(frozen=True)
class Factor:
    """An inverse-Hessian factor and how it was obtained."""

    upper: Tensor  # (n, n) float32, inverse = upper^T upper
    order: Tensor  # (n,) int64, column order in which the factor eliminates
    dead: Tensor  # (n,) bool, channels the calibration never excited, in original order
    damping: float  # share of the mean diagonal that was added

    @property
    def notes(self) -> dict[str, Any]:
        """What a term says of it: the damping, and how many inputs nothing was known of."""
        return {"damping": self.damping, "dead": int(self.dead.sum())}


def damped_inverse(gram: Tensor, damp: float, descending: bool = False) -> Factor:
    """Upper Cholesky factor of the inverse of gram + damp * mean(diag) * I.

    gram: (n, n) float64. descending: eliminate columns by falling diagonal (GPTQ's act order).
    While the factorisation fails, the damping (of FOOT at least) is raised tenfold; the one used is returned.

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
    rungs = [damp, *(step * max(damp, FOOT) for step in LADDER[1:])]
    for rung in rungs:
        damped = h.clone()
        damped.diagonal().add_(rung * ridge)
        lower, info = torch.linalg.cholesky_ex(damped)
        if int(info) == 0:
            inverse = torch.cholesky_inverse(lower)
            upper, info = torch.linalg.cholesky_ex(inverse, upper=True)
            if int(info) == 0:
                return Factor(upper.float(), order, dead, rung)
    raise ValueError(
        f"gram stays indefinite with damping {rungs[-1]:g} of its mean diagonal; "
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
        return _left(w)
    if gram.ndim == 1:
        return _left(w * gram.sqrt())
    lam, q = torch.linalg.eigh(gram)
    floor = FLOOR * lam.mean()  # directions that no input has still span the outputs of W
    return _left(w @ (q * lam.clamp(min=floor).sqrt()))  # (in, in), C = root root^T


def _left(tall: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors (out, in) and squared singular values (in,) of a tall matrix, largest first.

    Where values are close enough, as V and U = A V / s of A^T A, in half the time: U is orthonormal to
    2e-16 (s_1 / s_n)^2, which is far below a digit of the float32 it ends in.
    """
    values, v = torch.linalg.eigh(tall.T @ tall)  # (in,), (in, in)
    if values[0] > CLOSE * values[-1]:
        values, v = values.flip(0), v.flip(1)
        return tall @ v / values.sqrt(), values
    u, s, _ = torch.linalg.svd(tall, full_matrices=False)
    return u, s.square()


@dataclass(frozen=True)
class Leading:
    """The first directions of a spectrum, and how they were found."""

    basis: Tensor  # (out, rank) float64, orthonormal
    solver: str  # "full", or "partial" where the others were not solved for
    missed: float  # bound of what the best basis would save beyond this one, as a share of all energy


def leading(weight: Tensor, gram: Tensor | None, rank: int) -> Leading:
    """The first directions of `spectrum`, by subspace iteration where few of many are wanted.

    A partial solution counts only with a proof: the energy it misses is bounded after the fact, and above
    MISSED the full one is taken. weight: (out, in). gram: as for `spectrum`.
    """
    found = None
    if max((rank + OVERSAMPLE) * FEW, LARGE) <= min(weight.shape):
        found = _partial(weight.double(), gram, rank)
    return found or Leading(spectrum(weight, gram).basis[:, :rank], "full", 0.0)


def _partial(w: Tensor, gram: Tensor | None, rank: int) -> Leading | None:
    """Through the smaller side: W C W^T, or L^T W^T W L with C = L L^T and directions W L v."""
    if w.shape[0] <= w.shape[1]:
        c_w = w if gram is None else w * gram if gram.ndim == 1 else w @ gram  # (out, in)
        found = _dominant(c_w @ w.T, rank)
        return found and Leading(_signed(found[0]), "partial", found[2])
    if gram is not None and gram.ndim == 2:
        root, info = torch.linalg.cholesky_ex(gram)
        if int(info):
            return None
        w_l = w @ root  # (out, in)
    else:
        w_l = w if gram is None else w * gram.sqrt()
    found = _dominant(w_l.T @ w_l, rank)
    if found is None or found[1][-1] <= 1e-12 * found[1][0]:
        return None
    return Leading(_signed(w_l @ found[0] / found[1].sqrt()), "partial", found[2])


def _dominant(m: Tensor, rank: int) -> tuple[Tensor, Tensor, float] | None:
    """Leading eigenvectors (n, rank) and values (rank,) of a positive semi-definite m, and the bound missed.

    None: not proven to be good after all rounds.
    """
    draws = torch.Generator().manual_seed(0)
    v = torch.randn(len(m), rank + OVERSAMPLE, generator=draws, dtype=m.dtype)
    for _ in range(ROUNDS):
        for _ in range(STEPS):
            v = torch.linalg.qr(m @ v).Q  # (n, k)
        values, turn = torch.linalg.eigh(v.T @ m @ v)
        v = v @ turn.flip(1)
        missed = _missed(m, v[:, :rank], values.flip(0)[:rank])
        if missed <= MISSED:
            return v[:, :rank], values.flip(0)[:rank], missed
    return None


def _missed(m: Tensor, v: Tensor, values: Tensor) -> float:
    """Bound of (the sum of the largest eigenvalues of m - the sum of values) / tr m; inf: none was found.

    With D what m is on the complement of v, and R = m v - v values: by Ky Fan's inequality the sum grows by
    at most the nuclear norm of R where no eigenvalue of D exceeds the last value. A Cholesky factor of
    top - D proves that for a top above it, and what top is above each value counts.
    v: (n, r), orthonormal. values: (r,), the diagonal of v^T m v, falling.
    """
    trace = m.diagonal().sum()
    slack = MISSED * trace / (2 * len(values))
    top = values[-1] + slack
    rest = m @ v - v * values  # (n, r)
    outer = rest @ v.T  # (n, n)
    d = m - v * values @ v.T - outer - outer.T
    _, info = torch.linalg.cholesky_ex(top * torch.eye(len(m), dtype=m.dtype, device=m.device) - d)
    if int(info) or not trace > 0:
        return float("inf")
    room = (top - values).clamp(min=0).sum() + torch.linalg.matrix_norm(rest, "nuc")
    return float(room / trace)


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
