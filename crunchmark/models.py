"""Dense models in and out: safetensors only, offline first, a fingerprint of the weights."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from crunchmark.seeds import NUMERICS

logging.disable_progress_bar()  # the harness shows its own


@dataclass(frozen=True)
class ModelSpec:
    """A model by local folder or hub id.

    dtype: how real numbers are stored: "auto" is the checkpoint's own 16-bit dtype, else bfloat16.
    compute: dtype it runs in.
    """

    path: str
    name: str = ""
    revision: str | None = None
    dtype: str = "auto"
    compute: str = "float32"
    trust_remote_code: bool = False

    @cached_property
    def folder(self) -> Path:
        """Where its files are on this machine.

        Raises:
            ValueError: it is not here, or it has no safetensors weights.
        """
        folder = Path(self.path)
        if not folder.is_dir():
            folder = self._from_hub()
        if not list(folder.glob("*.safetensors")):
            pickles = ", ".join(p.name for p in folder.glob("*.bin"))
            hint = f" (refused: {pickles})" if pickles else ""
            raise ValueError(
                f"model.path={self.path} holds no *.safetensors{hint}; valid: safetensors weights"
            )
        return folder

    def _from_hub(self) -> Path:
        from huggingface_hub import snapshot_download

        try:
            wanted = ["*.json", "*.safetensors", "*.txt", "*.model"]
            return Path(snapshot_download(self.path, revision=self.revision, allow_patterns=wanted))
        except Exception as error:
            raise ValueError(
                f"model.path={self.path} is no local folder, and the hub could not give it "
                f"({type(error).__name__}); valid: a folder, or a hub id that is cached or reachable"
            ) from None

    @property
    def title(self) -> str:
        """Name in tables."""
        return self.name or Path(self.path).name

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over config and weights."""
        digest = hashlib.sha256(NUMERICS.encode())
        for file in [self.folder / "config.json", *sorted(self.folder.glob("*.safetensors"))]:
            with file.open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
        return digest.hexdigest()

    @cached_property
    def storage(self) -> torch.dtype:
        """16-bit dtype its weights are stored in.

        Raises:
            ValueError: dtype is not one of auto, bfloat16, float16, float32.
        """
        if self.dtype == "auto":
            config = json.loads((self.folder / "config.json").read_text())
            own = config.get("dtype") or config.get("torch_dtype")
            return torch.float16 if own == "float16" else torch.bfloat16
        return dtype_of("model.dtype", self.dtype)

    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return AutoTokenizer.from_pretrained(self.folder, trust_remote_code=self.trust_remote_code)

    def load(self) -> Any:
        """The model in float32 on the CPU, in eval mode.

        Raises:
            ValueError: a file is truncated, or a weight is nan or inf; names it.
        """
        try:
            model = AutoModelForCausalLM.from_pretrained(
                self.folder,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=self.trust_remote_code,
            )
        except Exception as error:
            raise ValueError(
                f"model.path={self.path} can not be read: {str(error).splitlines()[0]}"
            ) from error
        for name, weight in model.named_parameters():
            if not torch.isfinite(weight).all():
                raise ValueError(f"model.path={self.path}: {name} holds nan or inf; valid: finite weights")
        return model.eval()


def dtype_of(field: str, name: str) -> torch.dtype:
    """The torch dtype of that name.

    Raises:
        ValueError: it is none of bfloat16, float16, float32.
    """
    if name not in ("bfloat16", "float16", "float32"):
        raise ValueError(f"{field}={name!r} is unknown; valid: auto, bfloat16, float16, float32")
    found: torch.dtype = getattr(torch, name)
    return found
