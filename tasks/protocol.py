"""The id of an lm-eval task: everything that decides its numbers besides the model."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

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
    return _source(value) if callable(value) else value


def _source(function: Callable[..., Any]) -> str:
    """Name and digest of the whole file, so that what a function calls beside it counts too."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", type(function).__qualname__)
    try:
        text = Path(inspect.getfile(function)).read_text(encoding="utf-8")
    except (TypeError, OSError):
        return name
    return f"{name}:{digest(text)}"
