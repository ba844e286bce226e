"""What the analysis commands share: options, reading the study they name, one line for what is wrong."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from analysis import collect, protocols

MIXED = ("refuse", "drop")


@dataclass(frozen=True)
class Answer:
    """What a command that answers yes or no wrote, and the exit code that is its answer."""

    paths: Iterable[Path]
    code: int


class Options(argparse.ArgumentParser):
    """The options of a command, called as one types it; a mistake in them is one line."""

    def __init__(self, **settings: Any) -> None:
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        name = f"python -m {spec.name.removesuffix('.__main__')}" if spec else None
        super().__init__(**{"prog": name, **settings})

    def error(self, message: str) -> NoReturn:
        """One line."""
        raise collect.AnalysisError(f"{message}; valid: what {self.prog} --help says")


def parser(purpose: str, writes: bool = True) -> Options:
    """The options every analysis command of one study shares; `--out` only where it writes files."""
    options = Options(description=purpose)
    options.add_argument("study", help="name of the study: a folder of the store, or a W&B group")
    options.add_argument("--store", default="results", help="folder of studies (default: results)")
    options.add_argument("--from", dest="source", default="", help="read W&B instead: wandb:entity/project")
    if writes:
        options.add_argument("--out", default="", help="folder to write to (default: inside the study)")
    mixed_option(options)
    return options


def mixed_option(options: argparse.ArgumentParser) -> None:
    """What becomes of a task that cells were asked under two protocols."""
    options.add_argument(
        "--mixed", default="refuse", help="tasks of two protocols: refuse, or drop what dense was not asked"
    )


def read(options: argparse.Namespace) -> pd.DataFrame:
    """The study the options name; with `--mixed drop` what is left out of it is said."""
    if options.mixed not in MIXED:
        raise collect.AnalysisError(f"--mixed={options.mixed!r}: valid: {', '.join(MIXED)}")
    away = getattr(options, "source", "")
    data = collect.load_wandb(away, options.study) if away else collect.load(options.study, options.store)
    if options.mixed == "refuse":  # by `check_protocols`, of the tasks that are shown
        return data
    data = protocols.drop(data)
    sys.stderr.writelines(f"{line}\n" for line in protocols.lines(data, "aside"))
    return data


def listed(text: str, field: str = "", valid: Sequence[str] = ()) -> list[str]:
    """A comma-separated option; where only some names are valid, these and at least one."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names or [text]:
        if valid and name not in valid:
            raise collect.AnalysisError(f"--{field}={name!r}: valid: {', '.join(valid)}")
    return names


def run(
    command: Callable[[Sequence[str] | None], Iterable[Path] | Answer], argv: Sequence[str] | None = None
) -> int:
    """Run a command: print the paths it wrote, or one line of what is wrong."""
    try:
        found = command(argv)
        answer = found if isinstance(found, Answer) else Answer(found, 0)
        for path in answer.paths:
            sys.stdout.write(f"{path}\n")
    except BrokenPipeError:  # whoever read it has enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (collect.AnalysisError, OSError) as problem:
        sys.stderr.write(f"error: {_told(problem)}\n")
        return 2
    return answer.code


def _told(problem: Exception) -> str:
    """What is wrong in one line; of a file, which."""
    if isinstance(problem, OSError) and problem.strerror:
        return f"{problem.strerror}: {problem.filename}" if problem.filename else problem.strerror
    return str(problem)
