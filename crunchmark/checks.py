"""Checks of options a config can get wrong."""

from math import isfinite
from typing import Any


def at_least(what: str, value: Any, least: float, whole: bool = True) -> None:
    """Check that an option is a number that is not too small.

    Raises:
        ValueError: it is no number, not finite, below `least`, or has a fraction where `whole` is asked.
    """
    kind = "whole number" if whole else "number"
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not number or not isfinite(value) or value < least:
        raise ValueError(f"{what}={value!r} is out of range; valid: a {kind} >= {least}")
