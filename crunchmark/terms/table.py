"""Codes into a table of values that each output row has for itself (SqueezeLLM, arXiv:2306.07629)."""

import math
from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from crunchmark.budget import Room, Unreachable, dense_bytes
from crunchmark.terms.base import Meta, Packed, expect
from crunchmark.terms.dense import dtype_name, dtype_of, own
from crunchmark.terms.laid import Laid
from crunchmark.terms.packing import pack_bits, packed_width, unpack_bits

DEPTHS = range(8, 1, -1)  # bits, best first


class Table(Laid):
    """Weight = table[row, code]."""

    kind: ClassVar[str] = "table"
    codes: Tensor  # (out, ceil(in * bits / 8)) uint8
    table: Tensor  # (out, 2**bits)

    def __init__(self, shape: tuple[int, int], codes: Tensor, table: Tensor) -> None:
        super().__init__(shape)
        self.bits = (table.shape[1] - 1).bit_length()
        if table.shape[1] != 2**self.bits or self.bits not in DEPTHS:
            valid = ", ".join(str(2**b) for b in DEPTHS[::-1])
            raise ValueError(f"the table has {table.shape[1]} values a row; valid: {valid}")
        self.setting = f"{self.bits} bit, tables of rows"
        self.register_buffer("codes", own(codes, torch.uint8))
        self.register_buffer("table", own(table, table.dtype))

    @classmethod
    def of(cls, codes: Tensor, table: Tensor) -> Self:
        """The term of codes (out, in) uint8 and a table (out, 2**bits) in the dtype it is stored in.

        Raises:
            ValueError: another count of values, or a code without one.
        """
        out, wide = codes.shape
        return cls((out, wide), pack_bits(codes, (table.shape[1] - 1).bit_length()), table)

    @staticmethod
    def size(shape: tuple[int, int], bits: int, itemsize: int) -> int:
        """Bytes of codes and table."""
        return shape[0] * (packed_width(shape[1], bits) + (itemsize << bits))

    @staticmethod
    def fits(shape: tuple[int, int], room: Room, what: str, beside: int = 0) -> int:
        """The most bits, 8 to 2, that fit with `beside` bytes; nominal: bits / 16 counts, the table is free.

        Raises:
            Unreachable: not even 2 do.
        """
        sizes = {b: Table.size(shape, b, room.itemsize) + beside for b in DEPTHS}
        fitting = [b for b, size in sizes.items() if size <= room.nbytes]
        if room.nominal is not None:
            fitting = [b for b in DEPTHS if b <= math.floor(16 * room.nominal + 1e-9)]
        if not fitting:
            raise Unreachable(what, min(sizes.values()), room.nbytes, least=DEPTHS[-1] / 16)
        return fitting[0]

    @staticmethod
    def sizes(shape: tuple[int, int], room: Room, beside: int = 0) -> list[int]:
        """Bytes of every number of bits with `beside`, ascending; nominal: bits / 16 of the dense bytes."""
        if room.nominal is not None:
            return [-(-dense_bytes(shape) * b // 16) for b in DEPTHS[::-1]]
        return [Table.size(shape, b, room.itemsize) + beside for b in DEPTHS[::-1]]

    def dense(self) -> Tensor:
        """The weight (out, in) in float32."""
        codes = unpack_bits(self.codes, self.bits, self.in_features)  # (out, in)
        return self.table.float().gather(1, codes.long())

    def pack(self) -> tuple[Packed, Meta]:
        """Codes and table; meta carries shape, bits and dtype."""
        meta = {"kind": self.kind, "shape": list(self.shape), "bits": self.bits}
        return {"codes": self.codes, "table": self.table}, meta | {"dtype": dtype_name(self.table.dtype)}

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], meta: Meta) -> Self:
        """The term that `pack` described.

        Raises:
            ValueError: a tensor is missing, or has another shape or dtype.
        """
        bits, (out, wide) = meta["bits"], meta["shape"]
        codes = expect(tensors, "codes", (out, packed_width(wide, bits)), torch.uint8)
        return cls((out, wide), codes, expect(tensors, "table", (out, 2**bits), dtype_of(meta)))

    def nominal(self) -> float:
        """Bits of a code / 16; the table is left out."""
        return self.bits / 16
