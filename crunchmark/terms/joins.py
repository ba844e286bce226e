"""Terms made of terms."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from crunchmark.terms.base import Meta, Packed, Term
from crunchmark.terms.base import unpack as unpack_any


class Join(Term, ABC):
    """Several terms that stand in for one weight; tensors are named "0.<name>", "1.<name>" ..."""

    def __init__(self, terms: Sequence[Term]) -> None:
        super().__init__()
        if not terms:
            raise ValueError(f"a {self.kind} needs at least one term")
        self._check([t.shape for t in terms])
        self.parts = nn.ModuleList(terms)
        self.simulated = any(t.simulated for t in terms)  # type: ignore[misc]

    @property
    def terms(self) -> list[Term]:
        """The terms in order."""
        return list(self.parts)  # type: ignore[arg-type]

    @staticmethod
    @abstractmethod
    def _check(shapes: Sequence[tuple[int, int]]) -> None:
        """Raise ValueError where the shapes do not go together."""

    def pack(self) -> tuple[Packed, Meta]:
        """The tensors of all terms under their prefix; meta carries their metas in order."""
        packs = [t.pack() for t in self.terms]
        tensors = {f"{i}.{name}": t for i, (part, _) in enumerate(packs) for name, t in part.items()}
        return tensors, {"kind": self.kind, "terms": [meta for _, meta in packs]}

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], meta: Meta) -> Self:
        """The term that `pack` described.

        Raises:
            ValueError: a term's tensor is missing or is not what its meta says; names both.
        """
        return cls([_part(tensors, i, sub) for i, sub in enumerate(meta["terms"])])

    def nominal(self) -> float:
        """What the terms keep, each weighed by its own size, over the size of the whole."""
        return sum(t.nominal() * math.prod(t.shape) for t in self.terms) / math.prod(self.shape)


class Sum(Join):
    """The sum of terms of one shape: a compressed weight and its repair."""

    kind: ClassVar[str] = "sum"

    @staticmethod
    def _check(shapes: Sequence[tuple[int, int]]) -> None:
        if any(s != shapes[0] for s in shapes):
            raise ValueError(f"terms of a sum must have one shape, these have {list(shapes)}")

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in), the shape of every term."""
        return self.terms[0].shape

    def forward(self, x: Tensor) -> Tensor:
        """X (..., in) -> (..., out): the sum of what the terms give."""
        total: Tensor = self.terms[0](x)  # (..., out)
        for term in self.terms[1:]:
            total = total + term(x)  # (..., out)
        return total

    def dense(self) -> Tensor:
        """The weight (out, in) in float32."""
        total = self.terms[0].dense()  # (out, in)
        for term in self.terms[1:]:
            total = total + term.dense()  # (out, in)
        return total

    def shift(self) -> Tensor | None:
        """What the terms add together."""
        found = [s for term in self.terms if (s := term.shift()) is not None]
        return torch.stack(found).sum(0) if found else None  # (out,)

    def moved(self, delta: Tensor) -> "Sum":
        """With the first of its terms that has a shift moved.

        Raises:
            ValueError: none has one.
        """
        terms = self.terms
        at = next((i for i, term in enumerate(terms) if term.shift() is not None), 0)
        terms[at] = terms[at].moved(delta)
        return Sum(terms)


class Product(Join):
    """The matrix product of terms (m, k), (k, n): the last one meets the input first."""

    kind: ClassVar[str] = "product"

    @staticmethod
    def _check(shapes: Sequence[tuple[int, int]]) -> None:
        if any(left[1] != right[0] for left, right in pairwise(shapes)):
            raise ValueError(f"shapes {list(shapes)} can not be multiplied in this order")

    @property
    def shape(self) -> tuple[int, int]:
        """(out of the first term, in of the last)."""
        return (self.terms[0].shape[0], self.terms[-1].shape[1])

    def forward(self, x: Tensor) -> Tensor:
        """X (..., in) -> (..., out), through the terms from last to first."""
        for term in reversed(self.terms):
            x = term(x)  # (..., out of the term)
        return x

    def dense(self) -> Tensor:
        """The weight (out, in) in float32."""
        product = self.terms[0].dense()  # (out, ...)
        for term in self.terms[1:]:
            product = product @ term.dense()  # (out, in of the term)
        return product


def _part(tensors: Mapping[str, Tensor], index: int, meta: Meta) -> Term:
    prefix = f"{index}."
    own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    try:
        return unpack_any(own, meta)
    except ValueError as error:
        raise ValueError(f"term {index}: {error}") from error
