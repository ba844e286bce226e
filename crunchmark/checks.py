"""Small checks of what users give, and errors in one line."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


class Malformed(ValueError):
    """An evaluation set that can not be asked as it is; the message names the field and the place."""


def first_line(error: BaseException) -> str:
    """The first line of what the error says, or its name."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Inside, a complaint that does not say what it is about begins with it."""
    try:
        yield
    except ValueError as error:
        if type(error) is not ValueError or what in str(error):
            raise
        raise ValueError(f"{what}: {error}") from error


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


def fraction(field: str, value: object, zero: bool = False, one: bool = False) -> None:
    """Check a share of something.

    Args:
        field: the option.
        value: what it is.
        zero: whether nothing is a share too.
        one: whether all of it is one too.

    Raises:
        ValueError: it is no number, or not above 0 and below 1.
    """
    inside = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
    if not inside or (value == 0 and not zero) or (value == 1 and not one):
        raise ValueError(
            f"{field}={value!r} is out of range; "
            f"valid: 0 {'<=' if zero else '<'} share {'<=' if one else '<'} 1"
        )


def several(field: str, values: object) -> tuple[Any, ...]:
    """Return the entries of a list.

    Raises:
        ValueError: it is no list.
    """
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ValueError(f"{field}={values!r} is no list; valid: as [{'a, b' if values is None else values}]")
    return tuple(values)


def shares(field: str, values: object) -> tuple[float, ...]:
    """Return the shares.

    Raises:
        ValueError: it is no list, there are none, or one is no number between 0 and 1.
    """
    found = several(field, values)
    if not found or not all(type(v) in (int, float) and 0 < v < 1 for v in found):
        raise ValueError(f"{field}={list(found)} is out of range; valid: numbers between 0 and 1")
    return found


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
