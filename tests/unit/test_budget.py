"""Budgets, rooms, plans: what is asked for in bytes or in the papers' own count."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crunchmark.allocation import equal_shares
from crunchmark.budget import Ledger, Plan, Room, Unreachable, check_budget, dense_bytes
from crunchmark.checks import number, whole
from crunchmark.terms import NM, LowRank, Quantised, Sparse
from crunchmark.view import View
from methods.gptq import GPTQ
from methods.sparsegpt import SparseGPT
from methods.svd import SVD
from methods.svd_llm import SVDLLM

BF16 = torch.bfloat16


@pytest.mark.parametrize("budget", [0, 0.0, 0.3, "0.3", 0.999])
def test_budgets(budget):
    assert check_budget(budget) == float(budget)


@pytest.mark.parametrize("budget", [-0.1, 1, 1.5, "nan", float("inf"), "much", None, True, False, [0.3]])
def test_no_budgets(budget):
    with pytest.raises(ValueError, match=r"^budget=.*valid: 0 <= budget < 1, the share to remove$"):
        check_budget(budget)


def test_a_ledger_gives_what_is_left():
    ledger = Ledger(Room(100, 0.5, torch.float16))
    ledger.reserve(30)
    assert ledger.room == Room(70, 0.5, torch.float16)
    with pytest.raises(Unreachable, match="reserve: the smallest packing is 71 bytes, the room is 70 bytes"):
        ledger.reserve(71)
    assert ledger.room.less(1000).nbytes == 0


@pytest.mark.parametrize("accounting", ["bytes", "nominal"])
@pytest.mark.parametrize("scope", ["blocks", "model"])
def test_a_plan_is_read_back(tiny, accounting, scope):
    plan = equal_shares(View(tiny("gpt2")), 0.3, accounting, scope, BF16)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@given(budget=st.floats(0, 0.99))
@settings(max_examples=50, deadline=None)
def test_rooms_share_the_total(budget):
    plan = equal_shares(VIEW, budget, "bytes", "blocks", BF16)
    dense = VIEW.scope_bytes("blocks")
    assert plan.total == int((1 - budget) * dense)
    assert sum(r.nbytes for r in plan.rooms.values()) <= plan.total
    assert sum(r.nbytes for r in plan.rooms.values()) > plan.total - 1 - len(plan.rooms)
    share = plan.total / dense
    assert all(0 <= share * dense_bytes(VIEW.layers()[k]) - r.nbytes < 1 for k, r in plan.rooms.items())


class FakeView:
    """Three layers and a table of embeddings."""

    def layers(self):
        return {"a": (30, 50), "b": (50, 30), "c": (7, 10)}

    def scope_bytes(self, scope):
        return sum(dense_bytes(s) for s in self.layers().values()) + (scope == "model") * 1000


VIEW = FakeView()


def test_the_whole_model_leaves_less_to_the_blocks():
    plan = equal_shares(VIEW, 0.25, "nominal", "model", BF16)
    blocks, whole = VIEW.scope_bytes("blocks"), VIEW.scope_bytes("model")
    assert plan.total == int(0.75 * whole) - 1000
    assert {r.nominal for r in plan.rooms.values()} == {(0.75 * whole - 1000) / blocks}
    none = equal_shares(VIEW, 0.95, "bytes", "model", BF16)
    assert none.total < 0
    assert {r.nbytes for r in none.rooms.values()} == {0}


@pytest.mark.parametrize("tenths", range(1, 10))
def test_nominal_shares_are_exact(tenths):
    """A tenth is a tenth: no share is lost to whole bytes of the total."""
    room = equal_shares(VIEW, 1 - tenths / 10, "nominal", "blocks", BF16).rooms["c"]
    assert room.nominal == pytest.approx(tenths / 10, abs=1e-15)
    assert NM.fits((7, 10), room, 10, "c") == tenths
    assert Sparse.keeps((7, 10), room, "c") == 7 * tenths
    assert LowRank.fits((1000, 1000), room, "c") == 50 * tenths


def test_bits_are_a_share_of_sixteen():
    for bits in range(2, 9):
        room = equal_shares(VIEW, 1 - bits / 16, "nominal", "blocks", BF16).rooms["c"]
        assert Quantised.fits((7, 10), room, "c")[0] == bits


@pytest.mark.parametrize("field", ["accounting", "scope"])
def test_unknown_words(field):
    words = {"accounting": "bytes", "scope": "blocks"} | {field: "weight"}
    with pytest.raises(ValueError, match=f"^{field}='weight' is unknown; valid: "):
        equal_shares(VIEW, 0.3, words["accounting"], words["scope"], BF16)


@pytest.mark.parametrize("value", [0, -1, 1.5, float("nan"), "8", None, True])
def test_whole_numbers(value):
    with pytest.raises(ValueError, match=r"^x=.* is out of range; valid: a whole number >= 1$"):
        whole("x", value)
    whole("x", 1)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "8", None, True])
def test_numbers(value):
    with pytest.raises(ValueError, match=r"^x=.* is out of range; valid: a number >= 0$"):
        number("x", value)
    number("x", 0)
    number("x", 0.5)


KNOBS = [(SVD, "align"), (SVDLLM, "align"), (GPTQ, "block"), (GPTQ, "damp")]
KNOBS += [(SparseGPT, "block"), (SparseGPT, "damp")]


@pytest.mark.parametrize(("kind", "knob"), KNOBS)
def test_methods_refuse_bad_numbers(kind, knob):
    for value in (-1, "many", float("inf")):
        with pytest.raises(ValueError, match=f"^method.{knob}="):
            kind(**{knob: value})
