"""Content-addressed cache: what was computed once is found by what it was computed from."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crunchmark.files import locked, whole_folder


def key_of(**parts: Any) -> str:
    """sha256 over the JSON of the parts, the same whatever their order."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class Cache:
    """Folders named by key under root/kind/. Safe with several processes; bounded by max_gb.

    Raises:
        ValueError: max_gb is not positive.
    """

    def __init__(self, root: Path | str, max_gb: float = 10.0) -> None:
        if not max_gb > 0:
            raise ValueError(f"cache.max_gb={max_gb} is out of range; valid: a positive number of gigabytes")
        self.root, self.limit = Path(root), max_gb * 1e9

    def folder(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """The folder of that key; `make` fills it where it is not there yet."""
        path = self.root / kind / key
        with locked(self.root / kind / f".{key}.lock"):
            if not path.is_dir():
                with whole_folder(path) as temp:
                    make(temp)
                self._trim(keep=path)
            os.utime(path)
        return path

    def _trim(self, keep: Path) -> None:
        """Drop what was used longest ago until the bound is met; never what was just made."""
        folders = [
            p for p in self.root.glob("*/*") if p.is_dir() and not p.name.startswith(".") and p != keep
        ]
        sizes = {p: sum(f.stat().st_size for f in p.rglob("*") if f.is_file()) for p in [*folders, keep]}
        total = sum(sizes.values())
        for path in sorted(folders, key=lambda p: p.stat().st_mtime):
            if total <= self.limit:
                return
            shutil.rmtree(path, ignore_errors=True)
            total -= sizes[path]
