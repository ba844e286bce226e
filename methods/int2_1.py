"""INT2.1, untrained (Chai et al., 2023, arXiv:2306.08162): GPTQ at 2 bits and a low-rank correction."""

from collections.abc import Sequence
from dataclasses import dataclass

from crunchmark import (
    DENSE_BYTES,
    Gram,
    Layer,
    LowRank,
    Method,
    Quantised,
    Room,
    Sum,
    Term,
    balanced,
    check_grid,
    dense_bytes,
    flag,
    number,
    one_of,
    round_columns,
    spectrum,
    whole,
)

USUAL = (64, 32, -1)  # groups, the preferred first; -1 is the whole row


@dataclass(frozen=True)
class INT21(Method):
    """GPTQ at few bits; all other bytes go to a branch b a over its error.

    The paper starts the branch at zero and trains it against the dense model (LREC); training comes with
    recovery. Here it is the closed-form start: least squares on the outputs, min |(W - Q - b a) X|.
    bits: of the base. group: inputs that share a scale, -1 for the whole row, null for 64 (or 32, or the row,
    where 64 does not divide in). sym: symmetric grid. rank: of the branch at most, null for what fits.
    act_order: columns by falling Hessian diagonal. damp: share of the mean Hessian diagonal added to it.
    block: columns per lazily updated block.
    """

    bits: int = 2
    group: int | None = None
    sym: bool = False
    rank: int | None = None
    act_order: bool = False
    damp: float = 0.01
    block: int = 128

    needs = (Gram,)

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        one_of("method.bits", self.bits, range(2, 9))
        check_grid(self.group, self.sym)
        if self.rank is not None:
            whole("method.rank", self.rank, least=0)
        flag("method.act_order", self.act_order)
        number("method.damp", self.damp)
        whole("method.block", self.block)

    def sizes(self, shape: tuple[int, int], room: Room) -> Sequence[int]:
        """The base alone, and with every rank below the weight's own size."""
        base, one = Quantised.size(shape, self.bits, self._group(shape), self.sym), self._one(shape, room)
        if room.nominal is not None:
            base = -(-dense_bytes(shape) * self.bits // 16)
        most = min(self._most(shape), (dense_bytes(shape) - 1 - base) // one)
        return [base + rank * one for rank in range(max(most, 0) + 1)]

    def compress(self, layer: Layer, room: Room) -> Term:
        """Round, then the largest branch that fits."""
        group = self._group(layer.shape)
        rank = self._rank(layer.shape, room, layer.name)
        base = layer.memo("base", lambda: self._base(layer, group))
        lost = layer.weight - base.dense()  # (out, in)
        if not rank or not lost.any():
            return base
        found = layer.memo("branch", lambda: spectrum(lost, layer[Gram].value))
        basis = found.basis[:, :rank].float()  # (out, r)
        low = LowRank.of(*balanced(basis, basis.T @ lost), room.dtype)
        both = Sum([base, low]).noted(**base.notes, rank=low.rank)
        both.setting = base.setting
        return both

    def _base(self, layer: Layer, group: int) -> Term:
        factor = layer[Gram].inverse(self.damp, self.act_order)
        made = round_columns(layer.weight, factor, self.bits, group, self.sym, self.block)
        term = Quantised.of(made.codes, made.scale, None if self.sym else made.zero, self.bits, group)
        return term.noted(**factor.notes)

    def _group(self, shape: tuple[int, int]) -> int:
        """The one asked for, or the first usual one that divides in."""
        return self.group or next(g for g in USUAL if shape[1] % g == 0)

    def _one(self, shape: tuple[int, int], room: Room) -> int:
        """Bytes of one rank (nominal: in 16 bit)."""
        return (room.itemsize if room.nominal is None else DENSE_BYTES) * sum(shape)

    def _most(self, shape: tuple[int, int]) -> int:
        return min(shape) if self.rank is None else min(self.rank, *shape)

    def _rank(self, shape: tuple[int, int], room: Room, what: str) -> int:
        """What is left beside the base, in whole ranks.

        Raises:
            Unreachable: not even the base fits.
        """
        group = self._group(shape)
        Quantised.fits(shape, room, what, group, self.sym, self.bits)
        left = room.nbytes - Quantised.size(shape, self.bits, group, self.sym)
        if room.nominal is not None:
            left = int((room.nominal - self.bits / 16) * dense_bytes(shape) + 1e-6)
        return min(left // self._one(shape, room), self._most(shape))
