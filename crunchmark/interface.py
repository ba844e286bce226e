"""What the harness asks of a paper. Weights are (out, in); statistics are over a layer's inputs.

Two contracts for methods and no third: `Method` sees one linear layer, `ModelMethod` sees the model.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from torch import Tensor

from crunchmark.budget import Plan, Room, Unreachable, dense_bytes
from crunchmark.stats import Stat
from crunchmark.terms import Dense, Term

if TYPE_CHECKING:
    from crunchmark.calib import Calibration
    from crunchmark.view import View

T = TypeVar("T")
S = TypeVar("S", bound=Stat)


class Skip(Exception):
    """This combination can not work; the reason becomes a `skipped` row."""


@dataclass(frozen=True)
class Layer:
    """One linear layer as a method sees it: nothing here leads back to the model."""

    name: str  # dotted path, "model.layers.3.mlp.up_proj"
    weight: Tensor  # (out, in), float32, the method's own copy
    stats: Mapping[type[Stat], Stat] = field(default_factory=dict)
    seed: int = 0  # from the run's seed and the name; 0 where the method does not say `random`
    memo: Callable[[str, Callable[[], T]], T] = lambda key, make: make()  # for cells of the same method
    common: Callable[[str, Callable[[], T]], T] = lambda key, make: (
        make()
    )  # for all methods of the same needs

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.weight.shape[0], self.weight.shape[1]

    def __getitem__(self, kind: type[S]) -> S:
        """The statistic of that kind; the walker gathered it because the method `needs` it."""
        return self.stats[kind]  # type: ignore[return-value]


class Keyed:
    """What a config makes: its repr is part of the keys of cells and of shared work."""

    def __repr__(self) -> str:
        """Class and knobs, for those that are no dataclass: an address would be another key every time."""
        knobs = (f"{name}={value!r}" for name, value in sorted(vars(self).items()) if name[0] != "_")
        return f"{type(self).__qualname__}({', '.join(knobs)})"


class Method(Keyed, ABC):
    """A paper's rule for one layer. Pure: no model, no files, no randomness but the layer's seed."""

    needs: ClassVar[tuple[type[Stat], ...]] = ()  # gathered by the walker before compress is called
    random: ClassVar[bool] = False  # True: it draws from the layer's seed, so that seeds are other cells
    parent: ClassVar[bool] = False  # True: the dense parent itself, which no budget applies to
    unit: str = "layer"  # what can only be compressed together: "layer", "branch" or "block"

    def sizes(self, shape: tuple[int, int], room: Room) -> Sequence[int] | None:
        """Packed sizes in bytes a layer of that shape can have, ascending; None: any.

        Of the room only the dtype counts, and the accounting: nominal sizes are the paper's shares of the
        dense 16-bit bytes. A plan gives such a layer one of its sizes, and what that leaves over to others.
        """
        return None

    def least(self, shape: tuple[int, int], room: Room) -> int:
        """Where any size will do: bytes of the smallest term (nominal: that share of the dense ones).

        Of the room only the dtype and the accounting count, as in `sizes`.
        """
        return 0

    def suits(self, shapes: Mapping[str, tuple[int, int]]) -> None:  # most have nothing to check
        """Check the knobs against all layers, by name, before any of them is compressed.

        Raises:
            ValueError: a knob does not go with a layer; says what goes with all of them.
        """

    def leaves(self, role: str) -> bool:
        """Whether layers of that role (q, k, v, qkv, o, gate, up, down) stay dense, at the others' cost."""
        return False

    @abstractmethod
    def compress(self, layer: Layer, room: Room) -> Term:
        """Return a term that stands in for layer.weight and packs into at most room.nbytes.

        Raises:
            Unreachable: nothing this method can make is as small as the room.
        """


class Keep(Method):
    """Keeps every weight: the dense parent, and any method at budget 0."""

    parent = True

    def compress(self, layer: Layer, room: Room) -> Term:
        """The weight in the room's 16-bit dtype, which in bytes takes a room for all of it."""
        if room.nominal is None and not room.whole(layer.shape):
            raise Unreachable(layer.name, dense_bytes(layer.shape), room.nbytes)
        return Dense.of(layer.weight, room)


class ModelMethod(Keyed, ABC):
    """A paper's rule that does not fit one layer at a time; it edits the model through the view."""

    covers: ClassVar[tuple[str, ...]] = ("allocate", "compensate")  # stages it does itself or has no use for
    rooms: ClassVar[bool] = False  # True: it leaves a term in every layer's room, of a size of `likeness`
    parent: ClassVar[bool] = False

    @property
    def likeness(self) -> Method | None:
        """A layer method with the same effect on outputs, for allocators to try; None: there is none."""
        return None

    def check(self, view: "View", plan: Plan) -> None:  # most obey no plan of others
        """Check that the smallest model of this method is within the plan, whatever the plan's shares.

        Raises:
            Unreachable: it is not; the nearest budget is one at which it is.
        """

    @abstractmethod
    def compress(self, view: "View", plan: Plan, calib: "Calibration") -> Mapping[str, Term] | None:
        """Edit the model in place so that its scope packs into at most plan.total bytes.

        Returns:
            Terms by layer name, put into the model as well (`site.install`), where layers are to be stored
            as terms; None: the model's own layers hold what is left. Whatever else it changes (norms, biases)
            it leaves as plan.dtype stores it.

        Raises:
            Unreachable: nothing this method can make is as small as the plan.
            Skip: the model family can not be compressed this way; the reason is recorded.
        """


class Compensator(Keyed, ABC):
    """Repairs the error a term left, with bytes reserved from the same room."""

    needs: ClassVar[tuple[type[Stat], ...]] = ()

    @abstractmethod
    def reserve(self, shape: tuple[int, int], room: Room) -> int:
        """Bytes taken from the room before the method spends the rest."""

    def instead(self, spare: Mapping[tuple[int, int], int], room: Room) -> str:
        """What to ask for, where no budget is large enough for this repair.

        spare: by shape, bytes a repair can have beside the smallest term of a layer that is not dense.
        """
        return "compensate=none"

    @abstractmethod
    def repair(self, layer: Layer, term: Term, room: Room) -> Term:
        """Return the term with its repair added; the repair packs into what `reserve` took of the room."""


class Allocator(Keyed, ABC):
    """Splits a total over layers."""

    needs: ClassVar[tuple[type[Stat], ...]] = ()  # of the layers that the trial shows
    looks: ClassVar[bool] = False  # True: at the calibration tokens
    tries: ClassVar[bool] = False  # True: it has layers compressed before it decides

    @abstractmethod
    def allocate(self, trial: "Trial", layers: Mapping[str, tuple[int, int]], total: int) -> Plan:
        """Rooms per layer name, for shapes (out, in), that sum to at most total bytes."""


class Trial(ABC):
    """What an allocator may ask before rooms are fixed: answers are those of the dense model, and kept.

    A share is what a layer keeps of its dense bytes (nominal accounting: of the paper's own count), 0 to 1.
    """

    share: float  # that all layers keep together
    blocks: Sequence[Sequence[str]]  # names of layers by block
    units: Sequence[Sequence[str]]  # names of layers that can only go up or down together
    roles: Mapping[str, str]  # name -> q, k, v, qkv, o, gate, up, down
    samples: int  # calibration sequences that `loss` may be asked about
    seed: int

    @abstractmethod
    def layer(self, name: str) -> Layer:
        """The layer with what method and allocator need to know of its inputs."""

    @abstractmethod
    def sizes(self, name: str) -> Sequence[float] | None:
        """Shares the method can make of that layer, ascending; None: any."""

    @abstractmethod
    def error(self, name: str, keep: float, of: str = "outputs") -> float:
        """Share of its "outputs", or "weights" (by Fisher if needed), that it loses then; inf: it can not."""

    @abstractmethod
    def spectrum(self, name: str) -> Tensor:
        """Energy of each direction of the layer's outputs, descending, (min(out, in),) float64."""

    @abstractmethod
    def influence(self) -> Sequence[float]:
        """1 - mean cosine of a block's input and output, per block (arXiv:2403.03853)."""

    @abstractmethod
    def loss(self, keeps: Mapping[str, float], samples: Sequence[int], kind: str = "kl") -> float:
        """Loss of the model whose layers keep these shares, on these calibration sequences.

        kind: "kl", the mean divergence from the dense next-token distributions; "nll", nats per token.
        Inf where a layer can not be that small.
        """

    @abstractmethod
    def fit(
        self, keeps: Mapping[str, float], equal: bool = False, fixed: Collection[str] = (), **notes: Any
    ) -> Plan:
        """The plan nearest to these shares: shifted together until they sum to the total, then made sizes.

        equal: shares stay equal, also where a layer can then not be made and a shift would help.
        fixed: layers that no shift takes from; they keep what they are given to within a size.
        """


class Recoverer(ABC):
    """Trains what the terms declare trainable, on data disjoint from evaluation data."""

    @abstractmethod
    def recover(self, view: "View", calib: "Calibration") -> Mapping[str, Any]:
        """Train in place; return tokens and seconds for the row."""


class CacheCodec(ABC):
    """A key-value cache compressor: active while tasks run."""

    @abstractmethod
    def active(self, model: Any) -> AbstractContextManager[None]:
        """Compress the cache inside this context."""
