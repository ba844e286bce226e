"""Affine integer grids, shared by every method that rounds. Codes are uint8, scales float16."""

import torch
from torch import Tensor

from crunchmark.checks import flag, one_of

_HALF = torch.finfo(torch.float16)
_TINIEST = 2.0**-24  # the smallest float16 above zero
_NARROW = 4  # of the largest weight: a group whose weights span less than that is given as much
_FARTHEST = 1024  # steps that the zero of nested grids may be away: float16 still tells half a step there


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


class Columns:
    """Rounds the columns of a weight, in any order, to the grids of the weight it was made with."""

    def __init__(self, weight: Tensor, bits: int, group: int, sym: bool = False) -> None:
        """Fit the grids; weight: (out, in), group: inputs that share one, -1: the whole row."""
        self.bits, self.group = bits, group
        self.scale, self.zero = grids(weight, bits, group, sym)  # (out, groups) each
        self.codes = torch.zeros(weight.shape[::-1], dtype=torch.uint8).T  # (out, in), a column in one piece
        self._grids = [part.T.float().contiguous() for part in (self.scale, self.zero)]  # (groups, out) each

    def __call__(self, column: Tensor, j: int) -> Tensor:
        """The nearest values (out,) for the column (out,) of input j; their codes are kept."""
        scale, zero = (part[0 if self.group == -1 else j // self.group] for part in self._grids)
        code = round_to(column[:, None], scale, zero, self.bits)  # (out, 1)
        self.codes[:, j] = code[:, 0]
        return value_of(code, scale, zero)[:, 0]  # (out,)


def nearest_codes(w: Tensor, bits: int, group: int, sym: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest codes (out, in) of a weight on its `grids`, whose groups divide in; scale and zero."""
    scale, zero = grids(w, bits, group, sym)  # (out, groups)
    parts = w.unflatten(1, (scale.shape[1], -1))  # (out, groups, inputs per group)
    return round_to(parts, scale, zero, bits).flatten(1), scale, zero


def nearest_values(w: Tensor, bits: int, group: int, sym: bool) -> Tensor:
    """What the nearest codes of a weight (out, in) stand for, float32."""
    codes, scale, zero = nearest_codes(w, bits, group, sym)
    return value_of(codes.unflatten(1, (scale.shape[1], -1)), scale, zero).flatten(1)  # (out, in)


def stored_scale(scale: Tensor) -> Tensor:
    """A scale as it is stored: float16, never zero or infinite.

    Raises:
        ValueError: float16 does not reach that far.
    """
    if (scale > _HALF.max).any():
        raise ValueError(f"codes {float(scale.max()):.4g} apart; valid: float16 holds up to {_HALF.max:g}")
    return scale.clamp(min=_TINIEST).half()


def check_grid(group: int | None, sym: bool, bits: int | None = None) -> None:
    """Check the knobs of a grid.

    Raises:
        ValueError: group is neither null, -1 nor a positive number, sym is no switch, or bits is neither null
            nor 2 to 8.
    """
    if group not in (None, -1) and (not isinstance(group, int) or group < 1):
        raise ValueError(f"method.group={group!r} is out of range; valid: null, -1 (whole row) or >= 1")
    flag("method.sym", sym)
    one_of("method.bits", bits, (None, *range(2, 9)))


def span(w: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The grid from the least to the largest weight of each group; its zero is no code (arXiv:2306.03078).

    A group far from zero gets a wider grid: its zero would leave none to the groups it shares one with.

    Args:
        w: (..., g), one group along the last axis.
        bits: 2 to 8.

    Returns:
        scale (...) and zero (...), float32; both 0 for a group of zeros.
    """
    return spread(w.amin(-1), w.amax(-1), bits)


def spread(lo: Tensor, hi: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """`span` of groups whose least and largest weights are these, any shape."""
    wide = torch.maximum(hi - lo, torch.maximum(lo.abs(), hi.abs()) / _NARROW)  # (...)
    scale = wide / (2**bits - 1)  # (...)
    return scale, torch.where(scale > 0, -lo / scale, 0.0)


def snap(w: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """The nearest codes on a grid whose zero is no code.

    Args:
        w: (..., g) float32.
        scale: (...) float32, at least 0.
        zero: (...) float32.
        bits: 1 to 8.

    Returns:
        (..., g) uint8.
    """
    return steps_of(w, scale.unsqueeze(-1), zero.unsqueeze(-1), bits).to(torch.uint8)  # (..., g)


def steps_of(w: Tensor, scale: Tensor, zero: Tensor, bits: int, out: Tensor | None = None) -> Tensor:
    """What `snap` gives, as float32; scale and zero are of one shape and broadcast with w."""
    steps = torch.div(w, scale.clamp(min=torch.finfo(torch.float32).tiny), out=out)
    return steps.add_(zero).round_().clamp_(0, 2**bits - 1)


def nested(values: Tensor, bits: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Round scales or zeros of neighbouring output rows to a grid of their own; the last run may be shorter.

    Args:
        values: (..., out) float32, what the groups of one column have.
        bits: 1 to 8.
        rows: that share a grid.

    Returns:
        codes (..., out) uint8, scale (..., runs) and zero (..., runs) float16, found for the stored scale.
    """
    out, runs = values.shape[-1], -(-values.shape[-1] // rows)
    if missing := runs * rows - out:
        values = torch.cat([values, values[..., -1:].expand(*values.shape[:-1], missing)], -1)
    filled = values.unflatten(-1, (runs, rows))  # (..., runs, rows)
    lo, hi = filled.amin(-1), filled.amax(-1)  # (..., runs), (..., runs)
    least = torch.maximum(lo.abs(), hi.abs()) / _FARTHEST  # (..., runs)
    scale = stored_scale(torch.maximum((hi - lo) / (2**bits - 1), least))  # (..., runs)
    zero = (-lo / scale.float()).clamp(-_HALF.max, _HALF.max).half()  # (..., runs)
    return snap(filled, scale.float(), zero.float(), bits).flatten(-2)[..., :out], scale, zero
