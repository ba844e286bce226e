"""One cell, start to end. The order of the stages is written here and nowhere else."""

import hashlib
import inspect
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from crunchmark import artifact
from crunchmark.allocation import Uniform
from crunchmark.budget import Unreachable, check_budget
from crunchmark.cache import Cache, key_of
from crunchmark.calib import Calibration, Source, draw
from crunchmark.compress import compress
from crunchmark.evaluate import rows
from crunchmark.interface import Item, Method, ModelMethod, Skip, Task
from crunchmark.machine import check_device, facts, measured
from crunchmark.models import ModelSpec
from crunchmark.seeds import NUMERICS
from crunchmark.store import Row, Store
from crunchmark.view import View


class Nothing:
    """A stage that does nothing."""


@dataclass(frozen=True)
class Draw:
    """Which calibration tokens, and whose outputs the layers see."""

    source: Source
    n: int = 128
    length: int = 256
    seed: int = 0
    inputs: str = "dense"
    batch: int = 8
    spill: bool = False

    def calibration(self, tokenizer: Any, device: str) -> Calibration:
        """The tokens, drawn."""
        tokens = draw(self.source, tokenizer, self.n, self.length, self.seed)
        return Calibration(tokens.ids, self.inputs, self.batch, self.seed, device, self.spill)

    def identity(self) -> dict[str, Any]:
        """What decides the tokens: the draw, and the content of a local file."""
        path = Path(self.source.path or "")
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        return {"draw": asdict(self), "content": content}


@dataclass(frozen=True)
class Cell:
    """One point of the grid; `config` is the resolved text it was made from."""

    study: str
    model: ModelSpec
    method: Method | ModelMethod
    draw: Draw
    tasks: Mapping[str, Task]
    config: Mapping[str, Any]  # the part that decides the numbers: model, method, calib, seed
    budget: float = 0.0
    accounting: str = "bytes"
    scope: str = "blocks"
    device: str = "cpu"
    label: str = "dense"
    allocate: Uniform = field(default_factory=Uniform)

    def dense(self) -> "Cell":
        """The parent: the same model with nothing removed."""
        return replace(self, budget=0.0, label="dense", accounting="bytes", scope="blocks")

    @property
    def key(self) -> str:
        """Everything that decides the compressed weights."""
        base = {"model": self.model.fingerprint, "dtype": str(self.model.storage), "numerics": NUMERICS}
        if self.budget == 0:
            return key_of(**base)
        code = inspect.getsource(inspect.getmodule(self.method) or type(self.method))
        return key_of(
            **base,
            config=self.config,
            budget=self.budget,
            accounting=self.accounting,
            scope=self.scope,
            source=hashlib.sha256(code.encode()).hexdigest(),
            data=self.draw.identity(),
        )


class Runner:
    """Runs cells against one store and one cache."""

    def __init__(self, store: Store, cache: Cache) -> None:
        self.store, self.cache = store, cache

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Runner":
        """The store and the cache a config names."""
        return cls(Store(config["store"]), Cache(config["cache"]["dir"], config["cache"]["max_gb"]))

    def run(self, cell: Cell) -> list[Row]:
        """Compute what is not in the store yet; return the cell's rows.

        A failing cell is written as a `failed` row, and its exception raised again.
        """
        check_budget(cell.budget)
        with self.store.lock(cell.study, cell.key):
            try:
                return self._run(cell)
            except (Skip, Unreachable) as answer:
                state = "skipped" if isinstance(answer, Skip) else "unreachable"
                row = self._about(cell) | {"state": state, "reason": str(answer)} | _nearest(answer)
                self.store.put_cell(cell.study, cell.key, row)
                return [row]
            except Exception as error:
                reason = "".join(traceback.format_exception_only(error)).strip()
                self.store.put_cell(
                    cell.study, cell.key, self._about(cell) | {"state": "failed", "reason": reason}
                )
                raise

    def _run(self, cell: Cell) -> list[Row]:
        known = self.store.get_cell(cell.study, cell.key)
        if known and known.get("state") in ("skipped", "unreachable"):
            return [known]
        todo = {n: t for n, t in cell.tasks.items() if not self._done(cell, n, t)}
        if todo or not known or known.get("state"):
            folder, made = self._artifact(cell)
            self.store.put_cell(cell.study, cell.key, self._about(cell) | made)
            self._evaluate(cell, folder, todo)
        return [r for r in self.store.rows(cell.study) if r["cell"] == cell.key]

    def _done(self, cell: Cell, name: str, task: Task) -> bool:
        found = self.store.get_task(cell.study, cell.key, name)
        return found is not None and found["protocol"] == task.protocol()

    def _artifact(self, cell: Cell) -> tuple[Path, Row]:
        """The packed model of the cell, made once per content."""
        folder = self.cache.folder("artifacts", cell.key, lambda temp: self._make(cell, temp))
        return folder, artifact.read_manifest(folder)["about"] | _sizes(folder)

    def _make(self, cell: Cell, folder: Path) -> None:
        model, tokenizer = cell.model.load(), cell.model.tokenizer()
        view = View(model)
        plan = cell.allocate.plan(view, cell.budget, cell.accounting, cell.scope, cell.model.storage)
        dense_scope, dense_model = view.scope_bytes("blocks"), view.scope_bytes("model")
        with measured() as stage:
            calib = cell.draw.calibration(tokenizer, cell.device)
            terms = compress(cell.method, view, plan, calib, cell.model.fingerprint)
        about = {
            "plan": plan.to_json(),
            "dense_scope_bytes": dense_scope,
            "dense_model_bytes": dense_model,
            "compress_seconds": stage.seconds,
            "peak_memory_bytes": stage.peak_bytes,
            "simulated": any(t.simulated for t in terms.values()),
            "achieved_nominal": 1 - _kept(view, terms),
        }
        artifact.write(folder, view, terms, cell.model.storage, about)
        tokenizer.save_pretrained(folder)

    def _evaluate(self, cell: Cell, folder: Path, tasks: Mapping[str, Task]) -> None:
        """Run the tasks on the artifact; pair each with the dense parent's items."""
        parent = cell.dense()
        if tasks and cell.key != parent.key:
            self.run(replace(parent, tasks=tasks))
        model, tokenizer = artifact.load(folder, packed=False), cell.model.tokenizer()
        for name, task in tasks.items():
            with measured() as stage:
                items = list(task.run(model, tokenizer))
            dense = None if cell.key == parent.key else self._items(parent, name)
            data = {
                "protocol": task.protocol(),
                "rows": rows(name, task.protocol(), items, task.metrics(), dense),
                "items": [[i.id, i.metric, i.score, i.weight, dict(i.extra)] for i in items],
                "seconds": stage.seconds,
            }
            self.store.put_task(cell.study, cell.key, name, data)

    def _items(self, cell: Cell, task: str) -> list[Item]:
        found = self.store.get_task(cell.study, cell.key, task) or {}
        return [Item(*item) for item in found.get("items", [])]

    def _about(self, cell: Cell) -> Row:
        return {
            "study": cell.study,
            "cell": cell.key,
            "model": cell.model.title,
            "method": cell.label if cell.budget else "dense",
            "budget": cell.budget,
            "accounting": cell.accounting,
            "scope": cell.scope,
            "calib_seed": cell.draw.seed,
            "written": time.time(),
            "config": cell.config,
            **facts(),
        }


def cell_from(config: Mapping[str, Any], method: Method | ModelMethod, tasks: Mapping[str, Task]) -> Cell:
    """The cell of a resolved config and the objects made from it.

    Raises:
        ValueError: a field is out of range; names it.
    """
    calib, names = dict(config["calib"]), ("n", "length", "seed", "inputs", "batch", "spill")
    how = {k: calib.pop(k) for k in names if k in calib}
    return Cell(
        study=config["study"],
        model=ModelSpec(**config["model"]),
        method=method,
        draw=Draw(Source(**calib), **how),
        tasks=tasks,
        config={"method": config["method"], "seed": config["seed"]},
        budget=check_budget(config["budget"]) if config["label"] != "dense" else 0.0,
        accounting=config["accounting"],
        scope=config["scope"],
        device=str(check_device(config["device"])),
        label=config["label"],
    )


def _sizes(folder: Path) -> Row:
    """Bytes as written, and the budget they amount to."""
    about, size = artifact.read_manifest(folder)["about"], artifact.sizes(folder)
    scope, model = about["dense_scope_bytes"], about["dense_model_bytes"]
    return size | {
        "artifact": str(folder),
        "achieved_bytes": 1 - size["scope_bytes"] / scope,
        "achieved_model": 1 - size["model_bytes"] / model,
        "bits_scope": 16 * size["scope_bytes"] / scope,
        "bits_model": 16 * size["model_bytes"] / model,
    }


def _nearest(answer: Skip | Unreachable) -> Row:
    return {"nearest_budget": answer.nearest} if isinstance(answer, Unreachable) else {}


def _kept(view: View, terms: Mapping[str, Any]) -> float:
    """Share kept in the paper's own count, weighted by layer size."""
    shapes = view.layers()
    sizes = {k: a * b for k, (a, b) in shapes.items()}
    kept = sum(terms[k].nominal() * n if k in terms else n for k, n in sizes.items())
    return kept / sum(sizes.values())
