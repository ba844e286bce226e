"""Sizes and shares as people type them."""

from __future__ import annotations

import math
import re

from analysis.collect import AnalysisError

UNITS = {"": 1, "B": 1} | {
    f"{letter}{tail}": base**power
    for power, letter in enumerate("kMGT", 1)
    for tail, base in (("B", 1000), ("iB", 1024))
}
UNITS |= {"KB": 1000, "KiB": 1024}
VALID = "a positive number and nothing, B, kB, MB, GB, TB (powers of 1000), KiB, MiB, GiB or TiB (of 1024)"
_SIZE = re.compile(r"(\d+(?:\.\d*)?(?:[eE]\+?\d+)?|\.\d+)\s*([A-Za-z]*)")


def size(text: str, field: str) -> float:
    """Bytes of 4.5GB, 4.5 GiB, 900 MB, 4500000000.

    Raises:
        AnalysisError: it is no size, or its unit is none; bits (Gb) are none either.
    """
    found = _SIZE.fullmatch(text.strip())
    amount = float(found[1]) * UNITS.get(found[2], 0) if found else 0.0
    if not 0 < amount < math.inf:
        raise AnalysisError(f"--{field}={text!r}: no size; valid: {VALID}")
    return amount


def share(text: str, field: str) -> tuple[str, float]:
    """Task and share of task=0.95.

    Raises:
        AnalysisError: it is not a name, an equals sign and a number above 0 and below 1.
    """
    name, _, number = text.strip().rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not name or not 0 < value < 1:
        raise AnalysisError(
            f"--{field}={text!r}: valid is TASK=SHARE, a share above 0 and below 1, as mcr=0.95"
        )
    return name, value
