"""The id of an lm-eval task: everything that decides its numbers besides the model."""

import ast
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from crunchmark.machine import ROOT
from tasks.common import digest

SHOTS = 10_000  # documents of a few-shot split that go into the id


def protocol_id(tasks: Mapping[str, Any], limit: int | None, seed: int) -> str:
    """Sixteen hex characters over lm-eval's version, limit, and each task's config, functions and documents.

    The seed counts only where it draws something: few-shot examples or sampled text.
    """
    return digest(
        {"lm_eval": version("lm_eval"), "limit": limit}
        | {f"task/{name}": _task(task, limit, seed) for name, task in sorted(tasks.items())}
    )


def _task(task: Any, limit: int | None, seed: int) -> dict[str, Any]:
    config = _plain(task.config)
    config["metadata"] = {
        key: value for key, value in (config.get("metadata") or {}).items() if key != "config_source"
    }
    if not type(task).__module__.startswith("lm_eval."):
        config["class"] = source(type(task))
    shots = config.get("num_fewshot") or 0
    sampled = (config.get("generation_kwargs") or {}).get("do_sample", False)
    return {
        "config": config,
        "docs": digest(list(islice(_docs(task.eval_docs), limit))),
        "shots": digest(list(islice(_docs(task.fewshot_docs() or []), SHOTS))) if shots else None,
        "seed": seed if shots or sampled else None,
    }


def _docs(docs: Any) -> Iterator[Any]:
    yield from docs


def _plain(value: Any) -> Any:
    """The value without objects: dataclasses as dicts, functions as the text of the file they stand in."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    return source(value) if callable(value) else value


def source(function: Callable[..., Any]) -> str:
    """Name and digest of the whole file, so that what a function calls beside it counts too.

    Modules of ours that the file imports count as well, and what those import.
    """
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", type(function).__qualname__)
    try:
        file = Path(inspect.getfile(function))
        text = file.read_text(encoding="utf-8")
    except (TypeError, OSError):
        return name
    helpers = {str(f.relative_to(ROOT)): digest(f.read_text(encoding="utf-8")) for f in _helpers(file, text)}
    return f"{name}:{digest(text)}" + (f"+{digest(helpers)}" if helpers else "")


def _helpers(file: Path, text: str) -> set[Path]:
    """Files below tasks/ that a file imports, directly or not."""
    found: set[Path] = set()
    waiting = [text]
    while waiting:
        new = {f for f in _imported(waiting.pop()) if f != file} - found
        found |= new
        waiting += [f.read_text(encoding="utf-8") for f in new]
    return found


def _imported(text: str) -> set[Path]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    files = (ROOT / f"{name.replace('.', '/')}.py" for name in names if name.split(".")[0] == "tasks")
    return {file for file in files if file.is_file()}
