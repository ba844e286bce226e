"""Columns with one entry in each of their segments."""

import math
from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from crunchmark.terms.base import Meta, Packed, expect
from crunchmark.terms.dense import dtype_name, dtype_of, own
from crunchmark.terms.laid import Laid
from crunchmark.terms.packing import pack_bits, packed_width, unpack_bits

LONGEST = 256  # rows of a segment: an index takes at most 8 bits


class Segments(Laid):
    """Rows are cut into segments of `length`; every column keeps one value of each, and where it stands."""

    kind: ClassVar[str] = "segments"
    values: Tensor  # (segments, in)
    index: Tensor | None  # (segments, bytes) uint8, ceil(log2 length) bits each; None: length is 1

    def __init__(
        self, shape: tuple[int, int], values: Tensor, index: Tensor | None, dtype: torch.dtype
    ) -> None:
        super().__init__(shape)
        self.length = shape[0] // len(values)
        self.setting = f"1 of {self.length}"
        self.register_buffer("values", own(values, dtype))
        self.register_buffer("index", None if index is None else own(index, torch.uint8))

    @classmethod
    def of(cls, values: Tensor, index: Tensor, length: int, dtype: torch.dtype) -> Self:
        """The term with `values` (segments, in) at row `index` (segments, in) uint8 of their segments.

        Raises:
            ValueError: length is out of range, the index has another shape, or points behind a segment.
        """
        _check(length)
        expect({"index": index}, "index", tuple(values.shape), torch.uint8)
        if index.numel() and int(index.max()) >= length:
            raise ValueError(f"index {int(index.max())} is outside segments of length={length}")
        packed = pack_bits(index, _bits(length)) if length > 1 else None
        return cls((len(values) * length, values.shape[1]), values, packed, dtype)

    @staticmethod
    def size(segments: int, length: int, wide: int, itemsize: int) -> int:
        """Bytes of values and indices."""
        return segments * (itemsize * wide + packed_width(wide, _bits(length)))

    def dense(self) -> Tensor:
        """The weight (out, in) in float32."""
        return self.laid_out(torch.float32)  # (out, in)

    def laid_out(self, dtype: torch.dtype) -> Tensor:
        """The weight (out, in), rounded once to the dtype."""
        (out, wide), count = self.shape, len(self.values)
        at = torch.zeros(count, 1, wide, dtype=torch.int64, device=self.values.device)
        if self.index is not None:
            at = unpack_bits(self.index, _bits(self.length), wide).long()[:, None]  # (segments, 1, in)
        weight = self.values.new_zeros(count, self.length, wide, dtype=dtype)
        return weight.scatter_(1, at, self.values.to(dtype)[:, None]).view(out, wide)  # (out, in)

    def pack(self) -> tuple[Packed, Meta]:
        """Values and indices; meta carries shape, segments and dtype."""
        meta = {"kind": self.kind, "shape": list(self.shape), "segments": len(self.values)}
        tensors = {"values": self.values}
        if self.index is not None:
            tensors["index"] = self.index
        return tensors, meta | {"dtype": dtype_name(self.values.dtype)}

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], meta: Meta) -> Self:
        """The term that `pack` described.

        Raises:
            ValueError: a tensor is missing, has another shape or dtype, or an index is behind its segment.
        """
        dtype, count, (out, wide) = dtype_of(meta), meta["segments"], meta["shape"]
        length = out // count
        _check(length)
        values = expect(tensors, "values", (count, wide), dtype)
        if length == 1:
            return cls((out, wide), values, None, dtype)
        index = expect(tensors, "index", (count, packed_width(wide, _bits(length))), torch.uint8)
        most = int(unpack_bits(index, _bits(length), wide).max())
        if most >= length:
            raise ValueError(f"packed tensor 'index' holds {most}; expected below {length}")
        return cls((out, wide), values, index, dtype)

    def nominal(self) -> float:
        """Share of the entries that are kept."""
        return self.values.numel() / math.prod(self.shape)


def _bits(length: int) -> int:
    return (length - 1).bit_length()


def _check(length: int) -> None:
    if not 1 <= length <= LONGEST:
        raise ValueError(f"length={length} is out of range; valid: 1 to {LONGEST}")
