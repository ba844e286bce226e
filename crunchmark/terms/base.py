"""A term is what stands in for a weight: it multiplies, it packs, and it weighs what it says."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

Packed = dict[str, Tensor]
Meta = dict[str, Any]
KINDS: dict[str, type["Term"]] = {}


class Term(nn.Module, ABC):
    """Stands in for a weight (out, in). `nbytes()` equals the bytes of the tensors `pack()` returns.

    Subclasses name themselves with `kind` and are found by that name when an artifact is read.
    """

    kind: ClassVar[str]
    simulated: ClassVar[bool] = False  # True where no packed execution exists
    alone: ClassVar[bool] = False  # True: it stands in for the layer's bias as well
    setting: str = ""  # the knob a discrete term ended at, for people: "2:4", "4 bit, groups of 64"
    notes: Mapping[str, Any] = MappingProxyType({})  # how it was made, for the record; not packed

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in cls.__dict__:
            KINDS[cls.kind] = cls

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(out, in) of the weight this term stands in for."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """X (..., in) -> (..., out), computed from the packed form, in x's dtype."""

    @abstractmethod
    def dense(self) -> Tensor:
        """The weight (out, in) in float32."""

    def shift(self) -> Tensor | None:
        """What it adds to every output whatever the input, (out,) float32; None: nothing."""
        return None

    def moved(self, delta: Tensor) -> "Term":
        """This term with delta (out,) added to its shift.

        Raises:
            ValueError: it has none.
        """
        raise ValueError(f"term kind {self.kind!r} has no shift to move; valid: a term that adds one")

    @abstractmethod
    def pack(self) -> tuple[Packed, Meta]:
        """Tensors to write (contiguous, each name once) and JSON meta; `unpack` reverses it exactly."""

    @classmethod
    @abstractmethod
    def unpack(cls, tensors: Mapping[str, Tensor], meta: Meta) -> Self:
        """The term that `pack` described.

        Raises:
            ValueError: a tensor is missing or has another shape or dtype than meta says; names the field.
        """

    def noted(self, **facts: Any) -> Self:
        """This term, with JSON facts about how it was made."""
        self.notes = facts
        return self

    def nbytes(self) -> int:
        """Bytes `pack` writes."""
        return sum(t.numel() * t.element_size() for t in self.pack()[0].values())

    def nominal(self) -> float:
        """Share kept in the paper's own count (weights, parameters, bits/16)."""
        return self.nbytes() / (2 * math.prod(self.shape))


def check_finite(by: str, tensors: Iterable[tuple[str, Tensor]], dtype: torch.dtype) -> None:
    """Check what a method left: its numbers by name, which are stored in that dtype.

    Raises:
        ValueError: one is nan or inf; names it.
    """
    for name, tensor in tensors:
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            bad, valid = "nan" if tensor.isnan().any() else "inf", "finite numbers, as of another method"
            if dtype == torch.float16 and bad == "inf":  # beyond 65504
                valid = "model.dtype=bfloat16"
            stored = str(dtype).removeprefix("torch.")
            raise ValueError(f"{by} left {bad} in {name} ({stored}); valid: {valid}")


def unpack(tensors: Mapping[str, Tensor], meta: Meta) -> Term:
    """Rebuild any term from its packed tensors; meta["kind"] says which.

    Raises:
        ValueError: the kind is unknown.
    """
    if meta.get("kind") not in KINDS:
        raise ValueError(f"term kind {meta.get('kind')!r} is unknown; valid: {', '.join(sorted(KINDS))}")
    return KINDS[meta["kind"]].unpack(tensors, meta)


def expect(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The tensor of that name.

    Raises:
        ValueError: it is missing, or its shape or dtype is another; names the field.
    """
    if name not in tensors:
        raise ValueError(
            f"packed tensor {name!r} is missing; there are: {', '.join(sorted(tensors)) or 'none'}"
        )
    t = tensors[name]
    if tuple(t.shape) != shape or t.dtype != dtype:
        raise ValueError(
            f"packed tensor {name!r} has shape {tuple(t.shape)} {t.dtype}; expected {shape} {dtype}"
        )
    return t
