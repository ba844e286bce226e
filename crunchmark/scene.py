"""Asking tasks of models: what was answered is found by content, and one model is in memory at a time."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from crunchmark import artifact
from crunchmark.cache import Cache
from crunchmark.cell import Cell
from crunchmark.execution import executed_by, seen
from crunchmark.files import read_json, write_json
from crunchmark.keys import key_of
from crunchmark.machine import facts, measured
from crunchmark.models import dtype_of
from crunchmark.store import Row
from crunchmark.task import Scene, Task
from crunchmark.tensorfile import damaged
from crunchmark.view import View

ITEMS = "items.json"
GENERATION = "generation_config.json"
Artifact = Callable[[Cell], AbstractContextManager[Path]]
Make = Callable[[Any, Any, Path], None]


class Exam:
    """Asks tasks of cells; `packed` gives a cell's artifact, made where the cache lost it."""

    def __init__(self, cache: Cache, packed: Artifact) -> None:
        self.cache, self.packed = cache, packed
        self._loaded: tuple[str, Any] | None = None  # key and model of the cell being scored

    def answers(self, cell: Cell, name: str, task: Task) -> Row:
        """Items of a task on a cell's model, found by content: another study asks no model again.

        Nor does another cell that came to the same weights: 8 bits are 8 bits at a budget of 0.1 and of 0.4.
        """
        asked = {"task": name, "protocol": task.protocol()}

        def make(temp: Path) -> None:
            if not task.of_weights:
                self._ask(cell, task, temp)
                return
            same = key_of(**asked, weights=self._weights(cell), dense=cell.dense().key)
            with self.cache.folder("answers", same, lambda folder: self._ask(cell, task, folder)) as folder:
                write_json(temp / ITEMS, _read(folder / ITEMS))

        with self.cache.folder("scores", key_of(**asked, cell=cell.key), make) as folder:
            return _read(folder / ITEMS)

    def _weights(self, cell: Cell) -> str:
        """Everything that decides what the cell's model computes."""
        with self.packed(cell) as folder:
            manifest = artifact.read_manifest(folder)
        told = {name: manifest.get(name) for name in ("sha256", "config", "edits", "layers", "generation")}
        return key_of(**told, compute=cell.model.compute, device=cell.device.partition(":")[0])

    def forget(self) -> None:
        """Free the model that is in memory."""
        self._loaded = None

    def _ask(self, cell: Cell, task: Task, folder: Path) -> None:
        """Everything one task asks of one model."""
        scene = CellScene(self, cell)
        with measured() as stage:
            items = list(task.ask(scene))
        data = {
            "items": [[i.id, i.metric, i.score, i.weight, dict(i.extra)] for i in items],
            "metrics": [vars(m) for m in task.metrics().values()],
            "about": facts()
            | scene.about
            | {"limit": task.limit, "eval_seconds": stage.seconds, "eval_peak_bytes": stage.peak_bytes},
        }
        write_json(folder / ITEMS, data)

    def model(self, cell: Cell) -> Any:
        """The cell's model as its quality is evaluated: on dense weights, however they are stored."""
        if self._loaded is None or self._loaded[0] != cell.key:
            self.forget()  # never two models at once
            self._loaded = cell.key, self.load(cell, packed=False)
        return self._loaded[1]

    def load(self, cell: Cell, packed: bool) -> Any:
        """The cell's model on its device; it ends answers with the tokens its checkpoint says."""
        dtype = dtype_of("model.compute", cell.model.compute)
        with self.packed(cell) as folder:
            model = artifact.load(folder, packed=packed, dtype=dtype, device=cell.device)
        own = read_json(cell.model.folder / GENERATION) or {}  # an artifact knows but config.json
        if own.get("eos_token_id") is not None:
            model.generation_config.eos_token_id = own["eos_token_id"]
        return model


def _read(path: Path) -> Row:
    """What was answered.

    Raises:
        ValueError: the file is damaged or not there; names it.
    """
    try:
        found = read_json(path)
    except ValueError as error:
        raise damaged(path, error) from None
    if found is None:
        raise damaged(path, FileNotFoundError("it is not there"))
    return found


class CellScene(Scene):
    """A cell as its tasks see it."""

    def __init__(self, exam: Exam, cell: Cell) -> None:
        self.exam, self.cell = exam, cell
        self.tokenizer = cell.model.tokenizer()
        self.about: Row = {}  # what was seen while the task asked

    def model(self, packed: bool = False) -> Any:
        """The cell's model; packed ones are the caller's to keep, and come alone."""
        if not packed:
            return self.exam.model(self.cell)
        model = self._packed(self.cell)
        self.about["executed_by"] = executed_by(seen(site.module) for site in View(model).all_sites())
        return model

    def dense(self, packed: bool = False) -> Any:
        """The dense parent's."""
        parent = self.cell.dense()
        return self._packed(parent) if packed else self.exam.model(parent)

    def _packed(self, cell: Cell) -> Any:
        """Without what an earlier task left in memory: its bytes would be counted as this model's."""
        self.exam.forget()
        return self.exam.load(cell, packed=True)

    def sizes(self) -> dict[str, int]:
        """Of the cell's artifact."""
        with self.exam.packed(self.cell) as folder:
            return artifact.sizes(folder)

    def remembered(self, protocol: str, make: Make) -> AbstractContextManager[Path]:
        """What the dense parent left, found by content."""
        key = key_of(cell=self.cell.dense().key, protocol=protocol)
        return self.exam.cache.folder(
            "references", key, lambda temp: make(self.dense(), self.tokenizer, temp)
        )
