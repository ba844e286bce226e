"""What the harness asks of a task: items with scores, from a scene that offers the model and its parent."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from crunchmark.paired import MARGIN


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
    # JSON: question (kept of dense only), prediction, target, flags: ["truncated"],
    # dense: the parent's score in the same moment
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
    limit: int | None = None  # items it asks for at most
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
