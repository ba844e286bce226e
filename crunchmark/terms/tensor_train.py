"""A chain of small tensors whose contraction is the weight."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from crunchmark.budget import DENSE_BYTES, Room, Unreachable
from crunchmark.mpo import Chain
from crunchmark.terms.base import Meta, Packed, expect
from crunchmark.terms.dense import Leaf, dtype_name, dtype_of, own


class TensorTrain(Leaf):
    """Stands in for the contraction of cores (bond, rows, cols, next bond).

    It is executed from the cores, in whichever of two ways multiplies less: core by core, which is cheaper
    for a few tokens, or by laying the weight out first. Either multiplies more than the dense layer at any
    bond that is of use: parameters shrink, computation does not.
    """

    kind: ClassVar[str] = "tensor_train"

    def __init__(self, cores: Sequence[Tensor], dtype: torch.dtype) -> None:
        ends = [(c.shape[0], c.shape[-1]) for c in cores]
        closed = bool(ends) and ends[0][0] == ends[-1][1] == 1
        if not closed or any(c.ndim != 4 for c in cores) or any(a[1] != b[0] for a, b in pairwise(ends)):
            raise ValueError(f"cores {[tuple(c.shape) for c in cores]} are no chain from bond 1 to bond 1")
        self.rows, self.cols = [c.shape[1] for c in cores], [c.shape[2] for c in cores]
        super().__init__((math.prod(self.rows), math.prod(self.cols)))
        self.setting = f"{len(cores)} cores"
        for k, core in enumerate(cores):
            self.register_buffer(f"core{k}", own(core, dtype))

    @classmethod
    def of(cls, cores: Sequence[Tensor], dtype: torch.dtype) -> Self:
        """The term for these cores, stored in dtype.

        Raises:
            ValueError: the bonds do not fit together.
        """
        return cls(cores, dtype)

    @staticmethod
    def fits(chain: Chain, room: Room, what: str) -> tuple[int, ...]:
        """The largest bonds whose cores fit into the room.

        Raises:
            Unreachable: not even bonds of one fit.
        """
        whole, least = math.prod(chain.sites), chain.count(1)
        numbers = room.nbytes // room.itemsize if room.nominal is None else room.nominal * whole * (1 + 1e-12)
        most = chain.fits(numbers)
        if most < 1:
            raise Unreachable(what, room.itemsize * least, room.nbytes, least=least / whole)
        return chain.bonds(most)

    @staticmethod
    def sizes(chain: Chain, room: Room) -> list[int]:
        """Bytes at every bond with less than the weight itself, ascending; last the weight's.

        Nominal: parameters, in 16 bit.
        """
        itemsize = room.itemsize if room.nominal is None else DENSE_BYTES
        full = itemsize * math.prod(chain.sites)
        found = (itemsize * chain.count(bond) for bond in range(1, max(chain.caps, default=1) + 1))
        return [*(size for size in found if size < full), full]

    @property
    def cores(self) -> list[Tensor]:
        """The cores in order, (bond, rows, cols, next bond)."""
        return [self.get_buffer(f"core{k}") for k in range(len(self.rows))]

    @property
    def bonds(self) -> list[int]:
        """What neighbouring cores share."""
        return [core.shape[3] for core in self.cores[:-1]]

    def macs(self, tokens: int) -> tuple[int, int]:
        """Multiplications for that many inputs: core by core, and by laying the weight out first."""
        by_core = layout = 0
        for k, core in enumerate(self.cores):
            rows, above, below = (math.prod(n) for n in (self.rows[:k], self.cols[:k], self.cols[k + 1 :]))
            by_core += rows * below * core.numel()
            layout += rows * above * core.numel() if k else 0
        return tokens * by_core, layout + tokens * math.prod(self.shape)

    def forward(self, x: Tensor) -> Tensor:
        """X (..., in) -> (..., out) in x's dtype."""
        by_core, layout = self.macs(x.numel() // self.in_features)
        if by_core > layout:
            return F.linear(x, self._weight(x.dtype))  # (..., out)
        state = x.reshape(-1, 1, 1, self.in_features)  # (tokens, rows done, bond, inputs left)
        for core in self.cores:
            split = state.unflatten(3, (core.shape[2], -1))  # (tokens, rows done, bond, cols, inputs left)
            state = torch.einsum("tdbir,bjic->tdjcr", split, core.to(x.dtype)).flatten(1, 2)
        return state.reshape(*x.shape[:-1], self.out_features)  # (..., out)

    def dense(self) -> Tensor:
        """The weight (out, in) in float32."""
        return self._weight(torch.float32)  # (out, in)

    def _weight(self, dtype: torch.dtype) -> Tensor:
        first, *others = (core.to(dtype) for core in self.cores)
        state = first[0]  # (rows done, cols done, bond)
        for core in others:
            state = torch.einsum("rcb,bjid->rjcid", state, core).flatten(2, 3).flatten(0, 1)
        return state[..., 0]  # (out, in)

    def pack(self) -> tuple[Packed, Meta]:
        """The cores; meta carries shape, rows, cols, bonds and dtype."""
        meta = {"kind": self.kind, "shape": list(self.shape), "rows": self.rows, "cols": self.cols}
        told = {"bonds": self.bonds, "dtype": dtype_name(self.cores[0].dtype)}
        return {f"core{k}": core for k, core in enumerate(self.cores)}, meta | told

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], meta: Meta) -> Self:
        """The term that `pack` described.

        Raises:
            ValueError: a core is missing or has another shape or dtype.
        """
        dtype, ends = dtype_of(meta), (1, *meta["bonds"], 1)
        shapes = zip(ends, meta["rows"], meta["cols"], ends[1:], strict=False)
        return cls([expect(tensors, f"core{k}", shape, dtype) for k, shape in enumerate(shapes)], dtype)

    def nominal(self) -> float:
        """Share of the parameters."""
        return sum(core.numel() for core in self.cores) / math.prod(self.shape)
