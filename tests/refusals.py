"""What every complaint to a user must be."""

import pytest


def refused(call, *parts):
    """The call raises a ValueError of one line that holds all parts."""
    with pytest.raises(ValueError) as e:  # noqa: PT011
        call()
    message = str(e.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message
