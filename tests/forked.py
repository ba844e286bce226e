"""`python run.py ...` as a user starts it, less the seconds of its imports: a server that has them forks."""

import io
import multiprocessing as mp
import os
import runpy
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from multiprocessing.forkserver import ensure_running
from pathlib import Path

import pytest

from crunchmark.machine import ROOT

SERVER = mp.get_context("forkserver")


@cache
def _serve() -> None:
    """Start the server; before Python 3.11.9 it finds what to import by its environment only."""
    SERVER.set_forkserver_preload(["forked_imports"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, map(str, (*sys.path, ROOT)))))
        ensure_running()


def _main(words: tuple[str, ...], env: Mapping[str, str], said: tuple[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)
    os.chdir(ROOT)
    for number, path in enumerate(said, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(n, "wb", 0), write_through=True) for n in (1, 2))
    sys.argv = ["run.py", *words]
    runpy.run_path("run.py", run_name="__main__")


class Run:
    """A process of run.py: `done()` waits for it, `kill()` is kill -9."""

    def __init__(self, *words: str, **env: str) -> None:
        _serve()
        self._folder = tempfile.TemporaryDirectory(prefix="said-")
        self._said = (f"{self._folder.name}/out", f"{self._folder.name}/err")
        self.process = SERVER.Process(target=_main, args=(words, os.environ | env, self._said))
        self.process.start()
        self.kill = self.process.kill

    @property
    def ended(self) -> bool:
        """Whether it ended, by itself or not."""
        return self.process.exitcode is not None

    def done(self, timeout: float = 280) -> tuple[int, str, str]:
        """Exit code (below zero: the signal), standard output, standard error."""
        self.process.join(timeout)
        if not self.ended:
            self.kill()
            raise TimeoutError(f"run.py took more than {timeout} s and had said: {self.text()}")
        return self.process.exitcode, *self.text()

    def text(self) -> list[str]:
        """What it has written so far to standard output and standard error."""
        return [Path(p).read_text() if Path(p).exists() else "" for p in self._said]
