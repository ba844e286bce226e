"""Checks of what users give: one line with field, value and what is valid."""

import pytest

from crunchmark.checks import one_of, positive


def test_null_among_the_choices_is_named_as_one_types_it():
    with pytest.raises(ValueError, match=r"^bucket='x' is unknown; valid: s, m, null$"):
        one_of("bucket", "x", ("s", "m", None))
    one_of("bucket", None, ("s", None))


@pytest.mark.parametrize("value", [0, -1, True, "x", None, float("nan"), float("inf")])
def test_what_is_no_number_above_zero_is_refused(value):
    with pytest.raises(ValueError, match=r"^precision=.* is out of range; valid: a number above 0$"):
        positive("precision", value)
