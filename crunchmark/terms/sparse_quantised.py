"""Kept weights as integers: what is pruned costs a mark, what is kept a code, groups a scale and a zero."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar, Self

import torch
from torch import Tensor

from crunchmark.budget import Room, Unreachable, dense_bytes
from crunchmark.rounding import value_of
from crunchmark.terms.base import Meta, Packed, expect
from crunchmark.terms.dense import own
from crunchmark.terms.kept import Kept, Layout
from crunchmark.terms.laid import Laid
from crunchmark.terms.packing import pack_bits, packed_width, pad, unpack_bits
from crunchmark.terms.quantised import check_bits, groups_of, setting_of

BITMAP = Layout()


class SparseQuantised(Laid):
    """Codes of 2 to 8 bits for the kept weights alone, in row-major order; the others are exactly zero.

    In the layout "groups" a group that is gone has neither scale nor zero.
    """

    kind: ClassVar[str] = "sparse_quantised"
    kept: Tensor  # (out, bytes) uint8, as the layout writes it
    codes: Tensor  # (ceil(kept * bits / 8),) uint8, one stream
    scale: Tensor  # (out, groups) float16; groups: (kept groups,)
    zero: Tensor | None  # bit-packed like the scale, by rows; None: 2**(bits - 1) everywhere

    def __init__(
        self,
        shape: tuple[int, int],
        layout: Layout,
        count: int,
        bits: int,
        group: int,
        kept: Tensor,
        codes: Tensor,
        scale: Tensor,
        zero: Tensor | None,
    ) -> None:
        super().__init__(shape)
        self.layout, self.count, self.bits, self.group = layout, count, bits, group
        runs = f"{count * layout.span // math.prod(shape)}:{layout.span}, " if layout.form == "nm" else ""
        self.setting = runs + setting_of(bits, group)
        self.register_buffer("kept", own(kept, torch.uint8))
        self.register_buffer("codes", own(codes, torch.uint8))
        self.register_buffer("scale", own(scale, torch.float16))
        self.register_buffer("zero", None if zero is None else own(zero, torch.uint8))

    @classmethod
    def of(cls, kept: Kept, codes: Tensor, scale: Tensor, zero: Tensor | None, bits: int, group: int) -> Self:
        """The term for (codes - zero) * scale where weights are kept.

        Args:
            kept: which are.
            codes: (out, in) uint8, of which those of kept weights count.
            scale: (out, groups) float16.
            zero: (out, groups) uint8, or None for the symmetric zero 2**(bits - 1).
            bits: 2 to 8.
            group: inputs per group, the last group may be shorter; -1: the whole row.

        Raises:
            ValueError: bits or group is out of range, or does not go with the layout or the scale's shape.
        """
        (out, wide), layout = codes.shape, kept.layout
        check_bits(bits, group)
        _check_layout(layout, wide, group)
        expect({"scale": scale}, "scale", (out, groups_of(wide, group)), torch.float16)
        stream = pack_bits(codes[kept.mask][None], bits)[0]  # (bytes,)
        marks, zeros = layout.pack(kept.mask), None
        if zero is not None:
            expect({"zero": zero}, "zero", tuple(scale.shape), torch.uint8)
        if layout.form == "groups":
            whole = kept.mask[:, :: layout.span]  # (out, groups)
            scale = scale[whole]  # (kept groups,)
            zeros = None if zero is None else pack_bits(zero[whole][None], bits)[0]  # (bytes,)
        elif zero is not None:
            zeros = pack_bits(zero, bits)  # (out, bytes)
        return cls((out, wide), layout, kept.count, bits, group, marks, stream, scale, zeros)

    @staticmethod
    def size(
        shape: tuple[int, int], kept: int, bits: int, group: int, sym: bool, layout: Layout = BITMAP
    ) -> int:
        """Bytes of marks, codes, scales and zeros, where so many weights of the whole matrix are kept."""
        (out, wide), rows = shape, shape[0]
        groups = groups_of(wide, group)
        if layout.form == "groups":
            rows, groups = 1, kept // layout.span
        zeros = 0 if sym else packed_width(groups, bits)
        return out * layout.width(wide, kept // out) + packed_width(kept, bits) + rows * (2 * groups + zeros)

    @staticmethod
    def keeps(shape: tuple[int, int], room: Room, what: str, bits: int, group: int, sym: bool = False) -> int:
        """How many weights of the matrix the room lets keep, with a bitmap and codes of that many bits.

        Raises:
            Unreachable: bitmap, scales and zeros alone are larger than the room.
        """
        count, fixed = math.prod(shape), SparseQuantised.size(shape, 0, bits, group, sym)
        kept = (room.nbytes - fixed) * 8 // bits
        if room.nominal is not None:
            kept = count - math.floor((1 - min(1.0, room.nominal * 16 / bits)) * count + 1e-9)
        if kept < 0:
            raise Unreachable(what, fixed, room.nbytes, least=0.0)
        return min(kept, count)

    @staticmethod
    def least(shape: tuple[int, int], room: Room, bits: int, group: int, sym: bool = False) -> int:
        """Bytes where nothing is kept; nominal: none."""
        return 0 if room.nominal is not None else SparseQuantised.size(shape, 0, bits, group, sym)

    def dense(self) -> Tensor:
        """The weight (out, in) in float32: (codes - zero) * scale where it is kept, else 0."""
        mask = self.mask()  # (out, in)
        (out, wide), scale, zero = self.shape, *self._grids(mask)
        groups, group = scale.shape[1], wide if self.group == -1 else self.group
        codes = mask.new_zeros(self.shape, dtype=torch.uint8)  # (out, in)
        codes.masked_scatter_(mask, unpack_bits(self.codes[None], self.bits, self.count))
        parts = pad(codes, groups * group - wide).view(out, groups, group)
        value = value_of(parts, scale, zero).view(out, -1)[:, :wide]  # (out, in)
        return value.masked_fill(~mask, 0.0)  # (out, in)

    def mask(self) -> Tensor:
        """Which weights are kept, (out, in) bool."""
        return self.layout.unpack(self.kept, self.shape, self.count)

    def _grids(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Scale float16 and zero uint8, (out, groups) each; anything where a group is gone."""
        half = 2 ** (self.bits - 1)
        if self.layout.form != "groups":
            zero = torch.full_like(self.scale, half, dtype=torch.uint8)  # (out, groups)
            if self.zero is not None:
                zero = unpack_bits(self.zero, self.bits, self.scale.shape[1])
            return self.scale, zero
        whole = mask[:, :: self.layout.span]  # (out, groups)
        scale = self.scale.new_ones(whole.shape).masked_scatter_(whole, self.scale)
        zero = torch.full_like(scale, half, dtype=torch.uint8)
        if self.zero is not None:
            zero.masked_scatter_(whole, unpack_bits(self.zero[None], self.bits, len(self.scale)))
        return scale, zero

    def pack(self) -> tuple[Packed, Meta]:
        """Marks, codes, scales and zeros; meta carries shape, form, span, count, bits, group and sym."""
        meta: Meta = {"kind": self.kind, "shape": list(self.shape), "form": self.layout.form}
        meta |= {"span": self.layout.span, "count": self.count, "bits": self.bits, "group": self.group}
        tensors = {"kept": self.kept, "codes": self.codes, "scale": self.scale}
        if self.zero is not None:
            tensors["zero"] = self.zero
        return tensors, meta | {"sym": self.zero is None}

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], meta: Meta) -> Self:
        """The term that `pack` described.

        Raises:
            ValueError: a tensor is missing, has another shape or dtype, or the marks another count.
        """
        layout, bits, group = Layout(meta["form"], meta["span"]), meta["bits"], meta["group"]
        (out, wide), count = meta["shape"], meta["count"]
        check_bits(bits, group)
        _check_layout(layout, wide, group)
        kept = expect(tensors, "kept", (out, layout.width(wide, count // out)), torch.uint8)
        codes = expect(tensors, "codes", (packed_width(count, bits),), torch.uint8)
        groups = groups_of(wide, group)
        many: tuple[int, ...] = (out, groups)
        packed: tuple[int, ...] = (out, packed_width(groups, bits))
        if layout.form == "groups":
            many, packed = (count // layout.span,), (packed_width(count // layout.span, bits),)
        scale = expect(tensors, "scale", many, torch.float16)
        zero = None if meta["sym"] else expect(tensors, "zero", packed, torch.uint8)
        layout.unpack(kept, (out, wide), count)
        return cls((out, wide), layout, count, bits, group, kept, codes, scale, zero)

    def nominal(self) -> float:
        """Share of the weights that are kept, times bits of a code / 16."""
        return self.count / math.prod(self.shape) * self.bits / 16


@dataclass(frozen=True)
class Settings:
    """What a layer can be made into, each list with the preferred first: all kept counts, bits, groups."""

    shape: tuple[int, int]
    kept: Sequence[int]
    bits: Sequence[int]
    groups: Sequence[int]
    sym: bool = False
    layout: Layout = BITMAP

    @classmethod
    def of_runs(cls, shape: tuple[int, int], m: int, bits: int, group: int, sym: bool = False) -> Self:
        """N of every m kept, n from m - 1 down to 1, in that many bits."""
        each = math.prod(shape) // m
        return cls(shape, [each * n for n in range(m - 1, 0, -1)], [bits], [group], sym, Layout("nm", m))

    def fits(self, room: Room, what: str) -> tuple[int, int, int]:
        """The most kept, then the most bits, then the first group, that fit.

        In nominal accounting the group is the widest.

        Raises:
            Unreachable: nothing fits.
        """
        sizes = self._sizes()
        fitting = [way for way, size in sizes.items() if size <= room.nbytes]
        shares = {way: self._share(way) for way in sizes}
        if room.nominal is not None:
            usual = max(self.groups)  # what papers use where bytes do not decide
            fitting = [w for w in sizes if shares[w] <= room.nominal + 1e-12 and w[2] == usual]
        if not fitting:
            raise Unreachable(what, min(sizes.values()), room.nbytes, least=min(shares.values()))
        return fitting[0]

    def sizes(self, room: Room) -> list[int]:
        """Bytes of what `fits` may give, ascending; nominal: of the dense 16-bit bytes, rounded up."""
        if room.nominal is not None:
            dense = dense_bytes(self.shape)
            return sorted({math.ceil(dense * self._share(way) - 1e-9) for way in self._sizes()})
        found: list[int] = []
        for size in self._sizes().values():
            if not found or size < found[-1]:
                found.append(size)
        return found[::-1]

    def _share(self, way: tuple[int, int, int]) -> float:
        return way[0] / math.prod(self.shape) * way[1] / 16

    def _sizes(self) -> dict[tuple[int, int, int], int]:
        ways = product(self.kept, self.bits, self.groups)
        return {w: SparseQuantised.size(self.shape, *w, self.sym, self.layout) for w in ways}


def _check_layout(layout: Layout, width: int, group: int) -> None:
    layout.check(width)
    if layout.form == "groups" and group != layout.span:
        raise ValueError(f"group={group} is not what is kept as a whole; valid: span={layout.span}")
