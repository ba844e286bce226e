"""Nothing at all: what a layer of a deleted branch is."""

from collections.abc import Mapping
from typing import ClassVar, Self

from torch import Tensor, zeros

from crunchmark.terms.base import Meta, Packed
from crunchmark.terms.dense import Leaf


class Zero(Leaf):
    """Stands in for a weight and its bias: y = 0, in no byte."""

    kind: ClassVar[str] = "zero"
    alone: ClassVar[bool] = True

    def forward(self, x: Tensor) -> Tensor:
        """X (..., in) -> zeros (..., out) in x's dtype."""
        return x.new_zeros(*x.shape[:-1], self.out_features)  # (..., out)

    def dense(self) -> Tensor:
        """Zeros (out, in)."""
        return zeros(self.shape)

    def pack(self) -> tuple[Packed, Meta]:
        """No tensor; meta carries the shape."""
        return {}, {"kind": self.kind, "shape": list(self.shape)}

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], meta: Meta) -> Self:
        """The term that `pack` described."""
        out, wide = meta["shape"]
        return cls((out, wide))

    def nominal(self) -> float:
        """Nothing is kept."""
        return 0.0
