"""Having lm-eval load a task, and saying in one line why it can not."""

import contextlib
import functools
import io
import logging
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import UndefinedError

from crunchmark.checks import Malformed, first_line
from crunchmark.hub import data_root, network
from tasks.index import known, lm_eval_home, unknown


def load(name: str, folder: str | None, shown: str) -> dict[str, Any]:
    """The leaf tasks of a name by name, their data loaded.

    Args:
        name: Of lm-eval, or of a yaml in the folder.
        folder: Of yaml files; None: lm-eval's own.
        shown: The name in messages.

    Raises:
        ValueError: No such task, with the nearest names; or its data lack a column, with those there are.
        FileNotFoundError: A data set is not on this machine.
    """
    from datasets.exceptions import DatasetsError

    manager = _manager(folder)
    if name not in manager.task_index:
        raise ValueError(unknown(name, list(manager.task_index) if folder else None))
    root = data_root()
    try:
        with quiet(), columns(shown), _data(root):
            return manager.load([name])["tasks"]
    except Malformed:
        raise
    except (OSError, ValueError, ImportError, DatasetsError) as error:
        raise FileNotFoundError(_why(shown, error)) from error


@contextlib.contextmanager
def columns(name: str) -> Iterator[None]:
    """Inside, a column that the data lack is an error in one line.

    Raises:
        Malformed: Names the task, the column and what there is.
    """
    try:
        yield
    except Malformed as error:
        raise Malformed(f"{name}: {error}") from None
    except (KeyError, UndefinedError) as error:
        column, there = _column(error)
        if column is None:
            raise
        raise Malformed(
            f"{name}: the evaluation set has no column {column!r}; it has: {', '.join(there)}"
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No chatter from lm-eval, and progress bars on a terminal only."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


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
def _data(root: Path | None) -> Iterator[None]:
    """Data sets below the root first, as `datasets` takes relative names for folders; then the hub."""
    with network(), contextlib.chdir(root) if root else contextlib.nullcontext():
        yield


def _column(error: KeyError | UndefinedError) -> tuple[str | None, list[str]]:
    """Which column the document in the frames of the error lacks, and those it has; None: it is not that."""
    frames = traceback.walk_tb(error.__traceback__)
    docs = [doc for frame, _ in frames if isinstance(doc := frame.f_locals.get("doc"), Mapping)]
    column = _named(error)
    if not docs or column is None or column in docs[-1]:
        return None, []
    return column, [str(key) for key in docs[-1]]


def _named(error: KeyError | UndefinedError) -> str | None:
    """The name a template or a line of code asked for; not a key that the line only computed."""
    if isinstance(error, UndefinedError):
        found = re.match(r"'(\w+)' is undefined|.* has no attribute '(\w+)'", str(error))
        return (found[1] or found[2]) if found else None
    key, line = error.args[0], traceback.extract_tb(error.__traceback__)[-1].line or ""
    return key if isinstance(key, str) and (f"'{key}'" in line or f'"{key}"' in line) else None


def _why(name: str, error: BaseException) -> str:
    """One line: which data set could not be had; it is found in the frame of lm-eval that asked for it."""
    reason = first_line(error)
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "download" and "self" in frame.f_locals:
            task = frame.f_locals["self"]
            if task.DATASET_PATH is None:
                return f"{name}: {reason}"
            which = f"{task.DATASET_PATH!r} ({task.DATASET_NAME})"
            return f"{name}: data set {which} can not be loaded (offline and not stored?): {reason}"
    return f"{name}: lm-eval can not load this task: {reason}"
