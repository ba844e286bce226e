"""Tensors into a file; what the system refuses is said as the system says it."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors.

    Raises:
        OSError: the disk is full or may not be written to; safetensors hides the number in its text.
    """
    try:
        save_file({k: t.contiguous() for k, t in tensors.items()}, path, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def load(path: Path, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """The tensors of a file in the cache or of an artifact, or those of these names that it holds.

    They are its pages in memory: what is read of them is resident until all of one call are gone.

    Raises:
        ValueError: it is damaged; says what to delete.
    """
    try:
        with safe_open(path, framework="pt") as file:
            there = file.keys()
            chosen = there if names is None else set(names).intersection(there)
            return {name: file.get_tensor(name) for name in chosen}
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> ValueError:
    """What to say of a file that can not be read."""
    return ValueError(f"{path} is damaged ({error}); delete {path.parent}: it is made again")
