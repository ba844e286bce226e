"""A constant added to every output: what keeps a mean that a smaller weight would lose."""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from crunchmark.terms.base import Meta, Packed, expect
from crunchmark.terms.dense import Leaf, dtype_name, dtype_of, own


class Shift(Leaf):
    """Stands in for a zero weight and a bias: y = value. Part of a sum."""

    kind: ClassVar[str] = "shift"
    value: Tensor  # (out,)

    def __init__(self, value: Tensor, wide: int, dtype: torch.dtype) -> None:
        super().__init__((len(value), wide))
        self.register_buffer("value", own(value, dtype))

    @classmethod
    def of(cls, value: Tensor, wide: int, dtype: torch.dtype) -> Self:
        """The term that adds value (out,) whatever the input (..., wide), stored in dtype."""
        return cls(value, wide, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """X (..., in) -> the value, (..., out) in x's dtype."""
        return self.value.to(x.dtype).expand(*x.shape[:-1], -1)  # (..., out)

    def dense(self) -> Tensor:
        """Zeros (out, in)."""
        return self.value.new_zeros(self.shape, dtype=torch.float32)

    def shift(self) -> Tensor:
        """The value (out,) in float32."""
        return self.value.float()

    def moved(self, delta: Tensor) -> "Shift":
        """The value and delta (out,) together."""
        return Shift(self.value.float() + delta, self.in_features, self.value.dtype)

    def pack(self) -> tuple[Packed, Meta]:
        """The value; meta carries shape and dtype."""
        meta = {"kind": self.kind, "shape": list(self.shape), "dtype": dtype_name(self.value.dtype)}
        return {"value": self.value}, meta

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], meta: Meta) -> Self:
        """The term that `pack` described.

        Raises:
            ValueError: the value is missing or has another shape or dtype.
        """
        dtype, (out, wide) = dtype_of(meta), meta["shape"]
        return cls(expect(tensors, "value", (out,), dtype), wide, dtype)

    def nominal(self) -> float:
        """One number for every output."""
        return 1 / self.in_features
