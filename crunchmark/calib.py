"""Calibration tokens: drawn once per (source, n, length, seed), the same for every method of a study."""

import hashlib
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from torch import Tensor

from crunchmark.seeds import seed_of
from crunchmark.view import View
from crunchmark.walk import Stream

MAX_CHARS = 16_000_000  # more text than this is thinned to a seeded subset of its documents


@dataclass(frozen=True)
class Source:
    """Where token blocks come from: a local file (path) or a hub data set (dataset)."""

    path: str | None = None  # .txt, .jsonl or .npy of token ids (n, length)
    dataset: str | None = None  # hub name or local folder of one
    name: str | None = None  # the data set's configuration
    revision: str | None = None
    split: str = "train"
    field: str = "text"  # of .jsonl lines and data set rows


@dataclass(frozen=True)
class Tokens:
    """Token blocks and the hash of their content."""

    ids: Tensor  # (n, length), int64
    fingerprint: str  # sha256 of the ids' bytes


@dataclass(frozen=True)
class Calibration:
    """Calibration data and how to walk it; what a ModelMethod gets."""

    tokens: Tensor  # (n, length), int64
    inputs: str = "dense"  # "dense" or "compressed"
    batch: int = 8
    seed: int = 0
    device: str = "cpu"
    spill: bool = False  # keep hidden states on disk

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        if self.inputs not in ("dense", "compressed"):
            raise ValueError(f"calib.inputs={self.inputs!r} is unknown; valid: dense, compressed")
        if self.batch < 1:
            raise ValueError(f"calib.batch={self.batch} is out of range; valid: batch >= 1")

    def stream(self, view: View) -> Stream:
        """The tokens as hidden states in front of the first block."""
        return Stream.capture(view, self.tokens, self.batch, self.spill)


def draw(source: Source, tokenizer: Any, n: int, length: int, seed: int) -> Tokens:
    """Draw n sequences of length tokens.

    Raises:
        ValueError: n or length below 1, the source is missing, empty, too short, or has foreign ids.
    """
    if n < 1 or length < 1:
        raise ValueError(f"calib.n={n}, calib.length={length} is out of range; valid: both >= 1")
    if (source.path is None) == (source.dataset is None):
        raise ValueError(f"calibration source needs path or dataset, not both; got {source}")
    generator = torch.Generator().manual_seed(seed_of(seed, "calib", length))
    where = source.path or source.dataset or ""
    if where.endswith(".npy"):
        ids = _rows(_file(where), n, length, generator)
    else:
        ids = _windows(_tokenise(_documents(source), where, tokenizer, seed), where, n, length, generator)
    _check_ids(ids, where, len(tokenizer))
    return Tokens(ids, fingerprint(ids))


def fingerprint(ids: Tensor) -> str:
    """Sha256 of the ids as little-endian int64."""
    return hashlib.sha256(ids.contiguous().numpy().astype("<i8").tobytes()).hexdigest()


def _file(name: str) -> Path:
    """The file.

    Raises:
        ValueError: it is missing or empty.
    """
    path = Path(name).expanduser()
    if not path.is_file():
        raise ValueError(f"calibration file {name!r} does not exist")
    if path.stat().st_size == 0:
        raise ValueError(f"calibration file {name!r} is empty")
    return path


def _documents(source: Source) -> Sequence[str]:
    """The texts of the source, in order."""
    if source.dataset is not None:
        return _dataset(source)
    path = _file(source.path or "")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"calibration file {source.path!r} is no utf-8 text: {error.reason}") from None
    if path.suffix == ".txt":
        return [text]
    if path.suffix == ".jsonl":
        lines = enumerate(text.splitlines(), start=1)
        return [_field(line, k, source) for k, line in lines if line.strip()]
    raise ValueError(f"calibration file {source.path!r} has an unknown suffix; valid: .txt, .jsonl, .npy")


def _field(line: str, number: int, source: Source) -> str:
    """The text field of one JSON line."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{source.path}:{number} is no JSON: {error.msg}") from None
    if not isinstance(row, dict) or not isinstance(row.get(source.field), str):
        raise ValueError(f"{source.path}:{number} has no text field {source.field!r}")
    text: str = row[source.field]
    return text


def _offline() -> bool:
    """Whether the hub is out of reach: said so, or no answer within a second."""
    import huggingface_hub.constants as hub

    if not hub.HF_HUB_OFFLINE and not any(os.environ.get(k) for k in ("HTTPS_PROXY", "https_proxy")):
        url = urlparse(hub.ENDPOINT)
        try:
            socket.create_connection((url.hostname or "", url.port or 443), timeout=1).close()
        except OSError:
            return True
    return bool(hub.HF_HUB_OFFLINE)


def _dataset(source: Source) -> Sequence[str]:
    """The text column of a hub data set, or of a local folder of one."""
    import datasets
    import huggingface_hub.constants as hub

    what = f"data set {source.dataset!r}" + (f" ({source.name})" if source.name else "")
    before = (datasets.config.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE)
    offline = Path(source.dataset or "").is_dir() or _offline()
    datasets.config.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE = offline, offline
    try:
        table = datasets.load_dataset(
            source.dataset, source.name, split=source.split, revision=source.revision
        )
    except Exception as error:  # datasets raises many kinds; all mean the data can not be had
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        hint = "; the hub is offline and it is not in the cache" if offline else ""
        raise ValueError(f"{what} split {source.split!r} can not be loaded{hint}: {reason}") from None
    finally:
        datasets.config.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE = before
    if source.field not in table.column_names:
        raise ValueError(f"{what} has no field {source.field!r}; valid: {', '.join(table.column_names)}")
    texts: Sequence[str] = table[source.field]
    return texts


def _tokenise(documents: Sequence[str], where: str, tokenizer: Any, seed: int) -> Tensor:
    """All documents as one row of ids; very large sources are thinned to a seeded subset first."""
    generator = torch.Generator().manual_seed(seed_of(seed, "documents"))
    kept, chars = [], 0
    for k in torch.randperm(len(documents), generator=generator).tolist():
        if chars > MAX_CHARS:
            break
        kept.append(k)
        chars += len(documents[k])
    text = "\n\n".join(documents[k] for k in sorted(kept))
    if not text.strip():
        raise ValueError(f"calibration source {where!r} holds no text")
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor(ids, dtype=torch.int64)  # (tokens,)


def _windows(row: Tensor, where: str, n: int, length: int, generator: torch.Generator) -> Tensor:
    """(n, length) random windows of a row of ids."""
    if row.numel() < length:
        raise ValueError(
            f"calibration source {where!r} has {row.numel()} tokens; one sequence needs {length}"
        )
    starts = torch.randint(row.numel() - length + 1, (n,), generator=generator)
    return row.unfold(0, length, 1)[starts].contiguous()


def _rows(path: Path, n: int, length: int, generator: torch.Generator) -> Tensor:
    """(n, length) ids from rows of a mapped .npy file: all of them in order, or a seeded subset."""
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"calibration file {str(path)!r} is no readable .npy: {error}") from None
    if not isinstance(table, np.ndarray) or table.ndim != 2 or table.dtype.kind not in "iu":
        got = f"{table.dtype} {table.shape}" if isinstance(table, np.ndarray) else type(table).__name__
        raise ValueError(f"calibration file {str(path)!r} holds {got}; valid: integer ids (n, length)")
    if table.shape[0] < n or table.shape[1] < length:
        raise ValueError(
            f"calibration file {str(path)!r} holds {table.shape[0]} x {table.shape[1]} ids; "
            f"asked for {n} x {length}"
        )
    rows = torch.randperm(table.shape[0], generator=generator)[:n].sort().values
    return torch.from_numpy(table[rows.numpy(), :length].astype(np.int64))


def _check_ids(ids: Tensor, where: str, vocabulary: int) -> None:
    """Every id must be a token of the vocabulary."""
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocabulary:
        bad = low if low < 0 else high
        raise ValueError(f"calibration source {where!r} has id {bad}; the vocabulary has {vocabulary} tokens")
