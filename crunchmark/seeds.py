"""Seeds from names: the same draw for every method of a study, another for every repetition."""

import hashlib


def seed_of(base: int, *names: object) -> int:
    """A 63-bit seed from the base seed and the names involved, the same on every machine."""
    text = "\x1f".join([str(base), *(str(n) for n in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


NUMERICS = "9"  # raised whenever the core's arithmetic changes, so that no cached number outlives it
