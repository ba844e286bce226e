"""N:M sparsity: in every run of m consecutive inputs of a row exactly n weights are kept."""

import math
from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from crunchmark.budget import Room, Unreachable, dense_bytes
from crunchmark.terms.base import Meta, Packed, expect
from crunchmark.terms.dense import dtype_name, dtype_of, own
from crunchmark.terms.laid import Laid
from crunchmark.terms.packing import pack_bits, packed_width, top, unpack_bits

LONGEST = 256  # a position inside a run takes at most 8 bits


def check_run(width: int, m: int, what: str, common: int | None = None) -> None:
    """Check that runs of m fill rows of that width.

    common: divisor of all widths that runs are wanted for.

    Raises:
        ValueError: they do not, or m is no length a run can have; lists the lengths that work.
    """
    if 2 <= m <= LONGEST and width % m == 0:
        return
    common = common or width
    valid = [str(d) for d in range(2, min(common, LONGEST) + 1) if common % d == 0]
    raise ValueError(
        f"method.run={m} does not divide in_features={width} of {what}; "
        f"valid: a divisor from 2 to {LONGEST}: {', '.join(valid) or 'there is none'}"
    )


class NM(Laid):
    """Kept values of every run, and their positions inside it."""

    kind: ClassVar[str] = "nm"
    values: Tensor  # (out, in / m * n)
    positions: Tensor  # (out, bytes) uint8, ceil(log2 m) bits for each value

    def __init__(self, shape: tuple[int, int], n: int, m: int, values: Tensor, positions: Tensor) -> None:
        super().__init__(shape)
        check_run(shape[1], m, "the term")
        self.n, self.m = n, m
        self.setting = f"{n}:{m}"
        self.register_buffer("values", own(values, values.dtype))
        self.register_buffer("positions", own(positions, torch.uint8))

    @classmethod
    def of(cls, weight: Tensor, mask: Tensor, n: int, m: int, dtype: torch.dtype) -> Self:
        """The weights under the mask; a kept zero stays kept.

        Args:
            weight: (out, in).
            mask: (out, in) bool, n marks in each run of m.
            n: weights kept of a run.
            m: length of a run.
            dtype: how values are stored.

        Raises:
            ValueError: m does not divide in, or a run has another count of marks.
        """
        out, wide = weight.shape
        check_run(wide, m, "the weight")
        runs = mask.view(out, wide // m, m)  # (out, runs, m)
        if bool((runs.sum(-1) != n).any()):
            raise ValueError(f"the mask does not keep exactly n={n} of every m={m}")
        positions = runs.nonzero()[:, 2].view(out, -1).to(torch.uint8)  # (out, runs * n)
        values = weight[mask].view(out, -1).to(dtype)  # (out, runs * n)
        return cls((out, wide), n, m, values, pack_bits(positions, _bits(m)))

    @classmethod
    def largest(cls, weight: Tensor, score: Tensor, n: int, m: int, dtype: torch.dtype) -> Self:
        """Keep the n weights of largest score in each run of m; ties go to the lower index."""
        out, wide = weight.shape
        check_run(wide, m, "the weight")
        mask = top(score.reshape(out, wide // m, m), n).view(out, wide)  # (out, in)
        return cls.of(weight, mask, n, m, dtype)

    @staticmethod
    def size(shape: tuple[int, int], n: int, m: int, itemsize: int) -> int:
        """Bytes of values and positions."""
        kept = shape[1] // m * n
        return shape[0] * (kept * itemsize + packed_width(kept, _bits(m)))

    @staticmethod
    def suits(shapes: Mapping[str, tuple[int, int]], m: int) -> None:
        """Check that runs of m fill the rows of all layers, by name; 0: there are no runs.

        Raises:
            ValueError: they do not; lists the lengths that work everywhere.
        """
        common = math.gcd(*(wide for _, wide in shapes.values()))
        for name, (_, wide) in shapes.items():
            if m:
                check_run(wide, m, name, common)

    @staticmethod
    def fits(shape: tuple[int, int], room: Room, m: int, what: str) -> int:
        """The largest n from 1 to m - 1 that fits into the room.

        Raises:
            ValueError: m does not divide in.
            Unreachable: not even n = 1 fits.
        """
        check_run(shape[1], m, what)
        if room.nominal is not None:
            n = min(m - 1, math.floor(room.nominal * m + 1e-9))
        else:
            fitting = (k for k in range(m - 1, 0, -1) if NM.size(shape, k, m, room.itemsize) <= room.nbytes)
            n = next(fitting, 0)
        if n < 1:
            raise Unreachable(what, NM.size(shape, 1, m, room.itemsize), room.nbytes, least=1 / m)
        return n

    @staticmethod
    def sizes(shape: tuple[int, int], room: Room, m: int) -> list[int]:
        """Bytes at every n of `fits`, ascending; nominal: n / m of the dense 16-bit bytes."""
        ns = range(1, m)
        if room.nominal is not None:
            return [dense_bytes(shape) * n // m for n in ns]
        return [NM.size(shape, n, m, room.itemsize) for n in ns]

    def dense(self) -> Tensor:
        """The weight (out, in) in float32."""
        return self.laid_out(torch.float32)  # (out, in)

    def laid_out(self, dtype: torch.dtype) -> Tensor:
        """The weight (out, in), rounded once to the dtype."""
        out, wide = self.shape
        index = unpack_bits(self.positions, _bits(self.m), self.values.shape[1]).long()  # (out, runs * n)
        runs = self.values.new_zeros((out, wide // self.m, self.m), dtype=dtype)  # (out, runs, m)
        values = self.values.to(dtype).view(out, -1, self.n)  # (out, runs, n)
        return runs.scatter_(2, index.view_as(values), values).view(out, wide)  # (out, in)

    def mask(self) -> Tensor:
        """Which weights are kept, (out, in) bool; a kept zero is."""
        ones = torch.ones_like(self.values)
        return type(self)(self.shape, self.n, self.m, ones, self.positions).laid_out(torch.uint8).bool()

    def pack(self) -> tuple[Packed, Meta]:
        """Values and positions; meta carries shape, n, m and dtype."""
        meta = {"kind": self.kind, "shape": list(self.shape), "n": self.n, "m": self.m}
        tensors = {"values": self.values, "positions": self.positions}
        return tensors, meta | {"dtype": dtype_name(self.values.dtype)}

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], meta: Meta) -> Self:
        """The term that `pack` described.

        Raises:
            ValueError: a tensor is missing, or has another shape or dtype.
        """
        n, m, (out, wide) = meta["n"], meta["m"], meta["shape"]
        kept = wide // m * n
        values = expect(tensors, "values", (out, kept), dtype_of(meta))
        positions = expect(tensors, "positions", (out, packed_width(kept, _bits(m))), torch.uint8)
        return cls((out, wide), n, m, values, positions)

    def nominal(self) -> float:
        """Share of the weights: n / m."""
        return self.n / self.m


def _bits(m: int) -> int:
    return (m - 1).bit_length()  # ceil(log2 m)
