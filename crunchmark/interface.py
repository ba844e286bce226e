"""What the harness asks of a paper. Weights are (out, in); statistics are over a layer's inputs.

Two contracts for methods and no third: `Method` sees one linear layer, `ModelMethod` sees the model.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from torch import Tensor

from crunchmark.budget import Plan, Room
from crunchmark.paired import MARGIN
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
    memo: Callable[[str, Callable[[], T]], T] = lambda key, make: make()

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.weight.shape[0], self.weight.shape[1]

    def __getitem__(self, kind: type[S]) -> S:
        """The statistic of that kind; the walker gathered it because the method `needs` it."""
        return self.stats[kind]  # type: ignore[return-value]


class Method(ABC):
    """A paper's rule for one layer. Pure: no model, no files, no randomness but the layer's seed."""

    needs: ClassVar[tuple[type[Stat], ...]] = ()  # gathered by the walker before compress is called
    random: ClassVar[bool] = False  # True: it draws from the layer's seed, so that seeds are other cells
    parent: ClassVar[bool] = False  # True: the dense parent itself, which no budget applies to

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
        """The weight in the room's 16-bit dtype."""
        return Dense.of(layer.weight, room)


class ModelMethod(ABC):
    """A paper's rule that does not fit one layer at a time; it edits the model through the view."""

    covers: ClassVar[tuple[str, ...]] = ()  # stages it does itself: "allocate", "compensate", "recover"
    parent: ClassVar[bool] = False

    @abstractmethod
    def compress(self, view: "View", plan: Plan, calib: "Calibration") -> None:
        """Edit the model in place so that its scope packs into at most plan.total bytes.

        Raises:
            Unreachable: nothing this method can make is as small as the plan.
            Skip: the model family can not be compressed this way; the reason is recorded.
        """


class Compensator(ABC):
    """Repairs the error a term left, with bytes reserved from the same room."""

    needs: ClassVar[tuple[type[Stat], ...]] = ()

    @abstractmethod
    def reserve(self, shape: tuple[int, int], room: Room) -> int:
        """Bytes taken from the room before the method spends the rest."""

    @abstractmethod
    def repair(self, layer: Layer, term: Term) -> Term:
        """Return the term with its repair added."""


class Allocator(ABC):
    """Splits a total over layers."""

    @abstractmethod
    def allocate(self, trial: "Trial", layers: Mapping[str, tuple[int, int]], total: int) -> Plan:
        """Rooms per layer name, for shapes (out, in), that sum to at most total bytes."""


class Trial(ABC):
    """What an allocator may ask about a layer before rooms are fixed; answers are cached."""

    @abstractmethod
    def error(self, layer: str, keep: float) -> float:
        """Relative calibrated error of the layer when it keeps that share of its dense bytes."""

    @abstractmethod
    def spectrum(self, layer: str) -> Tensor:
        """Singular values of the layer's weight under the input Gram, descending, (min(out, in),)."""


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


@dataclass(frozen=True)
class Metric:
    """How items of one score aggregate, which direction is good, and how much of dense may be lost."""

    name: str  # "exact_match", "acc", "perplexity"
    kind: str = "mean"  # of paired.KINDS; of "exp" scores are nats per unit of weight
    higher_is_better: bool = True
    chance: float | None = None  # score of a blind guess, None where it is not known
    margin: float | None = MARGIN  # relative to dense; None: told, never judged a match or a fail


@dataclass(frozen=True)
class Item:
    """One item's score on one metric. Pairing with the dense parent is by (metric, id)."""

    id: str  # stable across runs and models
    metric: str
    score: float | None  # None: there is none to be had (a judge gave no answer); counted, never averaged
    weight: float = 1.0  # tokens, for perplexity: the aggregate is sum(score * weight) / sum(weight)
    # JSON: prediction, target, flags: ["truncated"], dense: the parent's score in the same moment
    extra: Mapping[str, Any] = field(default_factory=dict)


class Scene(ABC):
    """What a task finds when it is asked: the model under test, its dense parent, and what that left."""

    tokenizer: Any

    @abstractmethod
    def model(self, packed: bool = False) -> Any:
        """The model (a Hugging Face causal LM in eval mode) on its device; packed runs the terms."""

    @abstractmethod
    def dense(self, packed: bool = False) -> Any:
        """Its dense parent, the model itself where it is that."""

    def sizes(self) -> Mapping[str, int]:
        """Bytes of the model as written: scope_bytes, model_bytes, file_bytes; empty where it is no file."""
        return {}

    @abstractmethod
    def remembered(
        self, protocol: str, make: Callable[[Any, Any, Path], None]
    ) -> AbstractContextManager[Path]:
        """The folder that make(dense model, tokenizer, folder) filled, made once per parent and protocol."""


class Task(ABC):
    """Yields per-item scores; aggregation, error bars and pairing with dense happen once, in the core."""

    name: str
    of_weights: ClassVar[bool] = True  # False: scores are of more than the weights, of files or of a clock

    @abstractmethod
    def protocol(self) -> str:
        """Id of everything that decides the numbers besides the model: data, prompt, window, matcher."""

    @abstractmethod
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics the items carry, the first one is the headline. Complete once `run` is exhausted."""

    @abstractmethod
    def run(self, model: Any, tokenizer: Any) -> Iterator[Item]:
        """Score the model (a Hugging Face causal LM in eval mode) item by item."""

    def ask(self, scene: Scene) -> Iterator[Item]:
        """Score what the scene offers; a task that needs more than the model says so here."""
        yield from self.run(scene.model(), scene.tokenizer)


class PairedTask(Task):
    """A task whose questions or answers come from the dense parent."""

    @abstractmethod
    def remember(self, model: Any, tokenizer: Any, folder: Path) -> None:
        """Write into the folder what the dense parent says: its answers, its distributions."""

    @abstractmethod
    def beside(self, model: Any, tokenizer: Any, folder: Path) -> Iterator[Item]:
        """Score a model against what `remember` wrote."""

    def run(self, model: Any, tokenizer: Any) -> Iterator[Item]:
        """A model against itself."""
        with TemporaryDirectory() as temp:
            self.remember(model, tokenizer, Path(temp))
            yield from self.beside(model, tokenizer, Path(temp))

    def ask(self, scene: Scene) -> Iterator[Item]:
        """The scene's model against its dense parent."""
        with scene.remembered(self.protocol(), self.remember) as folder:
            yield from self.beside(scene.model(), scene.tokenizer, folder)
