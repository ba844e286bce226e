"""Integers in tiny groups whose scales and zeros are integers themselves (SpQR, arXiv:2306.03078)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from crunchmark.budget import Room, Unreachable, dense_bytes
from crunchmark.rounding import nested, span, value_of
from crunchmark.terms.base import Meta, Packed, expect
from crunchmark.terms.dense import own
from crunchmark.terms.laid import Laid
from crunchmark.terms.packing import WIDEST, pack_bits, packed_width, pad, unpack_bits, unsigned

DEPTHS = range(8, 1, -1)  # bits, best first


@dataclass(frozen=True)
class Group:
    """The grids of one group of inputs, row by row: as they are used, and as they are stored."""

    scale: Tensor  # (out,) float32
    zero: Tensor  # (out,) float32
    codes: Tensor  # (2, out) uint8, of scales and of zeros
    second: Tensor  # (4, runs) float16: scale and zero of the scales, scale and zero of the zeros


@dataclass(frozen=True)
class Nest:
    """How groups share: `group` inputs a scale and a zero, `rows` outputs the grids of these."""

    group: int = 16
    rows: int = 16
    scale_bits: int = 3
    zero_bits: int = 3

    def counts(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Groups of a row, and runs of rows; the last ones may be shorter."""
        return -(-shape[1] // self.group), -(-shape[0] // self.rows)

    def grid(self, w: Tensor, bits: int) -> Group:
        """The grids of a group w (out, g), from its least to its largest weight and then rounded."""
        depths, found = (self.scale_bits, self.zero_bits), torch.stack(span(w, bits))  # (2, out)
        if len(set(depths)) == 1:
            codes, scale, zero = nested(found, depths[0], self.rows)  # (2, out), (2, runs), (2, runs)
        else:
            parts = [nested(values, depth, self.rows) for values, depth in zip(found, depths, strict=True)]
            codes, scale, zero = (torch.stack(part) for part in zip(*parts, strict=True))
        used = self.values(codes.T, scale.T, zero.T).T.contiguous()  # (2, out)
        return Group(used[0], used[1], codes, torch.stack([scale, zero], 1).flatten(0, 1))

    def values(self, codes: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """What codes (out, ...) of scales or zeros stand for on the grids (runs, ...) of their rows."""
        scale, zero = (t.repeat_interleave(self.rows, 0)[: len(codes)] for t in (scale, zero))
        return value_of(codes.unsqueeze(-1), scale, zero).squeeze(-1)  # (out, ...) float32


class Bilevel(Laid):
    """Weight = (code - zero) * scale, where zero and scale of each group are codes on grids over rows."""

    kind: ClassVar[str] = "bilevel"
    codes: Tensor  # (out, ceil(in * bits / 8)) uint8
    scale: Tensor  # (out, ceil(groups * scale_bits / 8)) uint8
    zero: Tensor  # (out, ceil(groups * zero_bits / 8)) uint8
    second: Tensor  # (4, runs, groups) float16: scale and zero of the scales, scale and zero of the zeros
    order: (
        Tensor | None
    )  # (in,) int16 that holds the bits of an uint16: input of each code; None: as they are

    def __init__(
        self,
        shape: tuple[int, int],
        bits: int,
        nest: Nest,
        packed: Mapping[str, Tensor],
        order: Tensor | None,
    ) -> None:
        super().__init__(shape)
        self.bits, self.nest = bits, nest
        self.setting = f"{bits} bit, groups of {nest.group} in {nest.rows} rows"
        for name in ("codes", "scale", "zero"):
            self.register_buffer(name, own(packed[name], torch.uint8))
        self.register_buffer("second", own(packed["second"], torch.float16))
        self.register_buffer("order", None if order is None else own(order, torch.int16))

    @classmethod
    def of(
        cls, codes: Tensor, groups: Sequence[Group], bits: int, nest: Nest, order: Tensor | None = None
    ) -> Self:
        """The term of these codes.

        Args:
            codes: (out, in) uint8.
            groups: that the nest made, for its group of columns after the other.
            bits: of a code, 2 to 8.
            nest: how groups share.
            order: (in,), which input each column of codes is for; None: as they are.

        Raises:
            ValueError: a code needs more bits, there is another count of groups, or the order is none.
        """
        out, wide = codes.shape
        _check((out, wide), bits, nest, order is not None)
        count, runs = nest.counts((out, wide))
        second = torch.stack([g.second for g in groups], -1)  # (4, runs, groups)
        expect({"second": second}, "second", (4, runs, count), torch.float16)
        scale, zero = torch.stack([g.codes for g in groups], -1)  # (out, groups) each
        packed = {"codes": pack_bits(codes, bits), "second": second}
        packed |= {"scale": pack_bits(scale, nest.scale_bits), "zero": pack_bits(zero, nest.zero_bits)}
        if order is not None:
            _check_order(order, wide)
        return cls((out, wide), bits, nest, packed, order)

    @staticmethod
    def size(shape: tuple[int, int], bits: int, nest: Nest, ordered: bool) -> int:
        """Bytes of codes, scales, zeros, their grids and, where there is one, the order."""
        groups, runs = nest.counts(shape)
        row = packed_width(shape[1], bits)
        row += packed_width(groups, nest.scale_bits) + packed_width(groups, nest.zero_bits)
        return shape[0] * row + 8 * runs * groups + (2 * shape[1] if ordered else 0)

    @staticmethod
    def fits(
        shape: tuple[int, int], room: Room, what: str, nest: Nest, ordered: bool, beside: int = 0
    ) -> int:
        """The most bits, 8 to 2, that fit with `beside` bytes; nominal: bits / 16 counts.

        Raises:
            ValueError: there are more inputs than an order can name.
            Unreachable: not even 2 do.
        """
        _check(shape, DEPTHS[0], nest, ordered)
        sizes = {b: Bilevel.size(shape, b, nest, ordered) + beside for b in DEPTHS}
        fitting = [b for b, size in sizes.items() if size <= room.nbytes]
        if room.nominal is not None:
            fitting = [b for b in DEPTHS if b <= math.floor(16 * room.nominal + 1e-9)]
        if not fitting:
            raise Unreachable(what, sizes[DEPTHS[-1]], room.nbytes, least=DEPTHS[-1] / 16)
        return fitting[0]

    @staticmethod
    def nominal_sizes(shape: tuple[int, int]) -> list[int]:
        """Bits / 16 of the dense bytes, ascending."""
        return [-(-dense_bytes(shape) * b // 16) for b in DEPTHS[::-1]]

    def dense(self) -> Tensor:
        """The weight (out, in) in float32."""
        (out, wide), nest = self.shape, self.nest
        groups, _ = nest.counts(self.shape)
        scale = unpack_bits(self.scale, nest.scale_bits, groups)  # (out, groups)
        zero = unpack_bits(self.zero, nest.zero_bits, groups)  # (out, groups)
        s, z = nest.values(scale, *self.second[:2]), nest.values(zero, *self.second[2:])  # (out, groups)
        codes = pad(unpack_bits(self.codes, self.bits, wide), groups * nest.group - wide)
        value = value_of(codes.view(out, groups, nest.group), s, z).view(out, -1)[:, :wide]  # (out, in)
        if self.order is None:
            return value.contiguous()
        return torch.empty_like(value).index_copy_(1, unsigned(self.order), value)

    def pack(self) -> tuple[Packed, Meta]:
        """Codes, scales, zeros, their grids and the order; meta carries shape, bits and the nest."""
        names = ("codes", "scale", "zero", "second", *(() if self.order is None else ("order",)))
        meta = {"kind": self.kind, "shape": list(self.shape), "bits": self.bits, **asdict(self.nest)}
        return {name: self.get_buffer(name) for name in names}, meta | {"ordered": self.order is not None}

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], meta: Meta) -> Self:
        """The term that `pack` described.

        Raises:
            ValueError: a tensor is missing, has another shape or dtype, or the order is none.
        """
        bits, (out, wide) = meta["bits"], meta["shape"]
        nest = Nest(*(meta[name] for name in asdict(Nest())))
        _check((out, wide), bits, nest, meta["ordered"])
        groups, runs = nest.counts((out, wide))
        widths = {"codes": packed_width(wide, bits), "scale": packed_width(groups, nest.scale_bits)}
        widths["zero"] = packed_width(groups, nest.zero_bits)
        packed = {name: expect(tensors, name, (out, n), torch.uint8) for name, n in widths.items()}
        packed["second"] = expect(tensors, "second", (4, runs, groups), torch.float16)
        order = expect(tensors, "order", (wide,), torch.int16) if meta["ordered"] else None
        if order is not None:
            _check_order(order, wide)
        return cls((out, wide), bits, nest, packed, order)

    def nominal(self) -> float:
        """Bits of a code / 16."""
        return self.bits / 16


def _check(shape: tuple[int, int], bits: int, nest: Nest, ordered: bool) -> None:
    if bits not in DEPTHS:
        raise ValueError(f"bits={bits} is out of range; valid: 2 to 8")
    if nest.group < 1 or nest.rows < 1:
        raise ValueError(f"group={nest.group}, rows={nest.rows} are out of range; valid: positive numbers")
    if ordered and shape[1] > WIDEST:
        raise ValueError(f"in_features={shape[1]} is out of range; valid: at most {WIDEST} in an order")


def _check_order(order: Tensor, wide: int) -> None:
    if not torch.equal(unsigned(order).sort().values, torch.arange(wide, device=order.device)):
        raise ValueError(f"packed tensor 'order' does not name each of the {wide} inputs once")
