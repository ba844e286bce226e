"""Whole groups of inputs kept or pruned: how many fit, and weights that are tuned on their way to codes."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from crunchmark.budget import Room, Unreachable
from crunchmark.rounding import grid, round_to, stored_scale
from crunchmark.terms import Kept, Layout, SparseQuantised, top

MOST, USUAL = 8, 4  # bits of a code, and those where groups have to go


def check_groups(shapes: Mapping[str, tuple[int, int]], group: int) -> None:
    """Check that groups fill the rows of these layers, by name.

    Raises:
        ValueError: they do not; lists those that fill all.
    """
    common = math.gcd(*(wide for _, wide in shapes.values()))
    for name, (_, wide) in shapes.items():
        if wide % group:
            valid = ", ".join(str(n) for n in range(1, common + 1) if common % n == 0)
            raise ValueError(
                f"method.group={group} does not divide in_features={wide} of {name}; valid: {valid}"
            )


def groups_that_fit(
    shape: tuple[int, int], room: Room, what: str, group: int, bits: int | None = None
) -> tuple[int, int]:
    """Bits, and how many groups of the matrix the room lets keep; every row keeps one at least.

    Without bits given, the most with which every group fits, else USUAL bits and what fits of the groups.
    In nominal accounting the share of kept groups times bits / 16 counts.

    Raises:
        ValueError: groups do not fill a row.
        Unreachable: one group per row does not fit.
    """
    check_groups({what: shape}, group)
    whole = math.prod(shape) // group
    depths = range(MOST, USUAL - 1, -1) if bits is None else [bits]
    fitting = {depth: min(whole, _fitting(shape, room, group, depth)) for depth in depths}
    depth = next((depth for depth, kept in fitting.items() if kept == whole), depths[-1])
    if fitting[depth] < shape[0]:
        needs = _size(shape, depth, group, shape[0])
        raise Unreachable(what, needs, room.nbytes, least=shape[0] / whole * depth / 16)
    return depth, fitting[depth]


def least_groups(shape: tuple[int, int], room: Room, group: int, bits: int | None = None) -> int:
    """Bytes with one group per row; nominal: that share of the dense 16-bit bytes, rounded up."""
    depth = USUAL if bits is None else bits
    if room.nominal is not None:
        return math.ceil(2 * shape[0] * group * depth / 16 - 1e-9)
    return _size(shape, depth, group, shape[0])


def _size(shape: tuple[int, int], bits: int, group: int, kept: int) -> int:
    """Bytes of the term that keeps so many groups of the matrix."""
    return SparseQuantised.size(shape, kept * group, bits, group, False, Layout("groups", group))


def _fitting(shape: tuple[int, int], room: Room, group: int, bits: int) -> int:
    """How many groups of those bits the room holds, of however many there are."""
    if room.nominal is not None:
        return math.floor(room.nominal * 16 / bits * math.prod(shape) / group + 1e-9)
    kept = max(0, 8 * (room.nbytes - _size(shape, bits, group, 0)) // (bits * (group + 1) + 16))
    while kept and _size(shape, bits, group, kept) > room.nbytes:  # streams end on whole bytes
        kept -= 1
    return kept


def evenly(score: Tensor, kept: int) -> Tensor:
    """Mark the best of every row (out, groups): equally many, and one more where the next one is best."""
    each, more = divmod(kept, len(score))
    mask = top(score, each)
    if more:
        left = score.masked_fill(mask, -torch.inf)  # (out, groups)
        mask |= top(left, 1) & top(left.amax(1), more)[:, None]
    return mask


class _Value(torch.autograd.Function):
    """(codes - zero) * scale of groups; backward as if nothing had been rounded (arXiv:1308.3432).

    One node: as single operations, this takes longer than the rest of a small model's training.
    """

    @staticmethod
    def forward(ctx: Any, draft: "GroupDraft", weight: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """(kept, group), of the nearest codes or of those that are frozen; all three as they are stored."""
        top, codes, steps, free = 2**draft.bits - 1, draft.codes, None, None
        step, origin = (part.float()[:, None] for part in draft.stored())  # (kept, 1) each
        if codes is None:
            steps = weight / step  # (kept, group)
            free = steps.round().add_(origin)  # (kept, group)
            codes = free.clamp(0, top)  # (kept, group)
        off = codes - origin  # (kept, group)
        ctx.save_for_backward(step, off, steps, free)
        ctx.top = top
        return off * step

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, Tensor, Tensor]:
        """Of the weight (None where codes are frozen), scale and zero."""
        step, off, steps, free = ctx.saved_tensors
        inner = grad * step  # (kept, group)
        scale, zero = (grad * off).sum(1), -inner.sum(1)  # (kept,) each
        if free is None:
            return None, None, scale, zero
        within = inner.masked_fill((free < 0) | (free > ctx.top), 0.0)  # (kept, group)
        scale, zero = scale - (within * (steps / step)).sum(1), zero + within.sum(1)
        return None, within / step, scale, zero


class GroupDraft(nn.Module):
    """Kept groups of a weight: it trains with its scales and zeros until it is frozen, then only these do.

    Called, it gives the weight (out, in) that `term` stores, bit for bit.
    """

    mask: Tensor  # (out, groups) bool
    places: Tensor  # (kept,), of the kept groups among all
    codes: Tensor | None  # (kept, group) uint8, once frozen

    def __init__(self, weight: Tensor, mask: Tensor, bits: int, group: int) -> None:
        """Start on the min-max grid of each kept group of the weight (out, in)."""
        super().__init__()
        self.bits, self.group = bits, group
        self.notes: dict[str, Any] = {}  # for the term
        parts = weight.view(*mask.shape, group)[mask]  # (kept, group)
        scale, zero = grid(parts, bits, sym=False)
        self.register_buffer("mask", mask)
        self.register_buffer("places", mask.flatten().nonzero()[:, 0])
        self.register_buffer("codes", None)
        self.weight = nn.Parameter(parts)  # (kept, group)
        self.scale, self.zero = nn.Parameter(scale.float()), nn.Parameter(zero.float())  # (kept,) each

    def stored(self) -> tuple[Tensor, Tensor]:
        """Scale (kept,) float16 and zero (kept,) uint8 as they are stored."""
        zero = self.zero.detach().round().clamp(0, 2**self.bits - 1).to(torch.uint8)
        return stored_scale(self.scale.detach()), zero

    def forward(self) -> Tensor:
        """The weight (out, in), with gradients straight through every rounding."""
        value: Tensor = _Value.apply(self, self.weight, self.scale, self.zero)  # (kept, group)
        return self._laid_out(value).flatten(1)  # (out, in)

    @torch.no_grad()
    def freeze(self) -> None:
        """Fix the codes."""
        self.codes = self._rounded()
        self.weight.requires_grad_(False)

    @torch.no_grad()
    def term(self) -> SparseQuantised:
        """What is stored."""
        codes = self._laid_out(self._rounded()).flatten(1)  # (out, in)
        scale, zero = (self._laid_out(part[:, None])[..., 0] for part in self.stored())  # (out, groups) each
        kept = Kept(self.mask.repeat_interleave(self.group, dim=1), Layout("groups", self.group))
        term = SparseQuantised.of(kept, codes, scale, zero, self.bits, self.group)
        return term.noted(**self.notes)

    def _rounded(self) -> Tensor:
        """Codes (kept, group) uint8."""
        return round_to(self.weight, *self.stored(), self.bits) if self.codes is None else self.codes

    def _laid_out(self, parts: Tensor) -> Tensor:
        """Parts (kept, n) of the kept groups in their places, (out, groups, n), zero elsewhere."""
        laid = parts.new_zeros(self.mask.numel(), parts.shape[1])
        return laid.index_copy(0, self.places, parts).view(*self.mask.shape, -1)
