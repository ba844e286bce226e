"""Names by content: what is the same has the same key, on any machine."""

import hashlib
import json
from typing import Any


def key_of(**parts: Any) -> str:
    """sha256 over the JSON of the parts, the same whatever their order."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
