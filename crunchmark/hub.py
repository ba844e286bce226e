"""What comes from outside the project: local paths, and the Hugging Face hub where it can be reached."""

import hashlib
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlparse

import huggingface_hub.constants as hub

from crunchmark.checks import first_line
from crunchmark.machine import ROOT

DATA = "CRUNCHMARK_DATA"  # names a folder of data sets laid out as on the hub, asked before the hub


def resolve(path: str | Path) -> Path:
    """The path if absolute, else below the project's root if it is there, else from the working directory."""
    path = Path(path).expanduser()
    return ROOT / path if (ROOT / path).exists() else path.absolute()


def reachable(seconds: float = 1.0) -> bool:
    """Whether the hub, or the proxy in front of it, takes a connection; asked at most once a minute."""
    return not hub.HF_HUB_OFFLINE and _knock(seconds, int(time.monotonic() // 60))


@lru_cache(maxsize=1)
def _knock(seconds: float, minute: int) -> bool:
    """Whether there is an answer in time."""
    proxy = next((p for k in ("HTTPS_PROXY", "https_proxy") if (p := os.environ.get(k))), None)
    url = urlparse(proxy or hub.ENDPOINT)
    answers: list[bool] = []

    def connect() -> None:
        try:
            socket.create_connection((url.hostname or "", url.port or 443), timeout=seconds).close()
        except OSError:
            return
        answers.append(True)

    thread = Thread(target=connect, daemon=True)  # looking a name up has no timeout of its own
    thread.start()
    thread.join(seconds)
    return bool(answers)


@contextmanager
def network(needed: bool = True) -> Iterator[bool]:
    """Inside, the hub's libraries try no connection unless one is needed and the hub can be reached.

    Yields:
        Whether they may.
    """
    online = needed and reachable()
    modules: list[Any] = [hub, *(sys.modules[m] for m in ("datasets.config",) if m in sys.modules)]
    before = [module.HF_HUB_OFFLINE for module in modules]
    try:
        for module in modules:
            module.HF_HUB_OFFLINE = not online
        yield online
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value


def data_root() -> Path | None:
    """The folder of local data sets.

    Raises:
        ValueError: CRUNCHMARK_DATA names what is no folder.
    """
    named = os.environ.get(DATA)
    if named and not Path(named).expanduser().is_dir():
        raise ValueError(
            f"{DATA}={named!r} is no folder; valid: a folder of data sets laid out as on the hub"
        )
    return Path(named).expanduser() if named else None


def local_data(dataset: str) -> Path | None:
    """The folder a data set lies in: below CRUNCHMARK_DATA, or named itself; None: it is the hub's."""
    root = data_root()
    places = ([root / dataset] if root else []) + [resolve(dataset)]
    return next((p for p in places if p.is_dir()), None)


def tree_digest(path: Path, pattern: str | None = None) -> str:
    """Sha256 over a file, or over names and contents of the files below a folder (that fit the pattern)."""
    digest = hashlib.sha256()
    inside = (p for p in path.glob(pattern or "**/*") if p.is_file())
    for file in [path] if path.is_file() else sorted(inside):
        digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()


def texts(
    dataset: str,
    name: str | None = None,
    split: str = "train",
    field: str = "text",
    revision: str | None = None,
    files: str | None = None,
) -> Sequence[str]:
    """One column of a data set: a local folder, one below CRUNCHMARK_DATA, or from the hub or its cache.

    Args:
        dataset: Folder or hub id.
        name: The data set's configuration.
        split: Which rows.
        field: Which column.
        revision: Commit on the hub.
        files: Its only files to read, as a pattern, where the whole is large; then there is no name.

    Raises:
        ValueError: it can not be had, or has no such field; names it.
    """
    table = _table(dataset, name, split, revision, files)
    if field not in table.column_names:
        names = ", ".join(table.column_names)
        raise ValueError(f"{_what(dataset, name)} has no field {field!r}; valid: {names}")
    column: Sequence[str] = table[field]
    return column


def _table(dataset: str, name: str | None, split: str, revision: str | None, files: str | None) -> Any:
    """The rows; a local folder has no revisions."""
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    folder = local_data(dataset)
    with network(needed=folder is None) as online:
        try:
            return datasets.load_dataset(
                str(folder or dataset),
                name,
                split=split,
                revision=None if folder else revision,
                data_files={split: files} if files else None,
                verification_mode="no_checks" if files else None,  # a part has not the sizes of the whole
            )
        except Exception as error:  # datasets raises many kinds; all mean the data can not be had
            at = f" revision {revision!r}" if revision else ""
            hint = "" if folder or online else "; the hub is offline and it is not in the cache"
            text = f"{_what(dataset, name)} split {split!r}{at} can not be loaded{hint}: {first_line(error)}"
            raise ValueError(text) from None


def _what(dataset: str, name: str | None) -> str:
    return f"data set {dataset!r}" + (f" ({name})" if name else "")
