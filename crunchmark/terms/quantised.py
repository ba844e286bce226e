"""Affine integers in groups along the inputs."""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import ClassVar, Self

import torch
from torch import Tensor

from crunchmark.budget import Room, Unreachable, dense_bytes
from crunchmark.rounding import value_of
from crunchmark.terms.base import Meta, Packed, expect
from crunchmark.terms.dense import own
from crunchmark.terms.laid import Holder, Kernel, Laid
from crunchmark.terms.packing import pack_bits, packed_width, pad, unpack_bits

LEAST, MOST = 2, 8  # bits
GROUPS = (32, 64, 128, -1)  # smallest first; -1 is the whole row


class Quantised(Laid):
    """Codes of 2 to 8 bits with a float16 scale per group, and a zero per group unless symmetric."""

    kind: ClassVar[str] = "quantised"
    codes: Tensor | None  # (out, ceil(in * bits / 8)) uint8; None: the kernel holds them
    scale: Tensor  # (out, groups) float16
    zero: Tensor | None  # codes (out, ceil(groups * bits / 8)) uint8, or real numbers (out, groups) float16;
    # None: 2**(bits - 1) everywhere

    def __init__(
        self, shape: tuple[int, int], bits: int, group: int, codes: Tensor, scale: Tensor, zero: Tensor | None
    ) -> None:
        super().__init__(shape)
        self.bits, self.group = bits, group
        self.setting = setting_of(bits, group)
        self.register_buffer("codes", own(codes, torch.uint8))
        self.register_buffer("scale", own(scale, torch.float16))
        self.register_buffer("zero", None if zero is None else own(zero, zero.dtype))

    @classmethod
    def of(cls, codes: Tensor, scale: Tensor, zero: Tensor | None, bits: int, group: int) -> Self:
        """The term for (codes - zero) * scale.

        Args:
            codes: (out, in) uint8.
            scale: (out, groups) float16.
            zero: (out, groups) uint8, a code, or float16, a real number between codes; None for the symmetric
                zero 2**(bits - 1).
            bits: 2 to 8.
            group: inputs per group, the last group may be shorter; -1: the whole row.

        Raises:
            ValueError: bits or group is out of range, or scale or zero has another shape or dtype.
        """
        out, wide = codes.shape
        check_bits(bits, group)
        expect({"scale": scale}, "scale", (out, groups_of(wide, group)), torch.float16)
        zeros = zero  # (out, groups)
        if zero is not None:
            real = zero.dtype == torch.float16
            expect({"zero": zero}, "zero", tuple(scale.shape), torch.float16 if real else torch.uint8)
            zeros = zero if real else pack_bits(zero, bits)  # (out, groups) or (out, bytes)
        return cls((out, wide), bits, group, pack_bits(codes, bits), scale, zeros)

    @staticmethod
    def size(shape: tuple[int, int], bits: int, group: int, sym: bool, real: bool = False) -> int:
        """Bytes of codes, scales and zeros; real: these are float16."""
        groups = groups_of(shape[1], group)
        zeros = 0 if sym else 2 * groups if real else packed_width(groups, bits)
        return shape[0] * (packed_width(shape[1], bits) + 2 * groups + zeros)

    @staticmethod
    def fits(
        shape: tuple[int, int],
        room: Room,
        what: str,
        group: int | None = None,
        sym: bool = False,
        bits: int | None = None,
        real: bool = False,
    ) -> tuple[int, int]:
        """The most bits that fit, then the smallest group that fits with them.

        Only the group given counts, else 32, 64, 128 where they divide in, and the row; only the bits
        given, else 8 down to 2. In nominal accounting bits / 16 counts and the group is the usual one.

        Raises:
            ValueError: bits is out of range, or group does not divide in.
            Unreachable: no setting fits.
        """
        depths = _depths(bits)
        groups = groups_for(shape[1], group)
        check_bits(depths[0], groups[0])
        check_group(shape[1], groups[0], what)
        sizes = {(b, g): Quantised.size(shape, b, g, sym, real) for b in depths for g in groups}
        fitting = [setting for setting, size in sizes.items() if size <= room.nbytes]
        if room.nominal is not None:
            most = math.floor(16 * room.nominal + 1e-9)
            fitting = [(b, _usual(groups)) for b in depths if b <= most]
        if not fitting:
            raise Unreachable(what, min(sizes.values()), room.nbytes, least=min(depths) / 16)
        return fitting[0]

    @staticmethod
    def sizes(
        shape: tuple[int, int],
        room: Room,
        group: int | None = None,
        sym: bool = False,
        bits: int | None = None,
        real: bool = False,
    ) -> list[int]:
        """Bytes of every setting that `fits` can choose, ascending; nominal: bits / 16 of the dense bytes."""
        depths = _depths(bits)
        if room.nominal is not None:
            return sorted(-(-dense_bytes(shape) * b // 16) for b in depths)
        groups = groups_for(shape[1], group)
        found: list[int] = []
        for b, g in product(depths, groups):  # what is preferred comes first
            size = Quantised.size(shape, b, g, sym, real)
            if not found or size < found[-1]:
                found.append(size)
        return found[::-1]

    def run_by(self, kernel: Kernel | None) -> Self:
        """This leaf with another kernel, or without one; codes are kept once."""
        codes = self.pack()[0]["codes"]
        self.codes = None if isinstance(kernel, Holder) else codes
        return super().run_by(kernel)

    def unpacked(self) -> Tensor:
        """The codes (out, in) uint8."""
        if self.codes is not None:
            return unpack_bits(self.codes, self.bits, self.shape[1])  # (out, in)
        assert isinstance(self.kernel, Holder)
        return self.kernel.codes()  # (out, in)

    def zeros(self) -> Tensor:
        """The zeros (out, groups): codes uint8, or float16 where they are real numbers."""
        if self.zero is not None and self._real:
            return self.zero  # (out, groups)
        if self.zero is not None:
            return unpack_bits(self.zero, self.bits, self.scale.shape[1])  # (out, groups)
        return torch.full_like(self.scale, 2 ** (self.bits - 1), dtype=torch.uint8)  # (out, groups)

    def dense(self) -> Tensor:
        """The weight (out, in) in float32: (codes - zero) * scale."""
        out, wide = self.shape
        groups = self.scale.shape[1]
        group = wide if self.group == -1 else self.group
        codes = pad(self.unpacked(), groups * group - wide)  # (out, groups * group)
        value = value_of(codes.view(out, groups, group), self.scale, self.zeros())  # (out, groups, group)
        return value.view(out, -1)[:, :wide].contiguous()  # (out, in)

    @property
    def _real(self) -> bool:
        return self.zero is not None and self.zero.dtype == torch.float16

    def pack(self) -> tuple[Packed, Meta]:
        """Codes, scales and zeros; meta carries shape, bits, group, sym, and real where zeros are float16."""
        meta = {"kind": self.kind, "shape": list(self.shape), "bits": self.bits, "group": self.group}
        codes = pack_bits(self.unpacked(), self.bits) if self.codes is None else self.codes
        tensors = {"codes": codes, "scale": self.scale}
        if self.zero is not None:
            tensors["zero"] = self.zero
        return tensors, meta | {"sym": self.zero is None} | ({"real": True} if self._real else {})

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], meta: Meta) -> Self:
        """The term that `pack` described.

        Raises:
            ValueError: a tensor is missing, or has another shape or dtype.
        """
        bits, group, (out, wide) = meta["bits"], meta["group"], meta["shape"]
        check_bits(bits, group)
        groups = groups_of(wide, group)
        codes = expect(tensors, "codes", (out, packed_width(wide, bits)), torch.uint8)
        scale = expect(tensors, "scale", (out, groups), torch.float16)
        zero = None
        if meta.get("real"):
            zero = expect(tensors, "zero", (out, groups), torch.float16)
        elif not meta["sym"]:
            zero = expect(tensors, "zero", (out, packed_width(groups, bits)), torch.uint8)
        return cls((out, wide), bits, group, codes, scale, zero)

    def nominal(self) -> float:
        """Bits of a code / 16."""
        return self.bits / 16


def setting_of(bits: int, group: int) -> str:
    """Bits and group for people."""
    return f"{bits} bit, " + ("whole rows" if group == -1 else f"groups of {group}")


def groups_of(width: int, group: int) -> int:
    """How many groups a row has."""
    return 1 if group == -1 else -(-width // group)


def _depths(bits: int | None) -> Sequence[int]:
    return range(MOST, LEAST - 1, -1) if bits is None else [bits]  # the preferred first


def _usual(groups: list[int]) -> int:
    return max(groups)  # what papers use where bytes do not decide


def check_bits(bits: int, group: int) -> None:
    """Check bits and group of a term.

    Raises:
        ValueError: one is out of range.
    """
    if not LEAST <= bits <= MOST:
        raise ValueError(f"bits={bits} is out of range; valid: {LEAST} to {MOST}")
    if group < 1 and group != -1:
        raise ValueError(f"method.group={group} is out of range; valid: a positive number, or -1 (whole row)")


def groups_for(width: int, group: int | None) -> list[int]:
    """The group given, else those that divide in, the finest first."""
    return [group] if group is not None else [g for g in GROUPS if width % g == 0]


def check_group(width: int, group: int, what: str) -> None:
    """Check that groups fill the rows of a layer.

    Raises:
        ValueError: they do not; lists those that do.
    """
    if width % group:
        valid = [f"{g}, " for g in range(8, width, 8) if width % g == 0]
        raise ValueError(
            f"method.group={group} does not divide in_features={width} of {what}; "
            f"valid: {''.join(valid)}-1 (whole row)"
        )
