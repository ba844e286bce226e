"""What the task classes share: ids by content, checked settings, and a batch size that fits."""

import hashlib
import json
from typing import Any

from crunchmark.calib import context
from crunchmark.checks import whole

LOGIT_BYTES = 2**29  # of float32 logits a batch may hold on a CPU


def digest(value: Any) -> str:
    """Sixteen hex characters of the sha256 of a JSON value; what JSON lacks goes in as its str."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def safe_batch(model: Any, length: int | None = None) -> int:
    """At most 64 rows, so few that their float32 logits at full length stay within LOGIT_BYTES."""
    length = length or min(context(model.config) or 2048, 2048)
    return max(1, min(64, LOGIT_BYTES // (4 * length * model.config.get_text_config().vocab_size)))


def check_items(limit: int | None, batch: int | str) -> None:
    """Check how many items are asked, and how many at a time.

    Raises:
        ValueError: limit is not null or a whole number >= 1, or batch is not auto or one.
    """
    if limit is not None:
        whole("limit", limit)
    if batch != "auto":
        whole("batch", batch)
