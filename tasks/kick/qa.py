"""LLM-KICK's question answering (arXiv:2310.01382) as lm-eval tasks whose prompts are made to fit."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from crunchmark.task import Item, Metric
from tasks.common import digest
from tasks.kick.data import given
from tasks.kick.fit import Fit
from tasks.lm import LmEval
from tasks.protocol import source
from tasks.samples import Sample

LENGTH = Metric("answer_tokens", "mean", False, margin=None)
HELD = Metric("in_evidence", margin=None)


@dataclass
class KickQA(LmEval):
    """One of the tasks of tasks/kick/lm; answers are told with their length, cuts with their number."""

    include: str | None = "tasks/kick/lm"
    path: str | None = None  # data of your own: a FreebaseQA file, a folder of one, or a data set's folder

    def __post_init__(self) -> None:
        super().__post_init__()
        self._fit: Fit | None = None

    @cached_property
    def tasks(self) -> dict[str, Any]:
        """The leaf tasks by name, their data read from `path` if there is one."""
        with given(self.path):
            return super().tasks

    def protocol(self) -> str:
        """lm-eval's part, and how prompts are made to fit."""
        return digest({"lm": super().protocol(), "fit": source(Fit)})

    def metrics(self) -> Mapping[str, Metric]:
        """The judged ones, then how long answers are and how many questions had their evidence."""
        held = {"in_evidence": HELD} if self._fit and self._fit.evidence else {}
        return {**super().metrics(), **held}

    def run(self, model: Any, tokenizer: Any) -> Iterator[Item]:
        """Ask, then tell of each open-book question whether it could be asked."""
        yield from super().run(model, tokenizer)
        for key, held in self._fit.evidence.items() if self._fit else ():
            cuts = self._fit.cuts.get(key) if self._fit else None
            yield Item(key, "in_evidence", float(held), extra={"flags": cuts} if cuts else {})

    @contextmanager
    def ready(self, lm: Any) -> Iterator[None]:
        """Inside, prompts fit the model."""
        self._fit = Fit(lm)
        with ExitStack() as stack:
            for task in self.tasks.values():
                stack.enter_context(self._fit.on(task, self.limit))
            yield

    def flags(self, subtask: str, row: Sample) -> list[str]:
        """What was cut so that the prompt fits."""
        cuts = self._fit.cuts if self._fit else {}
        return sorted({*super().flags(subtask, row), *cuts.get(f"{subtask}/{row['doc']['id']}", ())})

    def _items(self, subtask: str, row: Sample, filters: bool) -> Iterator[tuple[Item, float | None]]:
        """The items of one sample, and the length of a free answer in tokens."""
        told: Mapping[str, Any] = {}
        for item, chance in super()._items(subtask, row, filters):
            told = item.extra
            yield item, chance
        if self._fit and self.tasks[subtask].OUTPUT_TYPE == "generate_until":
            count = len(self._fit.lm.tok_encode(row["resps"][0][0], add_special_tokens=False))
            self._metrics.setdefault("answer_tokens", LENGTH)
            yield Item(f"{subtask}/{row['doc']['id']}", "answer_tokens", float(count), 1.0, told), None
