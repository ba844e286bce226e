"""What every repair promises on top of pruned, rounded and low-rank terms, on every family."""

from functools import cache

import pytest
import torch
from contract_cases import (
    FAMILIES,
    ROOT,
    SHARED,
    STORED,
    Case,
    Outcome,
    dense_model,
    forget,
    layers,
    logits,
)
from hydra.utils import instantiate
from omegaconf import OmegaConf

import crunchmark
from crunchmark import artifact
from crunchmark.allocation import Uniform, equal_shares
from crunchmark.budget import Room, Unreachable, dense_bytes
from crunchmark.compress import allocate, compress
from crunchmark.interface import Skip
from crunchmark.linalg import calibrated_error
from crunchmark.maker import Nothing
from crunchmark.stats import Gram
from crunchmark.terms import LowRank
from crunchmark.view import View

pytestmark = pytest.mark.slow

REPAIRS = {p.stem: OmegaConf.load(p) for p in sorted((ROOT / "conf/compensate").glob("*.yaml"))}
BASES = ("wanda", "rtn", "gptq", "svd_llm", "afm")
CASES = [(Case(method, family), "eora") for method in BASES for family in FAMILIES]
CASES += [(Case("wanda", family), repair) for repair in ("lrec", "svd") for family in FAMILIES]
MORE = [Case(method, "llama_gqa") for method in ("spqr", "squeezellm", "lq_lora", "int2_1", "hqq")]
MORE += [Case("wanda", "llama_gqa", (("run", 4),)), Case("sparsegpt", "llama_gqa", (("bits", 4),))]
FIRST, CASES = CASES, [*CASES, *((case, "eora") for case in MORE)]
each = pytest.mark.parametrize(("case", "repair"), CASES, ids=str)
first = pytest.mark.parametrize(("case", "repair"), FIRST, ids=str)  # where a cell is made more than once


def test_the_grid_is_whole():
    assert set(REPAIRS) == {"none", "eora", "lrec", "svd"}
    assert instantiate(REPAIRS["none"]) == Nothing()
    assert len(set(FIRST)) == len(FIRST) == (5 + 2) * 12
    assert len(set(CASES)) == len(CASES) == len(FIRST) + 7


def run(case, repair, budget):
    model, method, repairer = dense_model(case), case.make(), instantiate(REPAIRS[repair])
    view = View(model)
    shapes = view.layers()
    plan = equal_shares(view, budget, "bytes", "blocks", STORED)
    given = (case.calibration(), f"{case.family} {len(view.blocks)}", SHARED, repairer)
    plan = allocate(Uniform(), method, view, plan, *given)
    return Outcome(model, view, plan, compress(method, view, plan, *given), shapes, [])


once = cache(run)


@each
def test_packs_within_the_room_and_is_what_was_counted(case, repair):
    got = once(case, repair, 0.4)
    assert artifact.sizes(got.folder)["scope_bytes"] <= got.plan.total
    assert set(got.terms) == set(got.shapes)
    for name, term in got.terms.items():
        assert term.nbytes() <= got.plan.rooms[name].nbytes
        assert isinstance(term.terms[-1], LowRank)
        assert term.notes["rank"] == term.terms[-1].rank >= 1
        assert (term.notes["solver"], term.notes["missed"]) == ("full", 0.0)


@each
def test_load_gives_the_same_logits(case, repair):
    got = once(case, repair, 0.4)
    want = got.logits()
    assert torch.equal(logits(crunchmark.load(got.folder, packed=False)), want)
    packed = logits(crunchmark.load(got.folder, packed=True))
    torch.testing.assert_close(packed, want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))


@first
def test_the_same_cell_gives_the_same_bytes(case, repair):
    digest = once(case, repair, 0.4).digest
    forget()
    assert run(case, repair, 0.4).digest == digest


@pytest.mark.parametrize(("case", "repair"), [c for c in CASES if c[0].method != "afm"], ids=str)
def test_less_error_than_what_it_stands_on(case, repair):
    repairer = instantiate(REPAIRS[repair])
    for layer in layers(case.family):
        room = Room(int(0.6 * dense_bytes(layer.shape)), None, STORED)
        bare = case.make().compress(layer, room.less(repairer.reserve(layer.shape, room)))
        both = repairer.repair(layer, bare, room)
        errors = [calibrated_error(layer.weight, t.dense(), layer[Gram].value) for t in (bare, both)]
        far = float((layer.weight - both.dense()).norm() / (layer.weight - bare.dense()).norm())
        assert errors[1] < errors[0] if repair != "svd" else far < 1


@first
def test_out_of_reach_names_the_nearest(case, repair):
    with pytest.raises(Unreachable) as caught:
        run(case, repair, 0.99)
    nearest = caught.value.nearest
    assert 0 < nearest < 0.99
    got = run(case, repair, nearest)
    assert artifact.sizes(got.folder)["scope_bytes"] <= got.plan.total
    with pytest.raises(Unreachable):
        run(case, repair, nearest + 0.02)


def test_a_method_of_the_whole_model_leaves_nothing_to_repair():
    with pytest.raises(Skip, match="leaves no terms to repair; valid: compensate=none"):
        run(Case("slicegpt", "llama_gqa"), "eora", 0.3)
