"""Whole groups of a row kept or not, and rounded where they are kept."""

import math
from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from crunchmark.budget import Room, Unreachable
from crunchmark.rounding import value_of
from crunchmark.terms.base import Meta, Packed, expect
from crunchmark.terms.dense import Leaf, own
from crunchmark.terms.packing import pack_bits, pack_mask, packed_width, unpack_bits, unpack_mask

DEPTHS = range(2, 9)  # bits of a code
USUAL = 4  # bits, where groups have to go


class Groups(Leaf):
    """One bit per group says whether it is kept; a kept group has codes, a float16 scale and a zero code.

    Kept groups are stored in row-major order. The last group of a row may be shorter; it is stored in full.
    """

    kind: ClassVar[str] = "groups"
    simulated: ClassVar[bool] = True
    mask: Tensor  # (out, ceil(groups / 8)) uint8
    codes: Tensor  # (ceil(kept * group * bits / 8),) uint8
    scale: Tensor  # (kept,) float16
    zero: Tensor  # (ceil(kept * bits / 8),) uint8

    def __init__(
        self,
        shape: tuple[int, int],
        bits: int,
        group: int,
        mask: Tensor,
        codes: Tensor,
        scale: Tensor,
        zero: Tensor,
    ) -> None:
        super().__init__(shape)
        self.bits, self.group = bits, group
        self.setting = f"{bits} bit, groups of {group}"
        self.register_buffer("mask", own(mask, torch.uint8))
        self.register_buffer("codes", own(codes, torch.uint8))
        self.register_buffer("scale", own(scale, torch.float16))
        self.register_buffer("zero", own(zero, torch.uint8))

    @classmethod
    def of(cls, codes: Tensor, scale: Tensor, zero: Tensor, mask: Tensor, bits: int, wide: int) -> Self:
        """The term whose kept groups are (codes - zero) * scale.

        Args:
            codes: (kept, group) uint8, of the groups under the mask in row-major order.
            scale: (kept,) float16.
            zero: (kept,) uint8.
            mask: (out, groups) bool, ceil(wide / group) groups.
            bits: 2 to 8.
            wide: in.

        Raises:
            ValueError: bits is out of range, or a tensor has another shape or dtype.
        """
        _check(bits)
        kept, group = int(mask.sum()), codes.shape[1]
        expect({"mask": mask}, "mask", (len(mask), _groups(wide, group)), torch.bool)
        expect({"codes": codes}, "codes", (kept, group), torch.uint8)
        expect({"scale": scale}, "scale", (kept,), torch.float16)
        expect({"zero": zero}, "zero", (kept,), torch.uint8)
        streams = [pack_bits(t.reshape(1, -1), bits)[0] for t in (codes, zero)]
        return cls((len(mask), wide), bits, group, pack_mask(mask), streams[0], scale, streams[1])

    @staticmethod
    def suits(shapes: Mapping[str, tuple[int, int]], group: int) -> None:
        """Check that rows of these layers, by name, are as long as a group.

        Raises:
            ValueError: one is not, or the group is of no input.
        """
        least = min(wide for _, wide in shapes.values())
        for name, (_, wide) in shapes.items():
            if not 1 <= group <= wide:
                raise ValueError(
                    f"method.group={group} is out of range for in_features={wide} of {name}; "
                    f"valid: 1 to {least}"
                )

    @staticmethod
    def size(shape: tuple[int, int], bits: int, group: int, kept: int) -> int:
        """Bytes of bitmap, codes, scales and zeros."""
        bitmap = shape[0] * packed_width(_groups(shape[1], group), 1)
        return bitmap + packed_width(kept * group, bits) + 2 * kept + packed_width(kept, bits)

    @staticmethod
    def fits(
        shape: tuple[int, int], room: Room, what: str, group: int, bits: int | None = None
    ) -> tuple[int, int]:
        """Bits, and how many groups of the matrix the room lets keep; every row keeps one at least.

        Without bits given, the most with which every group fits, else USUAL bits and what fits of the
        groups. In nominal accounting the share of kept groups times bits / 16 counts.

        Raises:
            ValueError: bits is out of range, or a group is longer than a row.
            Unreachable: one group per row does not fit.
        """
        Groups.suits({what: shape}, group)
        whole = shape[0] * _groups(shape[1], group)
        depths = range(DEPTHS[-1], USUAL - 1, -1) if bits is None else [bits]
        for depth in depths:
            _check(depth)
            kept = min(whole, _kept(shape, room, group, depth))
            if kept == whole or depth == depths[-1]:
                break
        if kept < shape[0]:
            needs = Groups.size(shape, depth, group, shape[0])
            raise Unreachable(what, needs, room.nbytes, least=shape[0] / whole * depth / 16)
        return depth, kept

    @staticmethod
    def least(shape: tuple[int, int], room: Room, group: int, bits: int | None = None) -> int:
        """Bytes with one group per row; nominal: that share of the dense 16-bit bytes, rounded up."""
        depth = USUAL if bits is None else bits
        if room.nominal is not None:
            return math.ceil(2 * math.prod(shape) / _groups(shape[1], group) * depth / 16 - 1e-9)
        return Groups.size(shape, depth, group, shape[0])

    def forward(self, x: Tensor) -> Tensor:
        """X (..., in) -> (..., out) in x's dtype; the weight is laid out densely for it."""
        return F.linear(x, self.dense().to(x.dtype))  # (..., out)

    def kept(self) -> Tensor:
        """(out, groups) bool: the groups that are kept."""
        return unpack_mask(self.mask, _groups(self.in_features, self.group))

    def dense(self) -> Tensor:
        """The weight (out, in) in float32: (codes - zero) * scale where a group is kept."""
        count = len(self.scale)
        codes = unpack_bits(self.codes[None], self.bits, count * self.group).view(count, self.group)
        zero = unpack_bits(self.zero[None], self.bits, count)[0]  # (kept,)
        return laid_out(value_of(codes, self.scale, zero), self.kept(), self.in_features)

    def pack(self) -> tuple[Packed, Meta]:
        """Bitmap, codes, scales and zeros; meta carries shape, bits, group and kept."""
        meta = {"kind": self.kind, "shape": list(self.shape), "bits": self.bits, "group": self.group}
        tensors = {"mask": self.mask, "codes": self.codes, "scale": self.scale, "zero": self.zero}
        return tensors, meta | {"kept": len(self.scale)}

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], meta: Meta) -> Self:
        """The term that `pack` described.

        Raises:
            ValueError: a tensor is missing, has another shape or dtype, or the bitmap another count.
        """
        bits, group, kept, (out, wide) = meta["bits"], meta["group"], meta["kept"], meta["shape"]
        _check(bits)
        groups = _groups(wide, group)
        mask = expect(tensors, "mask", (out, packed_width(groups, 1)), torch.uint8)
        codes = expect(tensors, "codes", (packed_width(kept * group, bits),), torch.uint8)
        scale = expect(tensors, "scale", (kept,), torch.float16)
        zero = expect(tensors, "zero", (packed_width(kept, bits),), torch.uint8)
        marks = int(unpack_mask(mask, groups).sum())
        if marks != kept:
            raise ValueError(f"packed tensor 'mask' keeps {marks} groups; expected {kept}")
        return cls((out, wide), bits, group, mask, codes, scale, zero)

    def nominal(self) -> float:
        """Share of the groups that are kept, times bits of a code / 16."""
        whole = self.out_features * _groups(self.in_features, self.group)
        return len(self.scale) / whole * self.bits / 16


def laid_out(values: Tensor, mask: Tensor, wide: int) -> Tensor:
    """The weight (out, wide) of kept groups (kept, group) in row-major order; zero elsewhere."""
    weight = values.new_zeros(*mask.shape, values.shape[1])  # (out, groups, group)
    weight[mask] = values
    return weight.view(len(mask), -1)[:, :wide].contiguous()  # (out, in)


def _kept(shape: tuple[int, int], room: Room, group: int, bits: int) -> int:
    """How many groups of those bits the room holds."""
    if room.nominal is not None:
        whole = shape[0] * _groups(shape[1], group)
        return math.floor(room.nominal * 16 / bits * whole + 1e-9)
    free = room.nbytes - Groups.size(shape, bits, group, 0)
    kept = max(0, 8 * free // (bits * (group + 1) + 16))
    while kept and Groups.size(shape, bits, group, kept) > room.nbytes:
        kept -= 1
    return kept


def _groups(width: int, group: int) -> int:
    return -(-width // group)


def _check(bits: int) -> None:
    if bits not in DEPTHS:
        raise ValueError(f"bits={bits} is out of range; valid: {DEPTHS[0]} to {DEPTHS[-1]}")
