"""Low-rank repair of what a term left undone: W ~ Q + B A, which the papers weigh differently."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from crunchmark.budget import Room
from crunchmark.checks import fraction, whole
from crunchmark.interface import Compensator, Layer
from crunchmark.linalg import Leading, leading
from crunchmark.stats import InputMean
from crunchmark.terms import LowRank, Sum, Term


@dataclass(frozen=True)
class Branch(Compensator):
    """W ~ Q + U_r U_r^T (W - Q), with U_r the leading outputs of the error under the paper's metric.

    share: of a layer's room, in whole ranks but at least one.
    rank: of every branch; null: what the share gives.
    """

    share: float = 0.1
    rank: int | None = None

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        fraction("compensate.share", self.share)
        if self.rank is not None:
            whole("compensate.rank", self.rank)

    @abstractmethod
    def metric(self, layer: Layer) -> Tensor | None:
        """C of the error tr((W - Q) C (W - Q)^T), (in, in), of inputs as they are; None: the identity."""

    def reserve(self, shape: tuple[int, int], room: Room) -> int:
        """Bytes of both factors."""
        return self._rank(shape, room) * room.itemsize * sum(shape)

    def instead(self, spare: Mapping[tuple[int, int], int], room: Room) -> str:
        """A rank that every layer can hold."""
        if self.rank is None:
            return "a smaller compensate.share"
        most = min(nbytes // (room.itemsize * sum(shape)) for shape, nbytes in spare.items())
        return f"compensate.rank up to {most}" if most >= 1 else super().instead(spare, room)

    def _rank(self, shape: tuple[int, int], room: Room) -> int:
        asked = self.rank or max(1, int(self.share * room.nbytes) // (room.itemsize * sum(shape)))
        return min(asked, *shape)

    def repair(self, layer: Layer, term: Term, room: Room) -> Term:
        """The term and the branch; the term alone where it lost nothing.

        Where the term keeps the mean output by a shift, inputs count about their mean.
        """
        lost = layer.weight - term.dense()  # (out, in)
        if not lost.any():
            return term
        notes, setting = term.notes, term.setting
        metric = self.metric(layer)
        if metric is not None and term.shift() is not None:
            metric = metric - layer[InputMean].outer  # the shift makes up for what the mean loses
        b, a, found = truncated(lost, metric, self._rank(layer.shape, room))
        low = LowRank.of(b, a, room.dtype)
        if term.shift() is not None:  # a mean that the term kept; the branch has one of its own
            term = term.moved(-(low.dense() @ layer[InputMean].value))
        own = {"rank": low.rank, "solver": found.solver, "missed": found.missed}
        both = Sum([term, low]).noted(**{**notes, **own})  # a method with a branch notes a rank as well
        both.setting = setting
        return both


def truncated(lost: Tensor, metric: Tensor | None, rank: int) -> tuple[Tensor, Tensor, Leading]:
    """B (out, r) and a (r, in) whose product is closest to what was lost, and how they were found."""
    found = leading(lost, metric, rank)
    basis = found.basis.float()  # (out, r)
    return *balanced(basis, basis.T @ lost), found


def balanced(b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """B (out, r) of unit columns and a (r, in), each with half of the size: float16 holds small errors."""
    size = a.norm(dim=1).clamp(min=1e-30).sqrt()  # (r,)
    return b * size, a / size[:, None]
