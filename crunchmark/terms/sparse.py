"""Unstructured sparsity: a bitmap and the kept values."""

import math
from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from crunchmark.budget import Room, Unreachable
from crunchmark.terms.base import Meta, Packed, expect
from crunchmark.terms.dense import dtype_name, dtype_of, own
from crunchmark.terms.laid import Laid
from crunchmark.terms.nm import NM
from crunchmark.terms.packing import pack_mask, packed_width, top, unpack_mask

SCOPES = ("row", "layer")


class Sparse(Laid):
    """Kept weights in row-major order, and one bit for every weight that says whether it is kept."""

    kind: ClassVar[str] = "sparse"
    mask: Tensor  # (out, ceil(in / 8)) uint8
    values: Tensor  # (kept,)

    def __init__(self, shape: tuple[int, int], mask: Tensor, values: Tensor) -> None:
        super().__init__(shape)
        self.register_buffer("mask", own(mask, torch.uint8))
        self.register_buffer("values", own(values, values.dtype))

    @classmethod
    def of(cls, weight: Tensor, mask: Tensor, dtype: torch.dtype) -> Self:
        """The weights (out, in) under the bool mask (out, in); a kept zero stays kept."""
        out, wide = weight.shape
        return cls((out, wide), pack_mask(mask), weight[mask].to(dtype))

    @staticmethod
    def least(shape: tuple[int, int], room: Room) -> int:
        """Bytes where nothing is kept, those of the bitmap; nominal: none."""
        return 0 if room.nominal is not None else shape[0] * packed_width(shape[1], 1)

    @staticmethod
    def keeps(shape: tuple[int, int], room: Room, what: str) -> int:
        """How many weights of the matrix the room lets keep.

        Raises:
            Unreachable: the bitmap alone is larger than the room.
        """
        count = math.prod(shape)
        bitmap = shape[0] * packed_width(shape[1], 1)
        kept = (room.nbytes - bitmap) // room.itemsize
        if room.nominal is not None:
            kept = count - math.floor((1 - room.nominal) * count + 1e-9)
        if kept < 0:
            raise Unreachable(what, bitmap, room.nbytes, least=0.0)
        return min(kept, count)

    @classmethod
    def largest(
        cls, weight: Tensor, score: Tensor, room: Room, what: str, run: int = 0, scope: str = "row"
    ) -> "Sparse | NM":
        """Keep the weights of largest score that fit into the room; ties go to the lower index.

        Args:
            weight: (out, in).
            score: (out, in), ranked in float32.
            room: what the term may occupy.
            what: the layer's name, for messages.
            run: 0, or the m of an N:M pattern.
            scope: "row": equally many in every row; "layer": ranked over the whole matrix.

        Raises:
            ValueError: the scope is unknown, or run does not divide in.
            Unreachable: nothing is as small as the room.
        """
        out, wide = weight.shape
        if scope not in SCOPES:
            raise ValueError(f"scope={scope!r} is unknown; valid: {', '.join(SCOPES)}")
        if run:
            return NM.largest(weight, score, NM.fits((out, wide), room, run, what), run, room.dtype)
        if scope == "layer":
            mask = top(score.flatten(), cls.keeps((out, wide), room, what)).view(out, wide)  # (out, in)
        else:
            mask = top(score, cls._keeps_of_row((out, wide), room, what))  # (out, in)
        return cls.of(weight, mask, room.dtype)

    @classmethod
    def _keeps_of_row(cls, shape: tuple[int, int], room: Room, what: str) -> int:
        """How many weights each row keeps; in nominal accounting a share of every row goes, rounded down."""
        (out, wide), kept = shape, cls.keeps(shape, room, what)
        return kept // out if room.nominal is None else cls.keeps((1, wide), room, what)

    def dense(self) -> Tensor:
        """The weight (out, in) in float32."""
        return self.laid_out(torch.float32)  # (out, in)

    def laid_out(self, dtype: torch.dtype) -> Tensor:
        """The weight (out, in), rounded once to the dtype."""
        weight = self.values.new_zeros(self.shape, dtype=dtype)  # (out, in)
        return weight.masked_scatter_(unpack_mask(self.mask, self.in_features), self.values.to(dtype))

    def pack(self) -> tuple[Packed, Meta]:
        """Bitmap and values; meta carries shape, kept and dtype."""
        meta = {"kind": self.kind, "shape": list(self.shape), "kept": len(self.values)}
        return {"mask": self.mask, "values": self.values}, meta | {"dtype": dtype_name(self.values.dtype)}

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], meta: Meta) -> Self:
        """The term that `pack` described.

        Raises:
            ValueError: a tensor is missing, has another shape or dtype, or the bitmap another count.
        """
        kept, (out, wide) = meta["kept"], meta["shape"]
        mask = expect(tensors, "mask", (out, packed_width(wide, 1)), torch.uint8)
        values = expect(tensors, "values", (kept,), dtype_of(meta))
        marks = int(unpack_mask(mask, wide).sum())
        if marks != kept:
            raise ValueError(f"packed tensor 'mask' keeps {marks} weights; expected {kept}")
        return cls((out, wide), mask, values)

    def nominal(self) -> float:
        """Share of the weights that are kept."""
        return len(self.values) / math.prod(self.shape)
