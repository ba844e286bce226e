"""Small checks of what users give, and errors in one line."""


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
