"""Which weights of a matrix are kept, and the bits that say so."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crunchmark.checks import one_of
from crunchmark.terms.base import Term
from crunchmark.terms.nm import NM, check_run
from crunchmark.terms.packing import pack_bits, pack_mask, packed_width, unpack_bits, unpack_mask
from crunchmark.terms.sparse import Sparse

FORMS = ("bitmap", "nm", "groups")


@dataclass(frozen=True)
class Layout:
    """How what is kept is written down.

    form: "bitmap", a bit for every weight; "nm", n of every `span` inputs and their positions; "groups", a
        bit for every group of `span` inputs, which is kept or gone as a whole.
    span: neighbouring inputs that belong together.
    """

    form: str = "bitmap"
    span: int = 1

    def check(self, width: int) -> None:
        """Check that spans fill a row.

        Raises:
            ValueError: they do not, or the form is unknown.
        """
        one_of("form", self.form, FORMS)
        if self.form == "nm":
            check_run(width, self.span, "the term")
        if self.span < 1 or width % self.span:
            raise ValueError(f"span={self.span} does not divide in_features={width}; valid: a divisor of it")

    def width(self, width: int, kept: int) -> int:
        """Bytes per row of that many inputs, of which so many are kept."""
        if self.form == "nm":
            return packed_width(kept, self._bits)
        return packed_width(width // self.span, 1)

    def pack(self, mask: Tensor) -> Tensor:
        """The mask (out, in) as (out, bytes) uint8.

        Raises:
            ValueError: spans do not fill a row, a group is kept in part, or runs keep unequal numbers.
        """
        out, wide = mask.shape
        self.check(wide)
        if self.form == "bitmap":
            return pack_mask(mask)  # (out, bytes)
        spans = mask.view(out, -1, self.span)  # (out, spans, span)
        counts = spans.sum(-1)  # (out, spans)
        if self.form == "groups":
            if bool(((counts > 0) & (counts < self.span)).any()):
                raise ValueError(f"the mask keeps part of a group of {self.span}; valid: whole groups")
            return pack_mask(spans[..., 0])  # (out, bytes)
        if len(counts.unique()) > 1:
            raise ValueError(f"the mask does not keep equally many of every {self.span} inputs")
        positions = spans.nonzero()[:, 2].view(out, -1).to(torch.uint8)  # (out, kept per row)
        return pack_bits(positions, self._bits)  # (out, bytes)

    def unpack(self, packed: Tensor, shape: tuple[int, int], kept: int) -> Tensor:
        """The mask (out, in) that `pack` wrote; kept: weights of the whole matrix.

        Raises:
            ValueError: it keeps another number.
        """
        out, wide = shape
        if self.form == "nm":
            n = kept * self.span // (out * wide)
            at = unpack_bits(packed, self._bits, kept // out).long().view(out, wide // self.span, n)
            runs = at.new_zeros((out, wide // self.span, self._codes), dtype=torch.bool)
            runs.scatter_(2, at, True)  # (out, runs, codes a position can have)
            mask = runs[..., : self.span].reshape(out, wide)  # (out, in)
        else:
            mask = unpack_mask(packed, wide // self.span).repeat_interleave(self.span, 1)  # (out, in)
        if int(mask.sum()) != kept:
            raise ValueError(f"packed tensor 'kept' keeps {int(mask.sum())} weights; expected {kept}")
        return mask

    @property
    def _bits(self) -> int:
        return (self.span - 1).bit_length()  # ceil(log2 m)

    @property
    def _codes(self) -> int:
        return 1 << self._bits


@dataclass(frozen=True)
class Kept:
    """A mask, and the layout it is written down in."""

    mask: Tensor  # (out, in) bool
    layout: Layout = Layout()  # frozen

    @classmethod
    def of(cls, term: Term) -> "Kept":
        """What a pruned term keeps.

        Raises:
            ValueError: the term is no pruned weight.
        """
        if isinstance(term, Sparse):
            return cls(unpack_mask(term.mask, term.in_features))
        if isinstance(term, NM):
            return cls(term.mask(), Layout("nm", term.m))
        raise ValueError(f"term kind {term.kind!r} keeps no single weights; valid: {Sparse.kind}, {NM.kind}")

    @property
    def count(self) -> int:
        """Weights that are kept."""
        return int(self.mask.sum())

    def check(self, weight: Tensor, what: str, stage: str, most: int) -> None:
        """Check that nothing that was pruned came back, and no more is kept than was asked for.

        Raises:
            ValueError: it did, or is; names the layer, the stage and how many.
        """
        back = int(((weight != 0) & ~self.mask).sum())
        if back:
            gone = self.mask.numel() - self.count
            raise ValueError(f"{what}: {stage} filled {back} of {gone} pruned weights; valid: none")
        if self.count > most:
            raise ValueError(f"{what}: {stage} keeps {self.count} weights; valid: at most {most}")
