"""One cell, start to end. The order of the stages is written here and nowhere else."""

import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from crunchmark import artifact, progress
from crunchmark.allocation import equal_shares
from crunchmark.budget import Unreachable, check_budget
from crunchmark.cache import Cache, source_of
from crunchmark.cell import Cell
from crunchmark.checks import Malformed
from crunchmark.compress import allocate, compress
from crunchmark.evaluate import rows
from crunchmark.execution import UNPACKED, executed_by, told
from crunchmark.files import read_json, sweep_temps, writable, write_json
from crunchmark.interface import Keep, Skip
from crunchmark.machine import check_device, facts, measured
from crunchmark.models import dtype_of
from crunchmark.scene import Exam
from crunchmark.seeds import NUMERICS
from crunchmark.shared import Shared
from crunchmark.store import SCHEMA, Row, Store
from crunchmark.task import Item, Metric, Task
from crunchmark.terms import Dense, Term
from crunchmark.view import View

REASONS = "reasons"  # of a task's error: what became of every task that failed in its cell
SETTLED = ("skipped", "unreachable")  # states that another try would only repeat


class Runner:
    """Runs cells against one store and one cache."""

    def __init__(self, store: Store, cache: Cache, shared: Shared | None = None) -> None:
        self.store, self.cache = store, cache
        self.shared = shared or Shared(cache)
        self.exam = Exam(cache, self._artifact)

    def run(self, cell: Cell) -> list[Row]:
        """Compute what is not in the store yet; return the cell's rows.

        A failing cell is written as a `failed` row, and its exception raised again.

        Raises:
            ValueError: store or cache can not be written to; names the field.
        """
        check_budget(cell.budget)
        trouble: list[Exception] = []  # of the parent: its own row, but no end of this cell
        with progress.cell(cell.event):
            with writable("store", self.store.root), self.store.lock(cell.study, cell.key):
                found = self._ended(cell, trouble)
            for problem in trouble:
                raise problem
            if found and found[0].get("state") in SETTLED:
                progress.outcome(found[0]["state"])
        return found

    def _ended(self, cell: Cell, trouble: list[Exception]) -> list[Row]:
        """The rows of the cell, or the one row that says why there are none."""
        sweep_temps(self.store.cell(cell.study, cell.key))
        try:
            return self._run(cell, trouble)
        except (Skip, Unreachable) as answer:
            found = [self._settle(cell, _state(answer))]
            self._parent(cell, trouble)
            return found
        except Exception as error:
            ends = {"state": "failed", "reason": _reason(error), "reasons": getattr(error, REASONS, {})}
            self._settle(cell, ends)
            raise

    def _settle(self, cell: Cell, end: Row) -> Row:
        """Write how the cell ended, keeping what was computed before."""
        known = self.store.get_cell(cell.study, cell.key) or {}
        row = known | self._about(cell) | end
        self.store.put_cell(cell.study, cell.key, row)
        return row

    def _run(self, cell: Cell, trouble: list[Exception]) -> list[Row]:
        known = self.store.get_cell(cell.study, cell.key)
        if known and known.get("state") in SETTLED:
            self._parent(cell, trouble)
            return [known]
        todo = {n: t for n, t in cell.tasks.items() if not self._done(cell, n, t)}
        if todo or not known or known.get("state"):
            with self._artifact(cell) as folder:  # before the parent: what is wrong with the cell shows first
                self.store.put_cell(cell.study, cell.key, self._about(cell) | _made(folder, cell))
        else:
            progress.outcome("cached")
        self._parent(cell, trouble)
        self._evaluate(cell, todo)
        return self.store.cell_rows(cell.study, cell.key)

    def _parent(self, cell: Cell, trouble: list[Exception]) -> None:
        """The dense parent under the same tasks; if it fails, this cell goes on, and the caller is told."""
        if cell.key != cell.dense().key:
            try:
                self.run(cell.dense())
            except Exception as error:
                trouble.append(error)

    def _done(self, cell: Cell, name: str, task: Task) -> bool:
        found = self.store.get_task(cell.study, cell.key, name)
        return found is not None and found.get("protocol") == task.protocol()

    def _make(self, cell: Cell, folder: Path) -> None:
        """The packed model of the cell, in a folder that is not there yet."""
        with progress.stage("load"), measured() as load:
            model, tokenizer = cell.model.load(), cell.model.tokenizer()
            view = View(model)
            plan = equal_shares(view, cell.budget, cell.accounting, cell.scope, cell.model.storage)
            sizes = {"dense_scope_bytes": view.scope_bytes("blocks")}
            sizes["dense_model_bytes"] = view.scope_bytes("model")
        with progress.stage("allocate"), measured() as sharing:
            calib = cell.calibration(tokenizer, self.cache)
            given = (calib, cell.model.fingerprint, self.shared, cell.compensate)
            if cell.budget:
                plan = allocate(cell.allocate, cell.method, view, plan, *given)
        with progress.stage("compress"), measured() as stage:
            terms = compress(cell.method if cell.budget else Keep(), view, plan, *given)
        about = sizes | {
            "plan": plan.to_json(),
            "setting": "; ".join(sorted({t.setting for t in terms.values() if t.setting})),
            "damping": _noted(terms, "damping"),
            "dead": _noted(terms, "dead", sum),
            "missed": _noted(terms, "missed"),
            "notes": "; ".join(sorted({t.notes["note"] for t in terms.values() if "note" in t.notes})),
            "left_dense": [name for name, term in terms.items() if isinstance(term, Dense)],
            "achieved_nominal": 1 - _kept(view, terms),
        }
        with progress.stage("pack"), measured() as pack:
            artifact.write(folder, view, terms, cell.model.storage, about)
        tokenizer.save_pretrained(folder)
        spent = {"load": load, "allocate": sharing, "compress": stage, "pack": pack}
        made = {f"{name}_seconds": one.seconds for name, one in spent.items()}
        made["gpu_seconds"] = sharing.seconds + stage.seconds if cell.device.startswith("cuda") else 0.0
        write_json(
            folder / artifact.MADE,
            made | {"peak_memory_bytes": max(one.peak_bytes for one in spent.values())},
        )

    def _evaluate(self, cell: Cell, tasks: Mapping[str, Task]) -> None:
        """Score the tasks; one that fails does not keep the others from being scored."""
        failed: dict[str, Exception] = {}
        for name, task in tasks.items():
            try:
                with progress.stage(f"task {name}"):
                    self._score(cell, name, task)
            except Exception as error:
                failed[name] = error
        self.exam.forget()
        for problem in failed.values():
            setattr(problem, REASONS, {name: _reason(error) for name, error in failed.items()})
            raise problem

    def _score(self, cell: Cell, name: str, task: Task) -> None:
        """One task's rows, paired with the dense parent's answers to the same questions."""
        data, parent = self.exam.answers(cell, name, task), cell.dense()
        items, metrics = _items(data), [Metric(**m) for m in data.pop("metrics")]
        dense = None if cell.key == parent.key else _items(self.exam.answers(parent, name, task))
        found = rows(name, task.protocol(), items, {m.name: m for m in metrics}, dense)
        for *_, extra in data["items"] if dense is not None else ():
            extra.pop("question", None)  # the parent's items tell it, once for all cells
        data |= {"schema": SCHEMA, "protocol": task.protocol(), "rows": found}
        self.store.put_task(cell.study, cell.key, name, data)

    def _artifact(self, cell: Cell) -> AbstractContextManager[Path]:
        """The folder of the packed model."""
        return self.cache.folder("artifacts", cell.weights_key, lambda temp: self._make(cell, temp))

    def _about(self, cell: Cell) -> Row:
        return {
            "schema": SCHEMA,
            "study": cell.study,
            "cell": cell.key,
            "model": cell.model.title,
            "method": cell.label if cell.budget else "dense",
            "budget": cell.budget,
            "accounting": cell.accounting,
            "scope": cell.scope,
            "calib_seed": cell.draw.seed,
            "calib_inputs": cell.draw.inputs,
            "device": cell.device,
            "compute": cell.model.compute,
            "written": time.time(),
            "config": cell.config,
            "fingerprint": cell.model.fingerprint,
            "source": source_of(cell.method),
            "numerics": NUMERICS,
            **({"expected": dict(cell.expected)} if cell.expected else {}),
            **facts(),
        }


def _items(data: Row) -> list[Item]:
    """The items that `_ask` wrote."""
    return [Item(*item) for item in data["items"]]


def _made(folder: Path, cell: Cell) -> Row:
    """What the artifact says of itself: bytes as written, the budget they amount to, what runs it here."""
    manifest, size = artifact.read_manifest(folder), artifact.sizes(folder)
    about, compute = manifest["about"], dtype_of("model.compute", cell.model.compute)
    layers = [
        told(layer["meta"], check_device(cell.device), compute) for layer in manifest["layers"].values()
    ]
    scope, model = (
        size["scope_bytes"] / about["dense_scope_bytes"],
        size["model_bytes"] / about["dense_model_bytes"],
    )
    made: Row = (read_json(folder / artifact.MADE) or {}) | about | size
    asked = model if about["plan"]["scope"] == "model" else scope  # what the budget was a share of
    made |= {"achieved_bytes": 1 - asked, "achieved_model": 1 - model, "artifact": str(folder)}
    made |= {"spent": artifact.spent(manifest), "executed_by": executed_by(layers)}
    made |= {"simulated": any(UNPACKED in labels for labels in layers)}
    return made | {"bits_scope": 16 * scope, "bits_model": 16 * model}


def _reason(error: Exception) -> str:
    """What went wrong: a complaint of ours is the message alone."""
    ours = type(error) in (ValueError, Malformed) or (isinstance(error, OSError) and error.errno is None)
    if ours and str(error):
        return str(error).strip()
    return "".join(traceback.format_exception_only(error)).strip()


def _state(answer: Skip | Unreachable) -> Row:
    """What a cell without an artifact says of itself."""
    if isinstance(answer, Skip):
        return {"state": "skipped", "reason": str(answer)}
    return {"state": "unreachable", "reason": str(answer), "nearest_budget": answer.nearest or None}


def _noted(terms: Mapping[str, Term], name: str, over: Callable[[list[Any]], Any] = max) -> Any:
    """The most that any term noted under that name, or what else over all of them; None where none did."""
    found = [t.notes[name] for t in terms.values() if name in t.notes]
    return over(found) if found else None


def _kept(view: View, terms: Mapping[str, Any]) -> float:
    """Share kept in the paper's own count: of the last edit of the whole model, or over the layers."""
    for edit in reversed(getattr(view.model, "crunchmark_edits", [])):
        return float(edit["nominal"])
    sizes = {k: a * b for k, (a, b) in view.layers().items()}
    kept = sum(terms[k].nominal() * n if k in terms else n for k, n in sizes.items())
    return kept / sum(sizes.values())
