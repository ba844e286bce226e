"""Files that are whole or not there: temp file, fsync, rename; and locks that die with their process."""

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEMP = ".tmp-"  # what a killed process may leave behind starts with this
MASK = os.umask(0)  # what this user keeps from others; asking means setting it
os.umask(MASK)
FULL = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),
)


def write_json(path: Path, data: Any) -> None:
    """Write JSON so that a reader sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temp = tempfile.mkstemp(dir=path.parent, prefix=TEMP)
    try:
        os.fchmod(handle, 0o666 & ~MASK)  # else only its writer could read a shared store
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(data, file, indent=1, sort_keys=True, allow_nan=True)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, path)
    except BaseException:
        Path(temp).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in the file, None where there is no file.

    Raises:
        ValueError: it is no JSON object, which no write of ours leaves behind; says what to delete.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it: it is computed again") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path} is damaged (no JSON object); delete it: it is computed again")
    return data


def sync_folder(path: Path) -> None:
    """Make a rename inside the folder survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep_temps(folder: Path) -> None:
    """Remove what a killed process left half-written; only for who holds the folder's lock."""
    for path in folder.glob(f"{TEMP}*"):
        path.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends well, and vanishes otherwise.

    Its name follows from `path`, so that the next try clears what a killed one left; hold a lock.
    """
    temp = path.parent / f"{TEMP}{path.name}"
    shutil.rmtree(temp, ignore_errors=True)
    temp.mkdir(parents=True)
    try:
        yield temp
        for file in temp.rglob("*"):
            if file.is_file():
                file.chmod(0o666 & ~MASK)
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        temp.rename(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(temp, ignore_errors=True)


@contextmanager
def locked(path: Path, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Hold the lock file's flock; the kernel lets go when the process dies, however it dies.

    Raises:
        BlockingIOError: somebody else holds it, and wait is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(handle, mode if wait else mode | fcntl.LOCK_NB)
        yield


@contextmanager
def writable(field: str, root: Path) -> Iterator[None]:
    """Name the config field whose folder is full or may not be written to.

    Raises:
        ValueError: the system refused a write inside the block for lack of space or permission.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise ValueError(
            f"{field}={root} can not be written: {error.strerror}{where}; valid: a folder with room to write"
        ) from error
