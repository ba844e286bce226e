"""Short runs of inputs replaced by the nearest word of a codebook."""

import math
from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from crunchmark.budget import Room, Unreachable, dense_bytes
from crunchmark.checks import one_of, whole
from crunchmark.terms.base import Meta, Packed, expect
from crunchmark.terms.dense import dtype_name, dtype_of, own
from crunchmark.terms.laid import Laid
from crunchmark.terms.packing import pack_bits, packed_width, unpack_bits

BITS = range(8, 1, -1)  # of a code, best first
LONGEST = 8  # weights of a run


class Codebook(Laid):
    """Runs of `length` neighbouring inputs are words: a row of the book, or that row lifted.

    A code has log2 of the words in bits. Without a lift words are as long as a run.
    """

    kind: ClassVar[str] = "codebook"
    codes: Tensor  # (out, ceil(in / length * bits / 8)) uint8
    book: Tensor  # (words, dims)
    lift: Tensor | None  # (dims, length); None: dims is length

    def __init__(
        self, shape: tuple[int, int], codes: Tensor, book: Tensor, lift: Tensor | None, dtype: torch.dtype
    ) -> None:
        super().__init__(shape)
        words, dims = book.shape
        self.length = dims if lift is None else lift.shape[1]
        self.bits = (words - 1).bit_length()
        if words != 2**self.bits or self.bits not in BITS:
            raise ValueError(f"the book has {words} words; valid: {', '.join(str(2**b) for b in BITS[::-1])}")
        self.setting = f"{self.bits} bit, length {self.length}" + ("" if lift is None else f", {dims} dims")
        self.register_buffer("codes", own(codes, torch.uint8))
        self.register_buffer("book", own(book, dtype))
        self.register_buffer("lift", None if lift is None else own(lift, dtype))

    @classmethod
    def of(cls, codes: Tensor, book: Tensor, lift: Tensor | None, dtype: torch.dtype) -> Self:
        """The term whose run r of row o is book[codes[o, r]], times the lift if there is one.

        Args:
            codes: (out, in / length), below the words.
            book: (words, dims), 4 to 256 words, a power of two.
            lift: (dims, length) or None.
            dtype: how book and lift are stored.

        Raises:
            ValueError: another count of words, or a code without a word.
        """
        bits = (len(book) - 1).bit_length()
        length = book.shape[1] if lift is None else lift.shape[1]
        return cls((len(codes), codes.shape[1] * length), pack_bits(codes, bits), book, lift, dtype)

    @staticmethod
    def size(shape: tuple[int, int], bits: int, length: int, itemsize: int, dims: int | None = None) -> int:
        """Bytes of codes, book and, where dims is given, the lift from it."""
        codes = shape[0] * packed_width(shape[1] // length, bits)
        words = 1 << bits
        numbers = words * length if dims is None else dims * (words + length)
        return codes + itemsize * numbers

    @staticmethod
    def fits(
        shape: tuple[int, int],
        room: Room,
        what: str,
        bits: int | None = None,
        length: int | None = None,
        lifted: bool = False,
        dims: int | None = None,
    ) -> tuple[int, int]:
        """Bits and length with the most bits per weight that fit; of equals the longest runs.

        Only bits and length given count, else 8 to 2 bits and every length up to 8 that divides in.
        A layer must have as many runs as there are words. In nominal accounting the book is free.

        Args:
            shape: (out, in).
            room: what to fit into.
            what: name of the layer.
            bits: of a code.
            length: weights of a run.
            lifted: there is a lift.
            dims: of the words that are lifted, null: as many as the length.

        Raises:
            ValueError: length does not divide in, is less than dims, or there are fewer runs than words.
            Unreachable: no setting fits.
        """
        sizes = _sizes(shape, room, what, bits, length, lifted, dims)
        fitting = [pair for pair, size in sizes.items() if size <= room.nbytes]
        if room.nominal is not None:
            fitting = [(b, n) for b, n in sizes if b / n <= 16 * room.nominal + 1e-9]
        if not fitting:
            least = min(b / n for b, n in sizes) / 16
            raise Unreachable(what, min(sizes.values()), room.nbytes, least=least)
        return fitting[0]

    @staticmethod
    def sizes(
        shape: tuple[int, int],
        room: Room,
        bits: int | None = None,
        length: int | None = None,
        lifted: bool = False,
        dims: int | None = None,
    ) -> list[int]:
        """Bytes of what `fits` may give, ascending; nominal: of the dense 16-bit bytes, rounded up.

        A setting counts where no smaller one has as many bits per weight.
        """
        made = _sizes(shape, room, "layer", bits, length, lifted, dims)
        if room.nominal is not None:
            return sorted({math.ceil(dense_bytes(shape) * b / n / 16 - 1e-9) for b, n in made})
        found: list[int] = []
        for size in made.values():  # the most bits per weight first
            if not found or size < found[0]:
                found.insert(0, size)
        return found

    def dense(self) -> Tensor:
        """The weight (out, in) in float32."""
        return self.laid_out(torch.float32)  # (out, in)

    def laid_out(self, dtype: torch.dtype) -> Tensor:
        """The weight (out, in), rounded once to the dtype."""
        out, wide = self.shape
        words = self.book.float() if self.lift is None else self.book.float() @ self.lift.float()
        codes = unpack_bits(self.codes, self.bits, wide // self.length)  # (out, in / length)
        return F.embedding(codes.int(), words.to(dtype)).view(out, wide)  # (out, in)

    def pack(self) -> tuple[Packed, Meta]:
        """Codes, book and lift; meta carries shape, words, dims, length and dtype."""
        words, dims = self.book.shape
        meta = {"kind": self.kind, "shape": list(self.shape), "words": words, "dims": dims}
        tensors = {"codes": self.codes, "book": self.book}
        if self.lift is not None:
            tensors["lift"] = self.lift
        told = {"length": self.length, "lift": self.lift is not None, "dtype": dtype_name(self.book.dtype)}
        return tensors, meta | told

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], meta: Meta) -> Self:
        """The term that `pack` described.

        Raises:
            ValueError: a tensor is missing, or has another shape or dtype.
        """
        dtype, length, (out, wide) = dtype_of(meta), meta["length"], meta["shape"]
        width = packed_width(wide // length, (meta["words"] - 1).bit_length())
        codes = expect(tensors, "codes", (out, width), torch.uint8)
        book = expect(tensors, "book", (meta["words"], meta["dims"]), dtype)
        lift = expect(tensors, "lift", (meta["dims"], length), dtype) if meta["lift"] else None
        return cls((out, wide), codes, book, lift, dtype)

    def nominal(self) -> float:
        """Bits of a code per weight / 16; the book is left out."""
        return self.bits / self.length / 16


def check_words(bits: int | None, length: int | None, dims: int | None = None) -> None:
    """Check the knobs of a codebook.

    Raises:
        ValueError: bits is neither null nor 2 to 8, length or dims neither null nor a whole number above 0,
            or there are more dims than a run is long.
    """
    one_of("method.bits", bits, (None, *BITS[::-1]))
    for name, value in (("length", length), ("dims", dims)):
        if value is not None:
            whole(f"method.{name}", value)
    if dims is not None and dims > (length or LONGEST):
        raise ValueError(f"method.dims={dims} is out of range; valid: null or 1 to {length or LONGEST}")


def check_runs(
    shapes: Mapping[str, tuple[int, int]], bits: int | None, length: int | None, dims: int | None = None
) -> None:
    """Check the knobs of a codebook against all layers of a model.

    Raises:
        ValueError: a layer has no setting; of lengths, those are valid that divide in everywhere.
    """
    widths = {name: wide for name, (_, wide) in shapes.items()}
    for name, shape in shapes.items():
        if length is not None:
            _divides(length, name, widths)
        _sizes(shape, Room(0), name, bits, length, False, dims)


def _divides(length: int, what: str, widths: Mapping[str, int]) -> None:
    if widths[what] % length == 0:
        return
    common = math.gcd(*widths.values())
    valid = ", ".join(str(n) for n in range(1, min(common, 64) + 1) if common % n == 0)
    raise ValueError(
        f"method.length={length} does not divide in_features={widths[what]} of {what}; valid: null or {valid}"
    )


def _sizes(
    shape: tuple[int, int],
    room: Room,
    what: str,
    bits: int | None,
    length: int | None,
    lifted: bool,
    dims: int | None,
) -> dict[tuple[int, int], int]:
    """Bytes by bits and length, for all settings a layer can have; the most bits per weight first."""
    if length is not None:
        _divides(length, what, {what: shape[1]})
    lengths = range(1, LONGEST + 1) if length is None else [length]
    runs = {n: shape[0] * shape[1] // n for n in lengths if shape[1] % n == 0 and n >= (dims or 1)}
    pairs = [(b, n) for b in (BITS if bits is None else [bits]) for n in runs if runs[n] >= 2**b]
    if not pairs:
        raise ValueError(_none(shape, what, bits, length, dims))
    pairs.sort(key=lambda pair: (pair[0] / pair[1], pair[1]), reverse=True)
    lifts = {n: (dims or n) if lifted else None for n in runs}
    return {(b, n): Codebook.size(shape, b, n, room.itemsize, lifts[n]) for b, n in pairs}


def _none(shape: tuple[int, int], what: str, bits: int | None, length: int | None, dims: int | None) -> str:
    """Why no setting is left."""
    asked = f"method.bits={bits}, method.length={length}, method.dims={dims}"
    most = math.floor(math.log2(math.prod(shape) / max(length or 1, dims or 1)))
    return f"{asked} want more runs than {what} has {shape}; valid: bits up to {most}, dims up to the length"
