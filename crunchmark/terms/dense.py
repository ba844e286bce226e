"""The uncompressed weight, and what all leaves share."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from crunchmark.budget import Room
from crunchmark.terms.base import Meta, Packed, Term, expect

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a dtype as meta carries it, "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def dtype_of(meta: Meta) -> torch.dtype:
    """The dtype that meta["dtype"] names.

    Raises:
        ValueError: it is no dtype that real numbers are stored in.
    """
    if meta.get("dtype") not in DTYPES:
        raise ValueError(f"dtype {meta.get('dtype')!r} is unknown; valid: {', '.join(DTYPES)}")
    return DTYPES[meta["dtype"]]


def own(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A contiguous copy in that dtype which shares memory with nothing."""
    return tensor.detach().to(dtype, copy=True).contiguous()


class Leaf(Term):
    """A term that holds tensors. `.to()` moves them and never changes how they are stored."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.out_features, self.in_features = shape

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the weight this term stands in for."""
        return (self.out_features, self.in_features)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow `fn` to another device only: a cast would change the bytes that were accounted."""
        super()._apply(lambda t: t.to(fn(t.new_empty(0)).device), recurse)
        return self


class Dense(Leaf):
    """The weight itself, in the dtype real numbers are stored in."""

    kind: ClassVar[str] = "dense"
    weight: Tensor  # (out, in)

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        out, wide = weight.shape
        super().__init__((out, wide))
        self.register_buffer("weight", own(weight, dtype))

    @classmethod
    def of(cls, weight: Tensor, room: Room) -> Self:
        """The weight (out, in), stored in the room's dtype."""
        return cls(weight, room.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """X (..., in) -> (..., out) in x's dtype."""
        return F.linear(x, self.weight.to(x.dtype))  # (..., out)

    def dense(self) -> Tensor:
        """The weight (out, in) in float32."""
        return self.weight.float()  # (out, in)

    def pack(self) -> tuple[Packed, Meta]:
        """The weight and its shape and dtype."""
        meta: dict[str, Any] = {"kind": self.kind, "shape": list(self.shape)}
        return {"weight": self.weight}, meta | {"dtype": dtype_name(self.weight.dtype)}

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], meta: Meta) -> Self:
        """The term that `pack` described.

        Raises:
            ValueError: "weight" is missing or has another shape or dtype.
        """
        dtype, (out, wide) = dtype_of(meta), meta["shape"]
        return cls(expect(tensors, "weight", (out, wide), dtype), dtype)

    def nominal(self) -> float:
        """Everything is kept."""
        return 1.0
