"""Content-addressed cache: what was computed once is found by what it was computed from."""

import hashlib
import inspect
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from crunchmark.files import TEMP, locked, whole_folder, writable
from crunchmark.interface import Keyed

CONTRACTS = ("builtins", "abc", "crunchmark.interface")  # what every class has; nothing is computed there


def source_of(thing: object) -> str:
    """sha256 of the source of the modules its class and its bases come from: edited code is another key.

    What it holds that came out of a config as well counts in the same way.
    """
    homes = dict.fromkeys(_homes(thing))
    return _source(tuple(home for home in homes if home not in CONTRACTS))


def _homes(thing: object) -> Iterator[str]:
    """Modules of its class, of the bases, and of the parts it was made with."""
    yield from (base.__module__ for base in type(thing).__mro__)
    for part in vars(thing).values():
        if isinstance(part, Keyed):
            yield from _homes(part)


@cache
def _source(modules: tuple[str, ...]) -> str:
    """Read once per process: what is edited later is not what runs."""
    text = "".join(inspect.getsource(sys.modules[module]) for module in modules)
    return hashlib.sha256(text.encode()).hexdigest()


SELDOM = 64  # parts of the bound, after each of which it is checked: other processes add as well


class Cache:
    """Folders named by key under root/kind/. Safe with several processes; bounded by max_gb.

    Raises:
        ValueError: max_gb is not positive.
    """

    def __init__(self, root: Path | str, max_gb: float = 10.0) -> None:
        if isinstance(max_gb, bool) or not isinstance(max_gb, int | float) or not 0 < max_gb < math.inf:
            raise ValueError(
                f"cache.max_gb={max_gb!r} is out of range; valid: a positive number of gigabytes"
            )
        self.root, self.limit = Path(root), max_gb * 1e9
        self._spare = 0.0  # bytes that may be added before all folders are looked at again

    @contextmanager
    def folder(self, kind: str, key: str, make: Callable[[Path], None]) -> Iterator[Path]:
        """The folder of that key; `make` fills it where it is not there yet.

        Nobody drops it while the block runs.
        """
        path, lock = self.root / kind / key, self._lock(kind, key)
        while True:
            with writable("cache.dir", self.root), locked(lock):
                if not path.is_dir():
                    with whole_folder(path) as temp:
                        make(temp)
                    self._spare -= _size(path)
                    if self._spare < 0:
                        self._trim(keep=path)
            with locked(lock, shared=True):
                if path.is_dir():  # else it was dropped between the two locks
                    os.utime(path)
                    yield path
                    return

    def _lock(self, kind: str, key: str) -> Path:
        return self.root / kind / f".{key}.lock"

    def _trim(self, keep: Path) -> None:
        """Drop what was used longest ago until the bound is met; never what is in use or was just made."""
        folders = [p for p in self.root.glob("*/*") if p.is_dir()]
        for orphan in (p for p in folders if p.name.startswith(TEMP)):
            self._drop(orphan, orphan.name.removeprefix(TEMP))
        sizes = {p: _size(p) for p in folders if not p.name.startswith(TEMP)}
        total = sum(sizes.values())
        self._spare = min(self.limit - total, self.limit / SELDOM)
        for path in sorted((p for p in sizes if p != keep), key=_used):
            if total <= self.limit:
                return
            total -= sizes[path] * self._drop(path, path.name)

    def _drop(self, path: Path, key: str) -> bool:
        """Remove a folder nobody holds: renamed first, so that a kill leaves no half of it behind."""
        try:
            with locked(self._lock(path.parent.name, key), wait=False):
                gone = path.parent / f"{TEMP}{key}"
                if path != gone:
                    path.rename(gone)
                shutil.rmtree(gone, ignore_errors=True)
        except (BlockingIOError, FileNotFoundError):
            return False
        return True


def _size(folder: Path) -> int:
    """Bytes of its files; another process may be dropping it."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


def _used(folder: Path) -> float:
    """When it was last used."""
    with suppress(FileNotFoundError):
        return folder.stat().st_mtime
    return 0.0
