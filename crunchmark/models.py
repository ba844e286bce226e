"""Dense models in and out: safetensors only, offline first, a fingerprint of the weights."""

import hashlib
import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from crunchmark.checks import first_line, flag, one_of
from crunchmark.families import FAMILIES
from crunchmark.hub import network, resolve
from crunchmark.seeds import NUMERICS

FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.tiktoken", "*.jinja"]
DTYPES = ("bfloat16", "float16", "float32")
NUMBERED = re.compile(r"\.(\d+)\.")  # the number of a block in a weight's name
TWICE = ["consolidated*", "original/*", "onnx/*"]  # the same weights once more
REASONS = {
    "GatedRepoError": "it is gated: ask for access on its page and set HF_TOKEN",
    "RepositoryNotFoundError": "the hub has no such model, or it is private: check the id, or set HF_TOKEN",
    "RevisionNotFoundError": "it has no such revision",
}


@dataclass(frozen=True)
class ModelSpec:
    """A model by local folder or hub id.

    dtype: how real numbers are stored: "auto" is the checkpoint's own 16-bit dtype, else bfloat16.
    compute: dtype it runs in.
    """

    path: str
    name: str | None = None
    revision: str | None = None
    dtype: str = "auto"
    compute: str = "float32"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        """Check the one switch that lets others' code run.

        Raises:
            ValueError: it is neither true nor false.
        """
        flag("model.trust_remote_code", self.trust_remote_code)

    @cached_property
    def folder(self) -> Path:
        """Where its files are on this machine.

        Raises:
            ValueError: it is not here, or it has no readable config.json and safetensors weights.
        """
        if not self.path:
            raise ValueError(f"model.path={self.path!r} is empty; valid: a folder or a hub id")
        folder = resolve(str(self.path))
        folder = folder if folder.is_dir() else self._from_hub()
        if not (folder / "config.json").is_file():
            raise self._wrong("holds no config.json", "a folder of a transformers model")
        weights = sorted(folder.glob("*.safetensors"))
        if not weights:
            pickles = ", ".join(p.name for kind in ("*.bin", "*.pt", "*.pth") for p in folder.glob(kind))
            hint = f" (refused, pickles: {pickles})" if pickles else ""
            raise self._wrong(
                f"holds no *.safetensors{hint}", "safetensors weights, perhaps at another model.revision"
            )
        for file in weights:
            self._check_header(file)
        return folder

    def _wrong(self, what: str, valid: str) -> ValueError:
        return ValueError(f"model.path={self.path} {what}; valid: {valid}")

    def _check_header(self, file: Path) -> None:
        try:
            with safe_open(file, framework="pt"):
                return
        except (SafetensorError, OSError) as error:
            what = (
                f"holds {file.name}, {file.stat().st_size} bytes that can not be read ({first_line(error)})"
            )
            raise self._wrong(what, "a complete safetensors file") from None

    def _from_hub(self) -> Path:
        """Its snapshot, from the cache where the hub can not be reached."""
        from huggingface_hub import snapshot_download

        with network() as online:
            try:
                return Path(
                    snapshot_download(
                        self.path,
                        revision=self.revision,
                        allow_patterns=[*FILES, *(["*.py"] if self.trust_remote_code else [])],
                        ignore_patterns=TWICE,
                        local_files_only=not online,
                    )
                )
            except Exception as error:  # the hub's many kinds; all mean the model can not be had
                at = f" at revision {self.revision!r}" if self.revision else ""
                kind = type(error).__name__
                why = "the hub is offline and it is not in the cache"
                if kind == "HFValidationError":
                    why = "it is no hub id"
                elif online:
                    why = f"on the hub{at} {REASONS.get(kind, f'{kind}: {first_line(error)}')}"
                valid = "a folder, or a hub id that is cached or reachable"
                raise self._wrong(f"is no local folder; {why}", valid) from None

    @property
    def title(self) -> str:
        """Name in tables: what `name` says, else the last part of the path that tells something."""
        parts = [part for part in Path(self.path).parts if part != "model"]
        at = f"@{self.revision}" if self.revision else ""
        return self.name or (parts[-1] if parts else self.path) + at

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over weights, config, tokenizer and generation settings."""
        digest = hashlib.sha256(NUMERICS.encode())
        for file in sorted(f for pattern in (*FILES, "*.py") for f in self.folder.glob(pattern)):
            digest.update(file.name.encode())
            with file.open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
        return digest.hexdigest()

    @cached_property
    def config(self) -> dict[str, Any]:
        """What its config.json says.

        Raises:
            ValueError: it is no JSON, or names no model type.
        """
        try:
            found = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise self._wrong(f"has a config.json that is no JSON: {first_line(error)}", "JSON") from None
        if not isinstance(found, dict) or not isinstance(found.get("model_type"), str):
            raise self._wrong("has a config.json without model_type", "a transformers config")
        return found

    @cached_property
    def storage(self) -> torch.dtype:
        """16-bit dtype its weights are stored in.

        Raises:
            ValueError: dtype is not one of auto, bfloat16, float16.
        """
        if self.dtype == "auto":
            own = self.config.get("dtype") or self.config.get("torch_dtype")
            return torch.float16 if own == "float16" else torch.bfloat16
        if self.dtype == "float32":
            raise ValueError(
                "model.dtype='float32' would store twice the dense bytes that budgets are shares of; "
                "valid: auto, bfloat16, float16"
            )
        one_of("model.dtype", self.dtype, ("auto", *DTYPES[:2]))
        return dtype_of("model.dtype", self.dtype)

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Quietly, and with no connection unless its code may come from elsewhere; any error is one line."""
        from transformers.utils import logging

        logging.disable_progress_bar()  # the harness shows its own
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            with network(needed=self.trust_remote_code):
                yield
        except Exception as error:  # transformers raises many kinds, most over several lines
            raise ValueError(
                f"model.path={self.path}: {what} can not be read: {first_line(error)}"
            ) from error
        finally:
            logging.set_verbosity(verbosity)

    def tokenizer(self) -> Any:
        """Its tokenizer.

        Raises:
            ValueError: there is none, or it can not be read.
        """
        from transformers import AutoTokenizer

        kinds = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "*.tiktoken")
        if not any(list(self.folder.glob(kind)) for kind in kinds):
            raise self._wrong("holds no tokenizer", "a folder with one of " + ", ".join(kinds))
        with self._reading("its tokenizer"):
            return AutoTokenizer.from_pretrained(self.folder, trust_remote_code=self.trust_remote_code)

    def load(self) -> Any:
        """The model in float32 on the CPU, in eval mode.

        Raises:
            ValueError: a file can not be read, a weight is missing, nan or inf; names it.
        """
        kind = self.config["model_type"]
        if kind not in FAMILIES and not self.trust_remote_code:
            if "auto_map" in self.config:
                needs = f"is of model type {kind!r} and needs its own code, which is not run unless asked for"
                raise self._wrong(needs, "model.trust_remote_code=true if you trust it")
            raise self._wrong(f"is of model type {kind!r}, which is unknown", ", ".join(sorted(FAMILIES)))
        from transformers import AutoModelForCausalLM

        with self._reading(f"model type {kind!r}"):
            model, found = AutoModelForCausalLM.from_pretrained(
                self.folder,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=self.trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # said below, with names
            )
        layers = getattr(model.config, "num_hidden_layers", math.inf)
        beyond = [k for k in found["unexpected_keys"] if any(int(n) >= layers for n in NUMBERED.findall(k))]
        shapes = [f"{k} {tuple(a)} for {tuple(b)}" for k, a, b in found["mismatched_keys"]]
        lacks = set(found["missing_keys"]) - {k for k, *_ in found["mismatched_keys"]}
        problems = {"lacks the weights": lacks, "has more blocks:": beyond, "has other shapes:": shapes}
        for what, names in problems.items():
            if names:
                some = ", ".join(sorted(names)[:4]) + (
                    f" and {len(names) - 4} more" if len(names) > 4 else ""
                )
                raise self._wrong(f"{what} {some}", "the weights its config.json asks for")
        for name, weight in model.named_parameters():
            if not torch.isfinite(weight).all():
                raise ValueError(f"model.path={self.path}: {name} holds nan or inf; valid: finite weights")
        return model.eval()


def dtype_of(field: str, name: str) -> torch.dtype:
    """The torch dtype of that name.

    Raises:
        ValueError: it is none of DTYPES.
    """
    one_of(field, name, DTYPES)
    found: torch.dtype = getattr(torch, name)
    return found
