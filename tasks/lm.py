"""Any task or group of lm-eval as a Crunchmark task: samples become items, its aggregation is not used.

lm-eval takes seconds to import, so that waits until it is used: what is wrong with a model is said before.
"""

import contextlib
import functools
import io
import logging
import math
import random
import sys
import traceback
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crunchmark.checks import first_line
from crunchmark.hub import data_root, network, resolve
from crunchmark.interface import Item, Metric, Task
from tasks.common import check_items, safe_batch
from tasks.index import known, lm_eval_home, unknown
from tasks.protocol import protocol_id

Sample = Mapping[str, Any]


@dataclass
class LmEval(Task):
    """A task, tag or group of lm-eval, its own or from a folder of ours."""

    name: str
    include: str | None = None  # folder of yaml files
    limit: int | None = None  # items of each subtask
    batch: int | str = "auto"
    seed: int = 1234  # draws the few-shot examples; lm-eval's own default
    num_fewshot: int | None = None  # None: as the task says

    def __post_init__(self) -> None:
        check_items(self.limit, self.batch)
        self._metrics: dict[str, Metric] = {}

    @cached_property
    def tasks(self) -> dict[str, Any]:
        """The leaf tasks by name, their data loaded.

        Raises:
            ValueError: No such task; the message names the nearest.
            FileNotFoundError: A data set is not on this machine.
        """
        from datasets.exceptions import DatasetsError

        folder = None if self.include is None else str(resolve(self.include))
        manager = _manager(folder)
        if self.name not in manager.task_index:
            raise ValueError(unknown(self.name, list(manager.task_index) if folder else None))
        self._seed()
        root = data_root()
        try:
            with _quiet(), _data(root):
                found = manager.load([self.name])["tasks"]
        except (OSError, ValueError, ImportError, DatasetsError) as error:
            raise FileNotFoundError(_why(self.name, error)) from error
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
            ValueError: Two samples of a subtask have the same id.
        """
        samples = self._samples(model, tokenizer)
        chances: dict[str, list[float | None]] = defaultdict(list)
        made, seen = [], set()
        for subtask, rows in samples.items():
            for row in rows:
                for item, chance in self._items(subtask, row, len({r["filter"] for r in rows}) > 1):
                    if (item.metric, item.id) in seen:
                        raise ValueError(f"{self.name}: two samples have the id {item.id!r}")
                    seen.add((item.metric, item.id))
                    chances[item.metric].append(chance)
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
            name: Metric(name, metric.kind, metric.higher_is_better, _mean(chances[name]))
            for name, metric in self._metrics.items()
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
        with _quiet():
            lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch)
            loaded = {"tasks": self.tasks, "groups": {}, "group_map": {}}
            found = evaluate(lm, loaded, limit=self.limit, bootstrap_iters=0, log_samples=True)
        return found["samples"]

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
        extra = _extra(row, doc)
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
            chance = _chance(task, plain, doc) if better else None
            yield Item(f"{subtask}/{key}", name, value, weight, extra), chance


def score(value: Any, rule: str) -> tuple[float, float, str] | None:
    """A sample's value as (score, weight, kind), by the name of lm-eval's aggregation; None: not per item."""
    if rule in ("weighted_perplexity", "bits_per_byte"):
        loglik, count = value
        if rule == "bits_per_byte":
            return -loglik / count / math.log(2), float(count), "mean"
        return -loglik / count, float(count), "exp"
    if rule == "bypass" or not isinstance(value, bool | int | float | np.bool_ | np.number):
        return None
    if rule == "perplexity":
        return -float(value), 1.0, "exp"
    return float(value), 1.0, "mean"


@functools.cache
def _manager(folder: str | None) -> Any:
    """One per process and folder; lm-eval's own tasks come from our index instead of its slow scan."""
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._index import Entry, Kind

    manager = TaskManager(include_path=folder, include_defaults=False)
    if folder is None:
        home = lm_eval_home()
        manager._index = {
            name: Entry(
                name, Kind[row["kind"]], home / row["yaml"] if row["yaml"] else None, None, set(row["tags"])
            )
            for name, row in known().items()
        }
    return manager


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No chatter from lm-eval, and progress bars on a terminal only."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _data(root: Path | None) -> Iterator[None]:
    """Data sets below the root first, as `datasets` takes relative names for folders; then the hub."""
    with network(), contextlib.chdir(root) if root else contextlib.nullcontext():
        yield


def _chance(task: Any, metric: str, doc: Any) -> float | None:
    """What a blind guess scores: the yaml's metadata.chance, or one over the choices."""
    stated = (task.get_config("metadata") or {}).get("chance")
    if stated is not None:
        return float(stated)
    plain = task.get_config("output_type") == "multiple_choice" and task.get_config("process_results") is None
    return 1 / len(task.doc_to_choice(doc)) if plain and metric.startswith("acc") else None


def _mean(values: list[float | None]) -> float | None:
    """The mean, None as soon as one is not known."""
    known_values = [value for value in values if value is not None]
    return sum(known_values) / len(values) if values and len(known_values) == len(values) else None


def _extra(row: Sample, doc: Any, longest: int = 200) -> dict[str, Any]:
    """What was said and what was asked for, short; where in the text it lay, if the document says."""
    said = row["filtered_resps"]
    if len(said) > 1 and all(isinstance(one, tuple | list) for one in said):
        prediction: Any = max(range(len(said)), key=lambda i: said[i][0])
    else:
        prediction = str(said[0])[:longest]
    target = row["target"]
    extra = {
        "prediction": prediction,
        "target": target if isinstance(target, int | float) else str(target)[:longest],
    }
    return extra | {key: doc[key] for key in ("depth", "length") if isinstance(doc, Mapping) and key in doc}


def _why(name: str, error: BaseException) -> str:
    """One line: which data set could not be had; it is found in the frame of lm-eval that asked for it."""
    reason = first_line(error)
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "download" and "self" in frame.f_locals:
            task = frame.f_locals["self"]
            which = f"{task.DATASET_PATH!r} ({task.DATASET_NAME})"
            return f"{name}: data set {which} can not be loaded (offline and not stored?): {reason}"
    return f"{name}: lm-eval can not load this task: {reason}"
