"""Small checks of what users give, and errors in one line."""

import re
from collections.abc import Iterable


class Malformed(ValueError):
    """An evaluation set that can not be asked as it is; the message names the field and the place."""


def first_line(error: BaseException) -> str:
    """The first line of what the error says, or its name."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def whole(field: str, value: object, least: int = 1) -> None:
    """Check a number of things.

    Raises:
        ValueError: it is no whole number, or below the least.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{field}={value!r} is out of range; valid: a whole number >= {least}")


def number(field: str, value: object, least: float = 0.0) -> None:
    """Check a number that may have a fraction.

    Raises:
        ValueError: it is no number, not finite, or below the least.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < float("inf"):
        raise ValueError(f"{field}={value!r} is out of range; valid: a number >= {least:g}")


def positive(field: str, value: object) -> None:
    """Check a number that is more than nothing.

    Raises:
        ValueError: it is no number, not finite, or not above 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"{field}={value!r} is out of range; valid: a number above 0")


def shares(field: str, values: Iterable[object]) -> tuple[float, ...]:
    """Return the shares.

    Raises:
        ValueError: there are none, or one is no number between 0 and 1.
    """
    found = tuple(values)
    if not found or not all(type(v) in (int, float) and 0 < v < 1 for v in found):  # type: ignore[operator]
        raise ValueError(f"{field}={list(found)} is out of range; valid: numbers between 0 and 1")
    return found  # type: ignore[return-value]


def flag(field: str, value: object) -> None:
    """Check a switch.

    Raises:
        ValueError: it is neither true nor false.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{field}={value!r} is no switch; valid: true, false")


def one_of(field: str, value: object, valid: Iterable[object]) -> None:
    """Check a choice.

    Raises:
        ValueError: it is none of the valid ones.
    """
    names = list(valid)
    if value not in names:
        raise ValueError(f"{field}={value!r} is unknown; valid: {', '.join(map(_shown, names))}")


def _shown(value: object) -> str:
    """A choice as one types it."""
    return "null" if value is None else str(value)


def folder_name(field: str, value: object) -> None:
    """Check the name of a folder inside another.

    Raises:
        ValueError: it is empty, long, a path, or has letters that shells and patterns take apart.
    """
    if not isinstance(value, str) or not re.fullmatch(r"\w[\w.+=@-]{0,99}", value):
        raise ValueError(
            f"{field}={value!r} is no name; valid: a letter, digit or _, then up to 99 of these or . + = @ -"
        )
