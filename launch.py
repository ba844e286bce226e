"""What stands between the command line and a cell: refused targets, one-line errors, progress lines."""

import difflib
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from hydra.errors import InstantiationException
from rich.console import Console

PREFIXES = ("crunchmark.", "methods.", "tasks.")
FAILED: list[str] = []  # what went wrong in this process
DEBUG = bool(os.environ.get("HYDRA_FULL_ERROR"))  # the user wants stack traces
COMPLAINTS = (ValueError, OSError)  # what our own checks raise: a line is enough


def check_targets(node: Any) -> None:
    """Every `_target_` must start with one of ours.

    Raises:
        ValueError: one does not; names it.
    """
    if isinstance(node, dict):
        target = node.get("_target_")
        if target is not None and not str(target).startswith(PREFIXES):
            raise ValueError(f"_target_={target!r} is refused; valid: a name under {', '.join(PREFIXES)}")
        node = list(node.values())
    for child in node if isinstance(node, list) else []:
        check_targets(child)


def check_choices(config: dict[str, Any], choices: Mapping[str, Any]) -> None:
    """Every stage must be there, and once; only tasks may be several in one cell.

    Raises:
        ValueError: a stage is missing or is a list; names it.
    """
    for name in ("model", "method", "calib", "task", "track"):
        if not config.get(name):
            raise ValueError(f"{name} is missing; valid: one of the names that `--help` lists under {name}")
        if name != "task" and not isinstance(choices.get(name), str):
            raise ValueError(
                f"{name}={choices.get(name)} is several; valid: one, or a grid with -m {name}=a,b"
            )


@cache
def runner(store: str, folder: str, max_gb: float) -> Any:
    """One runner per store and cache, so that the cells of a sweep share what is in memory."""
    from crunchmark.cache import Cache
    from crunchmark.pipeline import Runner
    from crunchmark.store import Store

    return Runner(Store(store), Cache(folder, max_gb))


def say(cell: Any, rows: list[dict[str, Any]]) -> None:
    """One line per finished cell."""
    row = rows[-1] if rows else {}
    if row.get("reason"):
        text = f"{row['state']}: {row['reason']}"
    else:
        text = f"{row['achieved_bytes']:.1%} removed, {row['file_bytes'] / 1e6:.2f} MB on disk"
    Console(stderr=True).print(
        f"{cell.label} budget={cell.budget:g}: {text}", highlight=False, soft_wrap=True
    )


def one_line(error: BaseException) -> str:
    """What a user needs to know of an error, Hydra's own included."""
    cause: Any = error.__cause__
    where, parent = getattr(cause, "full_key", None), getattr(cause, "parent_node", None)
    if where and parent is not None:
        names = [str(k) for k in parent]
        near = difflib.get_close_matches(str(where).rpartition(".")[2], names, n=3, cutoff=0.5)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        return f"error: {where} is no field{hint}; valid: {', '.join(sorted(names))}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"error: {lines[0]}"


def fail(error: BaseException) -> None:
    """Say it, let the sweep go on, exit with 1 at the end."""
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__  # what the object itself complained of
    known = isinstance(error, COMPLAINTS)
    text = one_line(error) if known else f"error: {type(error).__name__}: {error}"
    if DEBUG or not known:
        text = "".join(traceback.format_exception(error)) + text
    FAILED.append(text)
    sys.stderr.write(text + "\n")


def guarded(main: Callable[[], Any]) -> int:
    """Run Hydra's main; the exit code: 0 all well, 1 a cell failed, 2 the command line is wrong."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its exceptions over instead of printing them
    try:
        main()
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on from here\n")
        return 130
    except Exception as error:
        if DEBUG:
            raise
        sys.stderr.write(one_line(error) + "\n")
        return 2
    return 1 if FAILED else 0
