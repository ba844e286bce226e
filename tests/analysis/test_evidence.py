"""Differences of two cells: intervals know items and calibration draws."""

import numpy as np
import pytest

from analysis import evidence

pytestmark = pytest.mark.slow  # with the other verdicts half a minute together


def test_differences_know_draws_and_items():
    rng = np.random.default_rng(1)
    alone = evidence.difference((rng.random((1, 300)) < 0.6) * 1.0, (rng.random((1, 300)) < 0.6) * 1.0)
    assert alone.low < 0 < alone.high
    base = (rng.random(300) < 0.7) * 1.0
    draws = np.stack([base, base, base * 0])
    spread = evidence.difference(draws, base[None])
    assert spread.low < -0.6  # three draws of which one differs may be anything
    assert spread.high > 0
    same = evidence.difference(base[None], base[None])
    assert (same.mean, same.p) == (0.0, 1.0)


def test_few_equal_answers_are_no_certainty():
    for one in (np.ones((1, 5)), np.tile(np.linspace(0, 1, 5), (3, 1))):
        assert evidence.difference(one, one[:1]).high > 0.2


def test_differences_of_three_draws_cover_the_truth():
    rng, inside = np.random.default_rng(2), 0
    for _ in range(300):
        old = rng.normal(0, 1, 200)
        new = old + rng.normal(0, 0.05, 3)[:, None] + rng.normal(0, 0.1, (3, 200))
        found = evidence.difference(new, old[None])
        inside += found.low <= 0 <= found.high
    assert inside >= 0.92 * 300
