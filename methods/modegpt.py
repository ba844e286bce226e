"""MoDeGPT: pairs of matrices share a smaller inner dimension (Lin et al., ICLR 2025, arXiv:2408.09632)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from crunchmark import (
    Calibration,
    Gram,
    InputMean,
    Layer,
    ModelMethod,
    Narrower,
    Plan,
    View,
    Weights,
    best,
    entropic,
    fraction,
    influence,
    number,
    rotary,
    weights_of,
)


@dataclass(frozen=True)
class MoDeGPT(ModelMethod):
    """Nystroem for the MLP, selected dimensions for queries and keys, an SVD for values and outputs.

    eps: temperature of the allocation by block influence; larger is more even.
    ridge: of leverage scores and of the new down, as a share of the mean energy of a channel.
    cap: the most a block may lose, unless all together lose more.
    """

    eps: float = 0.1
    ridge: float = 0.01
    cap: float = 0.8

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        number("method.eps", self.eps, 1e-6)
        number("method.ridge", self.ridge, 1e-12)
        fraction("method.cap", self.cap, one=True)

    @torch.no_grad()
    def compress(self, view: View, plan: Plan, calib: Calibration) -> None:
        """Shares from the dense model, then block by block."""
        narrower = Narrower(view, plan, "modegpt")
        if plan.budget == 0:
            return
        matters = calib.memo("influence block", partial(influence, view, calib))
        lost = entropic(list(matters.values()), 1 - narrower.share, self.eps, self.cap)
        counts = narrower.counts([1 - phi for phi in lost])

        def visit(i: int, layers: Mapping[str, Layer]) -> None:
            n, old = counts[i], weights_of(view, i)
            channels, down = nystroem(layers["down"], n["channels"], self.ridge)
            reader = layers["qkv" if "qkv" in layers else "q"]
            pairs, dims = selected(old, reader, n["pairs"], n["plain"], rotary(view, i))
            v, o = values(old, reader[Gram].value / reader[Gram].tokens, n["values"])
            q = torch.stack([w[:, d] for w, d in zip(old.q, dims, strict=True)])
            q_bias = torch.stack([b[:, d] for b, d in zip(old.q_bias, dims, strict=True)])
            k = torch.stack([w[d] for w, d in zip(old.k, dims, strict=True)])
            k_bias = torch.stack([b[d] for b, d in zip(old.k_bias, dims, strict=True)])
            narrower.narrow(i, channels, down, Weights(q, k, v, o, q_bias, k_bias, old.v_bias), pairs)

        narrower.each(calib, (Gram, InputMean), visit)
        narrower.done()


def nystroem(down: Layer, count: int, ridge: float) -> tuple[Tensor, Tensor]:
    """Type I: the channels (count,) of highest leverage, and the least-squares down (out, count) on them.

    The ridge pulls down to what it was on those channels, so that few tokens change little.
    """
    c, w = down[Gram].value, down.weight.double()
    eye = torch.eye(len(c), dtype=c.dtype) * c.diagonal().mean().clamp(min=1e-300)
    left = torch.linalg.inv(c + ridge * eye).diagonal() * ridge * eye.diagonal()  # 1 - leverage
    kept = best(-left, count)
    if count == len(c):
        return kept, w
    pull = ridge * eye[kept]  # (count, in)
    return kept, torch.linalg.solve(c[kept][:, kept] + pull[:, kept], (c[kept] + pull) @ w.T).T


def energies(w: Tensor, b: Tensor, reader: Layer) -> Tensor:
    """Mean square of w x + b for rows of w (..., D) over the inputs the reader saw, (...)."""
    c, m = reader[Gram].value / reader[Gram].tokens, reader[InputMean].value.double()
    return ((w @ c) * w).sum(-1) + 2 * b * (w @ m) + b.square()


def selected(old: Weights, reader: Layer, pairs: int, plain: int, turned: int) -> tuple[Tensor, Tensor]:
    """Type II: rotary pairs (G, pairs) and, with the rest, dimensions (G, kept) with the highest scores.

    A pair's score does not change when it is turned: energy of the pair in q times that in k, over the
    query heads of the group.
    """
    half = turned // 2
    q, k = energies(old.q, old.q_bias, reader), energies(old.k, old.k_bias, reader)  # (G, g, d), (G, d)
    of_pairs = [e[..., :half] + e[..., half:turned] for e in (q, k)]
    kept = [best(s, pairs) for s in of_pairs[0].sum(1) * of_pairs[1]]
    rest = [best(s, plain) + turned for s in q[..., turned:].sum(1) * k[..., turned:]]
    dims = [torch.cat([p, p + half, r]) for p, r in zip(kept, rest, strict=True)]
    return torch.stack(kept), torch.stack(dims)


def values(old: Weights, c: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Type III: new v (G, count, D) and o (G, count, g, D), the SVD of C^1/2 Wv Wo without a root of C.

    c: second moments (D, D) of the inputs of attention.
    """
    if count == old.v.shape[1]:
        return old.v, old.o
    new = [_values(v, o.flatten(1), c, count) for v, o in zip(old.v, old.o, strict=True)]
    shape = (count, *old.o.shape[2:])
    return torch.stack([v for v, _ in new]), torch.stack([o.view(shape) for _, o in new])


def _values(v: Tensor, o: Tensor, c: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """One group: v (d, D), o (d, g D)."""
    energy, basis = torch.linalg.eigh(v @ c @ v.T)
    s = energy.clamp(min=0).sqrt()
    inverse = torch.where(s > 1e-7 * s.max(), 1 / s, 0.0)
    mixed = s[:, None] * (basis.T @ o)  # (d, g D)
    turn = torch.linalg.eigh(mixed @ mixed.T)[1].flip(1)[:, :count]  # (d, count)
    return turn.T @ (inverse[:, None] * (basis.T @ v)), turn.T @ mixed
