"""A cell with a repair, start to end: another key, the same bytes, its stage told on the row."""

import pytest

from crunchmark.bench import Bench
from methods.allocate.greedy import Greedy
from methods.compensate.eora import EoRA
from methods.compensate.svd import SVD as ErrorSVD
from methods.flap import FLAP
from methods.magnitude import Magnitude
from methods.modegpt import MoDeGPT
from methods.shortgpt import ShortGPT
from methods.slicegpt import SliceGPT
from methods.wanda import Wanda
from methods.wanda_sp import WandaSP

EORA = {"_target_": "methods.compensate.eora.EoRA", "share": 0.1, "rank": None, "damp": 0.01}


def repaired(make, method, repairer=None, **fields):
    fields = {"compensate": repairer or EoRA(), "stages": {"compensate": EORA}} | fields
    return make(method, 0.5, **fields)


def test_a_repaired_cell_runs_and_says_so(runner, make):
    plain, cell = make(Wanda(), 0.5), repaired(make, Wanda())
    assert (
        len({plain.weights_key, cell.weights_key, repaired(make, Wanda(), EoRA(share=0.2)).weights_key}) == 3
    )
    runner.run(plain)
    rows = runner.run(cell)
    before, after = (runner.store.get_cell(c.study, c.key) for c in (plain, cell))
    assert after["config"]["compensate"] == EORA
    assert "compensate" not in before["config"]
    assert after["scope_bytes"] <= after["plan"]["total"] == before["plan"]["total"]
    assert after["achieved_bytes"] >= 0.5
    assert after["missed"] == 0.0
    assert before["missed"] is None
    assert after["left_dense"] == before["left_dense"] == []
    assert {row["cell"] for row in rows} == {cell.key}
    assert [row["written"] for row in runner.run(cell)] == [row["written"] for row in rows]  # found again


def test_a_repair_that_looks_at_inputs_makes_its_cell_calibrated(make):
    assert repaired(make, Magnitude()).calibrated
    assert not repaired(make, Magnitude(), ErrorSVD()).calibrated


def test_what_a_repair_leaves_nothing_of_is_unreachable(runner, make):
    (row,) = runner.run(repaired(make, Wanda(), EoRA(rank=999)))
    assert row["state"] == "unreachable"
    assert row["nearest_budget"] is None  # a branch of full rank is as large as the weight
    assert "no budget is within reach; valid: compensate.rank up to" in row["reason"]


def test_a_method_of_the_whole_model_is_skipped_with_the_reason(runner, make):
    (row,) = runner.run(repaired(make, SliceGPT()))
    assert (row["state"], row["reason"]) == (
        "skipped",
        "SliceGPT leaves no terms to repair; valid: compensate=none",
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", [ShortGPT(), WandaSP(), FLAP(), MoDeGPT()], ids=lambda m: type(m).__name__)
def test_it_is_skipped_before_anything_is_searched(runner, make, method, monkeypatch):
    monkeypatch.setattr(Bench, "__init__", lambda *_: pytest.fail("a search began"))
    (row,) = runner.run(repaired(make, method, allocate=Greedy()))
    assert row["state"] == "skipped"
    assert "leaves no terms to repair; valid: compensate=none" in row["reason"]
