"""A product of two thin factors."""

import math
from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from crunchmark.budget import DENSE_BYTES, Room, Unreachable
from crunchmark.terms.base import Meta, Packed, expect
from crunchmark.terms.dense import Leaf, dtype_name, dtype_of, own


class LowRank(Leaf):
    """Stands in for b @ a: y = (x a^T) b^T, executed from the factors."""

    kind: ClassVar[str] = "low_rank"
    b: Tensor  # (out, rank)
    a: Tensor  # (rank, in)

    def __init__(self, b: Tensor, a: Tensor, dtype: torch.dtype) -> None:
        if b.shape[1] != a.shape[0]:
            raise ValueError(f"factors {tuple(b.shape)} and {tuple(a.shape)} do not share a rank")
        super().__init__((b.shape[0], a.shape[1]))
        self.register_buffer("b", own(b, dtype))
        self.register_buffer("a", own(a, dtype))

    @classmethod
    def of(cls, b: Tensor, a: Tensor, dtype: torch.dtype) -> Self:
        """The term for b (out, rank) @ a (rank, in), stored in dtype."""
        return cls(b, a, dtype)

    @staticmethod
    def fits(shape: tuple[int, int], room: Room, what: str, align: int = 1, extra: int = 0) -> int:
        """The largest rank whose factors fit into the room, at most min(out, in).

        Ranks above `align` are rounded down to a multiple of it.
        extra: real numbers stored beside the factors.

        Raises:
            Unreachable: not even rank one fits.
        """
        out, wide = shape
        one = room.itemsize * (out + wide)
        rank = (room.nbytes - room.itemsize * extra) // one
        if room.nominal is not None:
            rank = math.floor((room.nominal * out * wide - extra) / (out + wide) + 1e-9)
        if rank < 1:
            needs, least = one + room.itemsize * extra, (out + wide + extra) / (out * wide)
            raise Unreachable(what, needs, room.nbytes, least=least)
        rank = min(rank, out, wide)
        return max(rank - rank % align, min(rank, align))

    @staticmethod
    def sizes(shape: tuple[int, int], room: Room, align: int = 1, extra: int = 0) -> list[int]:
        """Bytes at every rank of `fits` with less than the weight itself, ascending; last the weight's.

        Nominal: parameters, in 16 bit.
        """
        itemsize = room.itemsize if room.nominal is None else DENSE_BYTES
        (out, wide), full = shape, itemsize * shape[0] * shape[1]
        ranks = (*range(1, align), *range(align, min(shape) + 1, align))
        found = (itemsize * (rank * (out + wide) + extra) for rank in ranks)
        return [*(size for size in found if size < full), full]

    @property
    def rank(self) -> int:
        """Columns of b and rows of a."""
        return self.a.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """X (..., in) -> (..., out) in x's dtype, through the rank."""
        return F.linear(F.linear(x, self.a.to(x.dtype)), self.b.to(x.dtype))  # (..., out)

    def dense(self) -> Tensor:
        """The weight (out, in) in float32."""
        return self.b.float() @ self.a.float()  # (out, in)

    def pack(self) -> tuple[Packed, Meta]:
        """Both factors; meta carries shape, rank and dtype."""
        meta = {"kind": self.kind, "shape": list(self.shape), "rank": self.rank}
        return {"b": self.b, "a": self.a}, meta | {"dtype": dtype_name(self.a.dtype)}

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], meta: Meta) -> Self:
        """The term that `pack` described.

        Raises:
            ValueError: a factor is missing or has another shape or dtype.
        """
        dtype, rank, (out, wide) = dtype_of(meta), meta["rank"], meta["shape"]
        return cls(expect(tensors, "b", (out, rank), dtype), expect(tensors, "a", (rank, wide), dtype), dtype)

    def nominal(self) -> float:
        """Share of the parameters: rank * (out + in) / (out * in)."""
        return self.rank * (self.out_features + self.in_features) / (self.out_features * self.in_features)
