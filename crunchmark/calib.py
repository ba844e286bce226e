"""Calibration tokens: drawn once per (source, n, length, seed), the same for every method of a study."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from crunchmark.checks import first_line, one_of, whole
from crunchmark.hub import local_data, resolve, texts, tree_digest
from crunchmark.seeds import seed_of
from crunchmark.view import View
from crunchmark.walk import Stream

T = TypeVar("T")
INPUTS = ("dense", "compressed")  # whose outputs the layers see
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
    files: str | None = None  # of a large data set only these, as a pattern

    def __post_init__(self) -> None:
        """Check that it says where.

        Raises:
            ValueError: neither path nor dataset is given, or both are.
        """
        if bool(self.path) == bool(self.dataset):
            raise ValueError(
                f"calib.path={self.path!r}, calib.dataset={self.dataset!r}; "
                "valid: one of the two (a .txt, .jsonl or .npy file, or a data set), the other null"
            )

    def identity(self) -> dict[str, Any]:
        """What decides the texts: fields and content of a local file or folder, or a commit on the hub.

        Raises:
            ValueError: the file is missing or empty, or a hub data set has no revision.
        """
        local = _file(self.path) if self.path else local_data(self.dataset or "")
        if local is None:
            if not self.revision:
                raise ValueError(
                    f"calib.revision={self.revision} leaves open which {self.dataset!r} is meant; "
                    "valid: a commit of the data set on the hub"
                )
            return asdict(self)
        where = {"path": None, "dataset": None, "revision": None, "kind": local.suffix}
        return asdict(self) | where | {"content": tree_digest(local, self.files)}


@dataclass(frozen=True)
class Tokens:
    """Token blocks and the hash of their content."""

    ids: Tensor  # (n, length), int64
    fingerprint: str  # sha256 of the ids' bytes


@dataclass(frozen=True)
class Calibration:
    """Calibration data and how to walk it; what a ModelMethod gets.

    memo: what was found of the dense model with these tokens, by a name; found once for cells of a process.
    """

    tokens: Tensor  # (n, length), int64
    inputs: str = "dense"  # "dense" or "compressed"
    batch: int = 4
    seed: int = 0
    device: str = "cpu"
    spill: bool = False  # keep hidden states on disk
    memo: Callable[[str, Callable[[], T]], T] = field(default=lambda _, make: make(), repr=False)

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        one_of("calib.inputs", self.inputs, INPUTS)
        whole("calib.batch", self.batch)

    @property
    def key(self) -> str:
        """What sums over the dense model depend on: tokens, batches, and the kind of device."""
        return f"{fingerprint(self.tokens)} {self.batch} {self.device.partition(':')[0]}"

    def stream(self, view: View) -> Stream:
        """The tokens as hidden states in front of the first block.

        Raises:
            ValueError: a sequence is longer than the model's context, or an id is outside its vocabulary.
        """
        length, longest = self.tokens.shape[1], context(view.model.config)
        if longest is not None and length > longest:
            raise ValueError(f"calib.length={length} is beyond the model's context; valid: 1 to {longest}")
        return Stream.capture(view, self.tokens, self.batch, self.spill)


def draw(source: Source, tokenizer: Any, n: int, length: int, seed: int) -> Tokens:
    """Draw n sequences of length tokens.

    Raises:
        ValueError: n or length below 1, the source is missing, empty, too short, or has foreign ids.
    """
    whole("calib.n", n)
    whole("calib.length", length)
    whole("calib.seed", seed, least=0)
    generator = torch.Generator().manual_seed(seed_of(seed, "calib", length))
    where = source.path or source.dataset or ""
    if where.endswith(".npy"):
        ids = _rows(_file(where), n, length, generator)
    else:
        ids = _windows(_tokenise(_documents(source), where, tokenizer, seed), where, n, length, generator)
    _check_ids(ids, where, len(tokenizer))
    return Tokens(ids, fingerprint(ids))


def context(config: Any) -> int | None:
    """The longest input a model's config allows, None where it does not say."""
    names = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
    return next((n for name in names if (n := getattr(config, name, None))), None)


def fingerprint(ids: Tensor) -> str:
    """Sha256 of the shape and of the ids as little-endian int64."""
    digest = hashlib.sha256(str(tuple(ids.shape)).encode())
    digest.update(ids.contiguous().numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def _file(name: str) -> Path:
    """The file.

    Raises:
        ValueError: it is missing or empty.
    """
    path = resolve(name)
    if not path.is_file():
        raise ValueError(f"calibration file {name!r} does not exist")
    if path.stat().st_size == 0:
        raise ValueError(f"calibration file {name!r} is empty")
    return path


def _documents(source: Source) -> Sequence[str]:
    """The texts of the source, in order."""
    if source.dataset is not None:
        where = (source.name, source.split, source.field, source.revision, source.files)
        return texts(source.dataset, *where)
    path = _file(source.path or "")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"calibration file {source.path!r} is no utf-8 text: {error.reason}") from None
    if path.suffix == ".txt":
        return [text]
    if path.suffix == ".jsonl":
        return json_rows(source.path or "", text, source.field)
    raise ValueError(f"calibration file {source.path!r} has an unknown suffix; valid: .txt, .jsonl, .npy")


def json_rows(path: str, text: str, field: str) -> list[str]:
    """The field of each JSON line, blank lines left out.

    Raises:
        ValueError: a line is no JSON object with that field of text; names file and line.
    """
    lines = enumerate(text.split("\n"), start=1)  # not splitlines: JSON text may hold U+2028
    return [_field(f"{path}:{k}", line, field) for k, line in lines if line.strip()]


def _field(where: str, line: str, field: str) -> str:
    """The text field of one JSON line."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is no JSON: {error.msg}") from None
    found = row.get(field) if isinstance(row, dict) else None
    if not isinstance(found, str):
        names = ", ".join(k for k, v in row.items() if isinstance(v, str)) if isinstance(row, dict) else ""
        raise ValueError(f"{where} has no text field {field!r}; valid: {names or 'an object with text'}")
    return found


def _tokenise(documents: Sequence[str], where: str, tokenizer: Any, seed: int) -> Tensor:
    """All documents as one row of ids; very large sources are thinned to a seeded subset first."""
    generator = torch.Generator().manual_seed(seed_of(seed, "documents"))
    kept: dict[int, str] = {}
    chars = 0
    for k in torch.randperm(len(documents), generator=generator).tolist():
        if chars > MAX_CHARS:
            break
        kept[k] = documents[k]
        chars += len(kept[k])
    text = "\n\n".join(kept[k] for k in sorted(kept))
    if not text.strip():
        raise ValueError(f"calibration source {where!r} holds no text")
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor(ids, dtype=torch.int64)  # (tokens,)


def _windows(row: Tensor, where: str, n: int, length: int, generator: torch.Generator) -> Tensor:
    """(n, length) random windows of a row of ids."""
    if row.numel() < length:
        raise ValueError(
            f"calib.length={length} but calibration source {where!r} has {row.numel()} tokens; one sequence "
            f"needs {length}; valid: length <= {row.numel()}"
        )
    starts = torch.randint(row.numel() - length + 1, (n,), generator=generator)
    return row.unfold(0, length, 1)[starts].contiguous()


def _rows(path: Path, n: int, length: int, generator: torch.Generator) -> Tensor:
    """(n, length) ids from rows of a mapped .npy file: all of them in order, or a seeded subset."""
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"calibration file {str(path)!r} is no readable .npy: {first_line(error)}") from None
    if not isinstance(table, np.ndarray) or table.ndim != 2 or table.dtype.kind not in "iu":
        got = f"{table.dtype} {table.shape}" if isinstance(table, np.ndarray) else type(table).__name__
        raise ValueError(f"calibration file {str(path)!r} holds {got}; valid: integer ids (n, length)")
    if table.shape[0] < n or table.shape[1] < length:
        raise ValueError(
            f"calib.n={n}, calib.length={length} but calibration file {str(path)!r} holds {table.shape[0]} x "
            f"{table.shape[1]} ids; asked for {n} x {length}"
        )
    rows = torch.randperm(table.shape[0], generator=generator)[:n].sort().values
    return torch.from_numpy(table[rows.numpy(), :length].astype(np.int64))


def _check_ids(ids: Tensor, where: str, vocabulary: int) -> None:
    """Every id must be a token of the vocabulary."""
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocabulary:
        bad = low if low < 0 else high
        raise ValueError(f"calibration source {where!r} has id {bad}; valid: 0 to {vocabulary - 1}")
