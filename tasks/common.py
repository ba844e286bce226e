"""What the task classes share: the project's root, ids by content, and a batch size that fits."""

import hashlib
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOGIT_BYTES = 2**29  # of float32 logits a batch may hold on a CPU


def from_root(path: str | Path) -> Path:
    """The path as it is if absolute, else from the project's root: the working directory plays no part."""
    return ROOT / Path(path).expanduser()


def digest(value: Any) -> str:
    """Sixteen hex characters of the sha256 of a JSON value; what JSON lacks goes in as its str."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def context(model: Any) -> int | None:
    """The longest input the model's config allows, None where it does not say."""
    names = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
    return next((n for name in names if (n := getattr(model.config, name, None))), None)


def safe_batch(model: Any, length: int | None = None) -> int:
    """At most 64 rows, so few that their float32 logits at full length stay within LOGIT_BYTES."""
    length = length or min(context(model) or 2048, 2048)
    return max(1, min(64, LOGIT_BYTES // (4 * length * model.config.get_text_config().vocab_size)))
