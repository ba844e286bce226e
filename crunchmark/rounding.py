"""Affine integer grids, shared by every method that rounds. Codes are uint8, scales float16."""

from typing import Any

import torch
from torch import Tensor

from crunchmark.checks import flag

_HALF = torch.finfo(torch.float16)
_TINIEST = 2.0**-24  # the smallest float16 above zero


def grid(w: Tensor, bits: int, sym: bool) -> tuple[Tensor, Tensor]:
    """The grid of each group; zero is always on it.

    Args:
        w: (..., g), one group along the last axis.
        bits: 2 to 8.
        sym: the zero code is 2**(bits - 1), and the ends are +-max|w|.

    Returns:
        scale (...) float16, never zero or infinite, and zero (...) uint8, found for the stored scale.
    """
    w, top = w.float(), 2**bits - 1
    lo, hi = w.amin(-1).clamp(max=0), w.amax(-1).clamp(min=0)  # (...), (...)
    if sym:
        hi = torch.maximum(-lo, hi)  # (...)
        lo = -hi
    empty = lo == hi  # (...)
    lo, hi = lo.masked_fill(empty, -1.0), hi.masked_fill(empty, 1.0)  # (...), (...)
    scale = stored_scale((hi - lo) / top)  # (...)
    if sym:
        return scale, torch.full_like(scale, 2 ** (bits - 1), dtype=torch.uint8)
    return scale, (-lo / scale.float()).round().clamp(0, top).to(torch.uint8)  # (...), (...)


def round_to(w: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """The nearest codes on the grid.

    Args:
        w: (..., g).
        scale: (...) float16.
        zero: (...) uint8.
        bits: 2 to 8.

    Returns:
        (..., g) uint8.
    """
    steps = (w.float() / scale.float().unsqueeze(-1)).round_()  # (..., g)
    return steps.add_(zero.float().unsqueeze(-1)).clamp_(0, 2**bits - 1).to(torch.uint8)  # (..., g)


def value_of(codes: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """What codes stand for: (codes - zero) * scale, float32.

    Args:
        codes: (..., g) uint8.
        scale: (...) float16.
        zero: (...) uint8, or real numbers.

    Returns:
        (..., g) float32.
    """
    steps = codes.float().sub_(zero.float().unsqueeze(-1))  # (..., g)
    return steps.mul_(scale.float().unsqueeze(-1))  # (..., g)


def grids(w: Tensor, bits: int, group: int, sym: bool) -> tuple[Tensor, Tensor]:
    """The grids of a weight (out, in), by groups of inputs; group -1 is the whole row.

    Returns:
        scale (out, groups) float16 and zero (out, groups) uint8; the last group may be shorter.
    """
    found = [grid(part, bits, sym) for part in w.split(w.shape[1] if group == -1 else group, dim=1)]
    return torch.stack([s for s, _ in found], dim=1), torch.stack([z for _, z in found], dim=1)


def nearest_codes(w: Tensor, bits: int, group: int, sym: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest codes (out, in) of a weight on its `grids`, whose groups divide in; scale and zero."""
    scale, zero = grids(w, bits, group, sym)  # (out, groups)
    parts = w.unflatten(1, (scale.shape[1], -1))  # (out, groups, inputs per group)
    return round_to(parts, scale, zero, bits).flatten(1), scale, zero


def nearest_values(w: Tensor, bits: int, group: int, sym: bool) -> Tensor:
    """What the nearest codes of a weight (out, in) stand for, float32."""
    codes, scale, zero = nearest_codes(w, bits, group, sym)
    return value_of(codes.unflatten(1, (scale.shape[1], -1)), scale, zero).flatten(1)  # (out, in)


class _Through(torch.autograd.Function):
    """Forward what it became, backward as if nothing had been done to it."""

    @staticmethod
    def forward(ctx: Any, soft: Tensor, hard: Tensor) -> Tensor:
        """The hard one, exactly."""
        return hard.to(soft.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Straight through to the soft one."""
        return grad, None


def straight_through(soft: Tensor, hard: Tensor) -> Tensor:
    """`hard` in the dtype of `soft`, with the gradients of `soft` (arXiv:1308.3432)."""
    result: Tensor = _Through.apply(soft, hard)
    return result


def stored_scale(scale: Tensor) -> Tensor:
    """A scale as it is stored: float16, never zero or infinite."""
    return scale.clamp(_TINIEST, _HALF.max).half()


def check_grid(group: int | None, sym: bool) -> None:
    """Check the knobs of a grid.

    Raises:
        ValueError: group is neither null, -1 nor a positive number, or sym is no switch.
    """
    if group not in (None, -1) and (not isinstance(group, int) or group < 1):
        raise ValueError(f"method.group={group!r} is out of range; valid: null, -1 (whole row) or >= 1")
    flag("method.sym", sym)
