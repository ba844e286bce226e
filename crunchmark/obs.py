"""Optimal-brain-surgeon sweep over columns, shared by SparseGPT (2301.00774) and GPTQ (2210.17323)."""

from collections.abc import Callable

import torch
from torch import Tensor

from crunchmark.linalg import Factor
from crunchmark.rounding import Columns

Choose = Callable[
    [Tensor, Tensor, int], Tensor
]  # (columns left (out, b), their d (b,), first column) -> new value
Start = Callable[[Tensor, Tensor, int], None]  # called when a block of columns is reached


def sweep(
    weight: Tensor, upper: Tensor, choose: Choose, start: Start | None = None, block: int = 128
) -> Tensor:
    """Fix columns left to right; what a column loses is made up by the columns after it.

    weight: (out, in) float32; it is not changed. upper: (in, in), `damped_inverse`'s factor in the
    same column order.
    choose(left, d, j) gives the final value (out,) of column j, the first one of `left`, which holds the
    current values of the block's columns from j on; d are their factor diagonals.
    start(columns, d, j) is called with a block's current columns before the block is swept.
    Returns the swept weight (out, in) in the same order.
    """
    w = weight.clone()
    diag = upper.diagonal()
    pivots = diag.tolist()
    for lo in range(0, w.shape[1], block):
        hi = min(lo + block, w.shape[1])
        w1 = w[:, lo:hi].T.contiguous()  # (b, out): a column lies in one piece
        u1 = upper[lo:hi, lo:hi]  # (b, b)
        error = torch.empty_like(w1)
        if start is not None:
            start(w1.T, diag[lo:hi], lo)
        left = w1
        for i, (column, lost, row) in enumerate(zip(w1, error, u1, strict=True)):  # (out,), (out,), (b,)
            q = choose(left.T, diag[lo + i : hi], lo + i)  # (out,)
            torch.sub(column, q, out=lost).div_(pivots[lo + i])
            left = left[1:]
            left.addr_(row[i + 1 :], lost, alpha=-1)
            column.copy_(q)
        w[:, lo:hi] = w1.T
        w[:, hi:].addmm_(error.T, upper[lo:hi, hi:], alpha=-1)
    return w


def round_columns(
    weight: Tensor,
    factor: Factor,
    bits: int,
    group: int,
    sym: bool = False,
    block: int = 128,
    mask: Tensor | None = None,
) -> Columns:
    """GPTQ: the sweep that rounds, in the factor's order, to grids fitted on the original weight.

    weight: (out, in); dead inputs get no weight. group: inputs that share a grid; -1: the whole row.
    mask: (out, in), what is not in it is zero, an error made up for as any.
    """
    weight = weight.masked_fill(factor.dead, 0.0)  # (out, in)
    columns, order = Columns(weight, bits, group, sym), factor.order.tolist()

    def choose(left: Tensor, _: Tensor, j: int) -> Tensor:
        value = columns(left[:, 0], order[j])  # (out,)
        return value if mask is None else value.masked_fill(~mask[:, order[j]], 0.0)

    sweep(weight[:, factor.order], factor.upper, choose, block=block)
    return columns
