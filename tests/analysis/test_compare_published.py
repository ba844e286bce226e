"""A study against published numbers, which have no error bar."""

import math

import pytest
from scored_study import DENSE, GOOD, cell, compared

from analysis.compare import published

EXPECTED = {
    **{"task": "ppl", "metric": "score", "dense": 2.8, "values": {"0.3": 2.0, "0.5": 3.0, "0.7": 9.0}},
    **{"tolerance": 0.05, "source": "a table", "status": "not attempted here"},
}


def test_published_numbers_are_one_sample_tests(tmp_path):
    cell(tmp_path, "paper", "dense", 0.0, DENSE, expected=EXPECTED)
    cell(tmp_path, "paper", "svd", 0.3, GOOD, DENSE, expected=EXPECTED)
    cell(tmp_path, "paper", "svd", 0.5, {}, DENSE, expected=EXPECTED, state="failed", reason="no memory")
    found = compared(tmp_path, "paper", "published")
    assert found.faults == 2
    assert [line.verdict for line in found.lines.itertuples()] == ["within margin", "regression", "lost"]
    assert found.only_a == ["budget 0.7"]


def test_the_p_values_of_one_sample():
    row = {"value": 2.2, "stderr": 0.02, "higher_is_better": False, "kind": "exp"}
    match, fail, apart = published.tails(row, 2.0, 0.05)
    z = math.log(2.2 / 2.1) / (0.02 / 2.2)
    assert fail == pytest.approx(math.erfc(z / math.sqrt(2)) / 2)
    assert match == pytest.approx(1 - fail)
    assert apart < 1e-20
    better = published.tails(
        {**row, "value": 0.9, "stderr": 0.01, "higher_is_better": True, "kind": "mean"}, 0.8, 0.05
    )
    assert better[0] < 1e-20
    assert better[1] == pytest.approx(1)
    assert all(math.isnan(p) for p in published.tails({**row, "stderr": None}, 2.0, 0.05))
    assert published.tails({**row, "value": math.inf}, 2.0, 0.05) == (1.0, 0.0, 0.0)
