"""Any task or group of lm-eval as a Crunchmark task: samples become items, its aggregation is not used.

lm-eval takes seconds to import, so that waits until it is used: what is wrong with a model is said before.
"""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from crunchmark.checks import whole
from crunchmark.hub import resolve
from crunchmark.task import Item, Metric, Task
from tasks.common import check_items, safe_batch
from tasks.loading import columns, load, quiet
from tasks.protocol import protocol_id
from tasks.samples import Sample, chance, extra, mean, score, truncated

__all__ = ["LmEval", "score"]


@dataclass
class LmEval(Task):
    """A task, tag or group of lm-eval, its own or from a folder of ours."""

    name: str
    include: str | None = None  # folder of yaml files
    limit: int | None = None  # items of each subtask
    batch: int | str = "auto"
    seed: int = 1234  # draws the few-shot examples; lm-eval's own default
    num_fewshot: int | None = None  # None: as the task says
    task: str | None = None  # lm-eval's name, where ours is another: the same task with other settings

    def __post_init__(self) -> None:
        check_items(self.limit, self.batch)
        if self.num_fewshot is not None:
            whole(f"{self.name}.num_fewshot", self.num_fewshot, least=0)
        self._metrics: dict[str, Metric] = {}

    @cached_property
    def tasks(self) -> dict[str, Any]:
        """The leaf tasks by name, their data loaded.

        Raises:
            ValueError: No such task, with the nearest names; or its data lack a column.
            FileNotFoundError: A data set is not on this machine.
        """
        self._seed()
        folder = None if self.include is None else str(resolve(self.include))
        found = load(self.task or self.name, folder, self.name)
        for task in found.values():
            fixed = task.get_config("num_fewshot")
            keep = self.num_fewshot is None or fixed == 0  # lm-eval: a task that says 0 means it
            task.set_config("num_fewshot", (fixed or 0) if keep else self.num_fewshot)
        return found

    def protocol(self) -> str:
        """Digest of the resolved configs, their functions, the documents and lm-eval's version."""
        return protocol_id(self.tasks, self.limit, self.seed)

    def metrics(self) -> Mapping[str, Metric]:
        """The metrics seen by the last run, in the order of the task's own list."""
        return dict(self._metrics)

    def run(self, model: Any, tokenizer: Any) -> Iterator[Item]:
        """Ask the model everything, then yield one item per sample and metric.

        Raises:
            ValueError: Two samples of a subtask have the same id, or a column is missing.
        """
        samples = self._samples(model, tokenizer)
        chances: dict[str, list[float | None]] = defaultdict(list)
        made, seen = [], set()
        for subtask, rows in samples.items():
            for row in rows:
                for item, blind in self._items(subtask, row, len({r["filter"] for r in rows}) > 1):
                    if (item.metric, item.id) in seen:
                        raise ValueError(f"{self.name}: two samples have the id {item.id!r}")
                    seen.add((item.metric, item.id))
                    chances[item.metric].append(blind)
                    made.append(item)
        if not made:
            rules = sorted(
                {getattr(r, "__name__", "?") for t in self.tasks.values() for r in t.aggregation().values()}
            )
            raise ValueError(
                f"task {self.name!r} has no metric per item, only over the whole set ({', '.join(rules)}); "
                "valid: a task with at least one metric that is a mean over items"
            )
        self._metrics = {
            name: replace(metric, chance=mean(chances[name])) for name, metric in self._metrics.items()
        }
        yield from made

    def _samples(self, model: Any, tokenizer: Any) -> dict[str, list[Sample]]:
        """lm-eval's logged samples; `evaluate` because `simple_evaluate` also takes seconds for pip lists."""
        from lm_eval import evaluate
        from lm_eval.models.huggingface import HFLM

        self._seed()
        for task in self.tasks.values():
            task.set_fewshot_seed(self.seed)
        batch = self.batch
        if batch == "auto" and next(model.parameters()).device.type == "cpu":
            batch = safe_batch(model)
        loaded = {"tasks": self.tasks, "groups": {}, "group_map": {}}
        with quiet(), columns(self.name):
            lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch)
            with self.ready(lm):
                found = evaluate(lm, loaded, limit=self.limit, bootstrap_iters=0, log_samples=True)
            for row in (row for rows in found["samples"].values() for row in rows):
                row["truncated"] = truncated(lm, row)
        return found["samples"]

    def ready(self, lm: Any) -> AbstractContextManager[None]:
        """A subclass makes the tasks fit lm-eval's model here, for as long as they are asked."""
        return nullcontext()

    def flags(self, subtask: str, row: Sample) -> list[str]:
        """What the row counts of a sample; nothing is cut without being told."""
        return ["truncated"] if row["truncated"] else []

    def _seed(self) -> None:
        """As lm-eval seeds before it loads: some tasks shuffle their choices with `random`."""
        random.seed(0)
        np.random.seed(self.seed)
        torch.manual_seed(self.seed)

    def _items(self, subtask: str, row: Sample, filters: bool) -> Iterator[tuple[Item, float | None]]:
        """The items of one sample, each with the score of a blind guess where it is known."""
        task, doc = self.tasks[subtask], row["doc"]
        own = doc.get("id") if isinstance(doc, Mapping) else None
        key = own if isinstance(own, str | int) else row["doc_id"]
        told = extra(row, doc, self.flags(subtask, row))
        order = [entry["metric"] for entry in task.get_config("metric_list") or []]
        for plain in sorted(row["metrics"], key=lambda m: order.index(m) if m in order else len(order)):
            rule = getattr(task.aggregation().get(plain), "__name__", "mean")
            scored = score(row[plain], rule)
            if scored is None:
                continue
            value, weight, kind = scored
            name = f"{plain},{row['filter']}" if filters else plain
            better = kind == "mean" and bool(task.higher_is_better().get(plain, True))
            self._metrics.setdefault(name, Metric(name, kind, better))
            yield (
                Item(f"{subtask}/{key}", name, value, weight, told),
                chance(task, plain, doc) if better else None,
            )
