"""The benchmarks run: what they print is no test, but that they still fit the code is."""

import argparse

import pytest

from benchmarks import compress, sharing, walker


@pytest.mark.slow
def test_sharing_counts_one_compression_per_budget(tmp_path):
    assert sharing.spent(tmp_path, sharing.BUDGETS[:2]) > 0


@pytest.mark.slow
def test_our_side_of_every_row_is_measured():
    size = {"hidden": 128, "layers": 1, "heads": 2, "inner": 128, "n": 2, "length": 16}
    found = compress.measure(argparse.Namespace(**size, repeats=1, only="", reference=None))
    assert set(found) == {*compress.JOBS, *compress.SWEEPS}
    assert all(costs["ours"].seconds > 0 for costs in found.values())


def test_the_walk_is_measured():
    size = argparse.Namespace(hidden=64, inner=96, n=2, length=16, batch=2)
    found = walker.one(1, size)
    assert found["hidden"] == 2 * 16 * 64 * 4
    assert found["statistics"] == 8 * (3 * 64**2 + 96**2)
