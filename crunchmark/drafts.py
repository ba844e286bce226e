"""Weights on their way to codes: rounded as they will be stored, with gradients as if they were not."""

from typing import Any

import torch
from torch import Tensor, nn

from crunchmark.rounding import grid, round_to, stored_scale, straight_through
from crunchmark.terms import Groups
from crunchmark.terms.groups import laid_out
from crunchmark.terms.packing import pad


class GroupDraft(nn.Module):
    """Kept groups of a weight: it trains with its scales and zeros until it is frozen, then only these do.

    Called, it gives the weight (out, in) that `term` stores, bit for bit.
    """

    mask: Tensor  # (out, groups) bool
    codes: Tensor | None  # (kept, group) uint8, once frozen

    def __init__(self, weight: Tensor, mask: Tensor, bits: int, group: int) -> None:
        """Start on the min-max grid of each kept group of the weight (out, in)."""
        super().__init__()
        self.bits, self.wide = bits, weight.shape[1]
        self.notes: dict[str, Any] = {}  # for the term
        padded = pad(weight, mask.shape[1] * group - self.wide)  # (out, groups * group)
        parts = padded.view(*mask.shape, group)[mask]  # (kept, group)
        scale, zero = grid(parts, bits, sym=False)
        self.register_buffer("mask", mask)
        self.register_buffer("codes", None)
        self.weight = nn.Parameter(parts)  # (kept, group)
        self.scale, self.zero = nn.Parameter(scale.float()), nn.Parameter(zero.float())  # (kept,) each

    def stored(self) -> tuple[Tensor, Tensor]:
        """Scale (kept,) float16 and zero (kept,) uint8 as they are stored."""
        zero = self.zero.detach().round().clamp(0, 2**self.bits - 1).to(torch.uint8)
        return stored_scale(self.scale.detach()), zero

    def forward(self) -> Tensor:
        """The weight (out, in), with gradients straight through every rounding."""
        scale, zero = (
            straight_through(soft, hard)[:, None]
            for soft, hard in zip((self.scale, self.zero), self.stored(), strict=True)
        )
        if self.codes is None:
            steps = self.weight / scale  # (kept, group)
            codes = (straight_through(steps, steps.detach().round()) + zero).clamp(0, 2**self.bits - 1)
        else:
            codes = self.codes.float()
        return laid_out((codes - zero) * scale, self.mask, self.wide)

    @torch.no_grad()
    def freeze(self) -> "GroupDraft":
        """Fix the codes."""
        if self.codes is None:
            self.codes = round_to(self.weight, *self.stored(), self.bits)
            self.weight.requires_grad_(False)
        return self

    @torch.no_grad()
    def term(self) -> Groups:
        """What is stored."""
        scale, zero = self.stored()
        codes = round_to(self.weight, scale, zero, self.bits) if self.codes is None else self.codes
        term = Groups.of(codes, scale, zero, self.mask, self.bits, self.wide)
        return term.noted(**self.notes)
