"""NormalFloat codes with double-quantised block scales."""

from collections.abc import Callable, Mapping, Sequence
from math import ceil, prod
from typing import ClassVar, Self

import torch
from torch import Tensor

from crunchmark.budget import Room, Unreachable, dense_bytes
from crunchmark.normal import Blocks, NormalGrid, check_normal
from crunchmark.terms.base import Meta, Packed, expect
from crunchmark.terms.dense import own
from crunchmark.terms.laid import Laid
from crunchmark.terms.packing import pack_bits, packed_width, unpack_bits

# Of b, b0 in 2, 3, 4, 8, B0 in 16, 32, 64 and B1 in 16, 64, 256 those with at least 2 % less error on normal
# weights than any that is smaller; the largest first.
GRIDS: Sequence[NormalGrid] = tuple(
    NormalGrid(*numbers)
    for numbers in (
        *((8, 8, 16, 256), (8, 8, 32, 256), (8, 8, 64, 256), (8, 4, 64, 16), (8, 4, 64, 64)),
        *((8, 4, 64, 256), (8, 3, 64, 16), (8, 3, 64, 64), (8, 3, 64, 256), (8, 2, 64, 16)),
        *((8, 2, 64, 64), (8, 2, 64, 256)),
        *((4, 8, 16, 256), (4, 4, 16, 256), (4, 3, 16, 16), (4, 3, 16, 64), (4, 3, 16, 256)),
        *((4, 4, 32, 256), (4, 3, 32, 16), (4, 3, 32, 256), (4, 4, 64, 16), (4, 3, 64, 256)),
        *((4, 2, 64, 16), (4, 2, 64, 64), (4, 2, 64, 256)),
        *((3, 4, 16, 256), (3, 3, 16, 256), (3, 2, 16, 16), (3, 2, 16, 64), (3, 2, 16, 256)),
        *((3, 3, 32, 64), (3, 2, 32, 16), (3, 2, 32, 256), (3, 4, 64, 256), (3, 2, 64, 256)),
        *((2, 3, 16, 64), (2, 2, 16, 256), (2, 2, 32, 256), (2, 2, 64, 256)),
    )
)
SCALE_BITS = 16  # of the largest scale of a run
Beside = Callable[[int], int]  # bytes of a term -> bytes of what is stored with it


class NormalFloat(Laid):
    """Codes of 2, 3, 4 or 8 bits; the weight is read as one row, so that blocks may span two of its own."""

    kind: ClassVar[str] = "normal_float"
    codes: Tensor  # (ceil(out * in * bits / 8),) uint8
    scale: Tensor  # (ceil(blocks * scale_bits / 8),) uint8
    top: Tensor  # (runs,) bfloat16
    offset: Tensor  # (1,) float32

    def __init__(
        self,
        shape: tuple[int, int],
        grid: NormalGrid,
        codes: Tensor,
        scale: Tensor,
        top: Tensor,
        offset: Tensor,
    ) -> None:
        super().__init__(shape)
        self.grid, self.setting = grid, str(grid)
        self.register_buffer("codes", own(codes, torch.uint8))
        self.register_buffer("scale", own(scale, torch.uint8))
        self.register_buffer("top", own(top, torch.bfloat16))
        self.register_buffer("offset", own(offset, torch.float32))

    @classmethod
    def of(cls, shape: tuple[int, int], blocks: Blocks) -> Self:
        """The term for a rounded weight of that shape.

        Raises:
            ValueError: another number of codes or scales, or bits without a grid.
        """
        grid = blocks.grid
        check_normal(grid)
        count, runs = grid.counts(prod(shape))
        expect({"codes": blocks.codes}, "codes", (prod(shape),), torch.uint8)
        expect({"scale": blocks.scale}, "scale", (count,), torch.uint8)
        expect({"top": blocks.top}, "top", (runs,), torch.bfloat16)
        codes, scale = (
            pack_bits(blocks.codes[None], grid.bits),
            pack_bits(blocks.scale[None], grid.scale_bits),
        )
        return cls(shape, grid, codes[0], scale[0], blocks.top, blocks.offset)

    @staticmethod
    def size(shape: tuple[int, int], grid: NormalGrid) -> int:
        """Bytes of codes, codes of scales, the runs' largest, and the offset."""
        weights = prod(shape)
        blocks, runs = grid.counts(weights)
        return packed_width(weights, grid.bits) + packed_width(blocks, grid.scale_bits) + 2 * runs + 4

    @staticmethod
    def fits(
        shape: tuple[int, int],
        room: Room,
        what: str,
        grids: Sequence[NormalGrid] = GRIDS,
        beside: Beside = lambda _: 0,
    ) -> NormalGrid:
        """The first grid that fits.

        In nominal accounting bits a weight count: b + b0 / B0 + 16 / (B0 B1), and 8 for a byte beside it.

        Args:
            shape: (out, in).
            room: what to fit into.
            what: name of the layer.
            grids: the best first.
            beside: bytes of what is stored with a term of so many.

        Raises:
            Unreachable: none fits.
        """
        made = _made(shape, room, grids, beside)
        fitting = [grid for grid, (size, _) in made.items() if size <= room.nbytes]
        if room.nominal is not None:
            fitting = [grid for grid, (_, share) in made.items() if share <= room.nominal + 1e-12]
        if not fitting:
            least = min(share for _, share in made.values())
            raise Unreachable(what, min(size for size, _ in made.values()), room.nbytes, least=least)
        return fitting[0]

    @staticmethod
    def sizes(
        shape: tuple[int, int],
        room: Room,
        grids: Sequence[NormalGrid] = GRIDS,
        beside: Beside = lambda _: 0,
    ) -> list[int]:
        """Bytes of what `fits` may give, ascending; nominal: of the dense 16-bit bytes, rounded up."""
        found: list[int] = []
        for size, share in _made(shape, room, grids, beside).values():  # the best first
            nbytes = size if room.nominal is None else ceil(share * dense_bytes(shape) - 1e-9)
            if not found or nbytes < found[0]:
                found.insert(0, nbytes)
        return found

    def dense(self) -> Tensor:
        """The weight (out, in) in float32: the level of a code times the scale of its block."""
        weights = prod(self.shape)
        codes = unpack_bits(self.codes[None], self.grid.bits, weights)[0]  # (out * in,)
        scale = unpack_bits(self.scale[None], self.grid.scale_bits, self.grid.counts(weights)[0])[0]
        return Blocks(self.grid, codes, scale, self.top, self.offset).value().view(self.shape)

    def pack(self) -> tuple[Packed, Meta]:
        """Codes, codes of scales, the runs' largest and the offset; meta carries shape and grid."""
        meta = {"kind": self.kind, "shape": list(self.shape), **self.grid._asdict()}
        return {"codes": self.codes, "scale": self.scale, "top": self.top, "offset": self.offset}, meta

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], meta: Meta) -> Self:
        """The term that `pack` described.

        Raises:
            ValueError: a tensor is missing or has another shape or dtype, or a number of bits has no grid.
        """
        out, wide = meta["shape"]
        grid = NormalGrid(*(meta[name] for name in NormalGrid._fields))
        check_normal(grid)
        blocks, runs = grid.counts(out * wide)
        codes = expect(tensors, "codes", (packed_width(out * wide, grid.bits),), torch.uint8)
        scale = expect(tensors, "scale", (packed_width(blocks, grid.scale_bits),), torch.uint8)
        top = expect(tensors, "top", (runs,), torch.bfloat16)
        return cls((out, wide), grid, codes, scale, top, expect(tensors, "offset", (1,), torch.float32))

    def nominal(self) -> float:
        """Bits a weight / 16, scales included as in the paper, the offset not."""
        return _bits(self.grid) / 16


def _bits(grid: NormalGrid) -> float:
    return grid.bits + grid.scale_bits / grid.block + SCALE_BITS / (grid.block * grid.run)


def _made(
    shape: tuple[int, int], room: Room, grids: Sequence[NormalGrid], beside: Beside
) -> dict[NormalGrid, tuple[int, float]]:
    """Bytes and the nominal share of every grid with what is stored beside it."""
    found = {}
    for grid in grids:
        size = NormalFloat.size(shape, grid)
        more = beside(size)
        found[grid] = (size + more, _bits(grid) / 16 + more / dense_bytes(shape))
    return found
