"""Files of tables and figures: whole, or as they were."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Unwritable(OSError):
    """A file can not be written; the message is one line and says where."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to; it takes the place of `path` when the block ends well.

    Raises:
        Unwritable: there is no room, or no right to write there.
    """
    temp = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise _unwritable(path, problem) from problem
    try:
        yield temp
        temp.replace(path)
    except OSError as problem:
        if problem.filename is not None and Path(problem.filename) != temp:
            raise  # of another file
        raise _unwritable(path, problem) from problem
    finally:
        with suppress(OSError):
            temp.unlink(missing_ok=True)


def _unwritable(path: Path, problem: OSError) -> Unwritable:
    told = f"--out={str(path.parent)!r} can not be written: {problem.strerror or problem}"
    return Unwritable(f"{told}; valid: a folder with room to write")
