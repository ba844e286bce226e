"""Pruned and rounded: SparseGPT's joint sweep, and a pruner then a rounder that keeps its zeros."""

import re
from itertools import product

import pytest
import torch
from hydra.utils import get_class
from method_recipe import error, inputs, keep, layer, layer_of, with_gram
from omegaconf import OmegaConf

import crunchmark
from crunchmark import Pruner, Rounder, artifact
from crunchmark.allocation import equal_shares
from crunchmark.budget import Room
from crunchmark.cache import source_of
from crunchmark.calib import Calibration
from crunchmark.compress import compress
from crunchmark.machine import ROOT
from crunchmark.rounding import grids, round_to, value_of
from crunchmark.shared import Shared
from crunchmark.stats import Gram, InputNorm
from crunchmark.terms import SparseQuantised, unpack
from crunchmark.view import View
from launch import check_targets, made
from methods import pipeline
from methods.gptq import GPTQ
from methods.magnitude import Magnitude
from methods.pipeline import Pipeline
from methods.rtn import RTN
from methods.sparsegpt import SparseGPT
from methods.wanda import Wanda

HALF = keep(0.5 * 4 / 16)  # half the weights in 4 bits
ROUNDERS = [RTN(), RTN(group=32, sym=True), GPTQ(), GPTQ(group=-1, act_order=True)]
runs = pytest.mark.parametrize("run", [0, 4, 8])


def rounded(weight, bits, group=-1):
    scale, zero = grids(weight, bits, group, False)
    parts = weight.unflatten(1, (scale.shape[1], -1))
    return value_of(round_to(parts, scale, zero, bits), scale, zero).flatten(1)


@runs
def test_joint_keeps_exactly_half_in_four_bits(run):
    of = layer(1)
    term = SparseGPT(run=run, bits=4).compress(of, HALF)
    assert (term.bits, term.count, term.nominal()) == (4, 96 * 64, 0.125)
    assert bool((term.dense()[~term.mask()] == 0).all())
    if run:
        assert bool((term.mask().view(96, -1, run).sum(-1) == run // 2).all())
        assert bool(((term.dense() != 0).view(96, -1, run).sum(-1) <= run // 2).all())
    scale, zero = grids(of.weight, 4, -1, False)  # of the weight before anything was pruned
    steps = term.dense() / scale.float() + zero.float()
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
    assert torch.equal(term.scale, scale)


@pytest.mark.parametrize("group", [-1, 32])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_joint_with_nothing_pruned_is_gptq(bits, group):
    of = layer(2)
    found = SparseGPT(bits=bits, group=group).compress(of, keep(bits / 16))
    want = GPTQ(group=group).compress(of, keep(bits / 16))
    assert found.count == 96 * 128
    assert torch.equal(found.dense(), want.dense())


@pytest.mark.parametrize("block", [16, 128])
def test_joint_on_white_inputs_is_magnitude_per_block_and_rounding(block):
    of = with_gram(layer(3), 5.0 * torch.eye(128))
    term = SparseGPT(bits=4, block=block).compress(of, HALF)
    assert torch.equal(term.dense(), rounded(of.weight, 4).where(term.mask(), 0.0))
    plain = SparseGPT(block=block).compress(of, keep(0.5))
    assert torch.equal(plain.dense() != 0, term.mask())
    for w, marks in zip(of.weight.split(block, 1), term.mask().split(block, 1), strict=True):
        assert float(w[marks].abs().min()) >= float(w[~marks].abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("run", [4, 0])
def test_joint_is_no_worse_than_one_after_the_other(run):
    for seed in range(10):
        of = layer(30 * seed)
        joint = SparseGPT(run=run, bits=4).compress(of, HALF)
        then = Pipeline(SparseGPT(run=run), RTN(group=-1)).compress(of, HALF)
        assert joint.count == then.count
        assert error(of, joint.dense()) <= error(of, then.dense())


@pytest.mark.parametrize("first", [Magnitude, Wanda, SparseGPT])
@pytest.mark.parametrize("then", ROUNDERS, ids=str)
@runs
def test_zeros_stay_and_are_counted(first, then, run):
    of = layer(4)
    for method, room in product(
        [Pipeline(first(run=run), then), Pipeline(first(run=run), then, sparsity=0.5, bits=None)],
        [HALF, Room(96 * 128 * 3 // 8 + 1500)],
    ):
        term = method.compress(of, room)
        assert isinstance(term, SparseQuantised)
        pruned = first(run=run).compress(of, keep(term.count / of.weight.numel())).dense()
        assert torch.equal(pruned != 0, term.mask())
        assert bool((term.dense()[~term.mask()] == 0).all())
        assert term.notes["sparsity"] == 1 - term.count / of.weight.numel()
        assert room.nominal is not None or term.nbytes() <= room.nbytes
        if room is HALF:
            assert (term.count, term.bits) == (96 * 64, 4)
        if run:
            assert bool((term.mask().view(96, -1, run).sum(-1) == term.count * run // (96 * 128)).all())


def test_rounding_keeps_what_the_pruner_left():
    """Round to nearest sees the pruned weight; GPTQ repairs, and is better for it."""
    of = layer(5)
    pruned = Wanda().compress(of, keep(0.5)).dense()
    nearest = Pipeline(Wanda(), RTN(group=-1)).compress(of, HALF).dense()
    assert torch.equal(nearest, rounded(pruned, 4).where(pruned != 0, 0.0))
    swept = Pipeline(Wanda(), GPTQ(group=-1)).compress(of, HALF).dense()
    assert error(of, swept) < error(of, nearest)


def test_gptq_with_fixed_zeros_and_white_inputs_is_rtn():
    of = with_gram(layer(6), 2.0 * torch.eye(128))
    for act_order in (False, True):
        found = Pipeline(Wanda(), GPTQ(act_order=act_order)).compress(of, HALF).dense()
        assert torch.equal(found, Pipeline(Wanda(), RTN()).compress(of, HALF).dense())


def test_rooms_choose_bits_or_sparsity():
    of = layer(7)
    bits = [Pipeline(Wanda(), RTN(), 0.5, None).compress(of, Room(n)) for n in (3400, 4900, 9000)]
    assert [(t.bits, t.count) for t in bits] == [(2, 6144), (4, 6144), (8, 6144)]
    shares = [Pipeline(Wanda(), RTN(group=-1)).compress(of, Room(n)) for n in (3400, 4900, 9000)]
    assert [t.bits for t in shares] == [4, 4, 4]
    assert shares[0].count < shares[1].count < shares[2].count == 96 * 128
    assert all(t.count % 96 == 0 for t in shares)  # equally many in every row


def test_needs_are_those_of_both():
    assert Pipeline(Wanda(), GPTQ()).needs == (InputNorm, Gram)
    assert Pipeline(SparseGPT(), GPTQ()).needs == (Gram,)
    assert Pipeline(Magnitude(), RTN()).needs == ()
    assert Pipeline(Wanda(), GPTQ()).random is False


def test_what_is_inside_is_part_of_the_identity():
    one, other = Pipeline(Wanda(), GPTQ()), Pipeline(Wanda(), GPTQ(damp=0.1))
    assert one != other
    assert "GPTQ(group=None, sym=False, bits=None, act_order=False, damp=0.1" in repr(other)
    sources = {source_of(Pipeline(f, t)) for f, t in product([Wanda(), Magnitude()], [RTN(), GPTQ()])}
    assert len(sources) == 4


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        (
            {"first": RTN()},
            "method.first=RTN(group=None, sym=False, bits=None) prunes no single weights; valid: ",
        ),
        ({"first": None}, "method.first=None prunes no single weights; valid: magnitude, wanda, sparsegpt"),
        ({"then": Wanda()}, "method.then=Wanda(run=0) does not preserve the zeros"),
        ({"then": None}, "method.first=Magnitude(run=0) makes; valid: rtn, gptq"),
        ({"first": SparseGPT(bits=4)}, "does not preserve the grid that method.first=SparseGPT("),
        ({"bits": None}, "method.sparsity=None and method.bits=None do not go together; valid: exactly one"),
        ({"sparsity": 0.5}, "method.sparsity=0.5 and method.bits=4 do not go together"),
        ({"bits": 9}, "method.bits=9 is unknown; valid: null, 2,"),
        ({"bits": None, "sparsity": 1.5}, "method.sparsity=1.5 is out of range; valid: 0 < share < 1"),
        (
            {"first": Magnitude(run=4), "bits": None, "sparsity": 0.3},
            "method.sparsity=0.3 is no n of 4 inputs; valid: 0.25, 0.5, 0.75",
        ),
    ],
    ids=str,
)
def test_pairs_and_knobs_that_do_not_go_are_one_line(knobs, told):
    with pytest.raises(ValueError, match=re.escape(told)) as caught:
        Pipeline(**{"first": Magnitude(), "then": RTN(), **knobs})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"bits": 1}, "method.bits=1 is unknown; valid: null, 2,"),
        ({"group": None}, "method.group=null is out of range"),
        ({"group": 0}, "method.group=0 is out of range"),
        ({"run": -1}, "method.run=-1 is out of range"),
    ],
    ids=str,
)
def test_knobs_of_the_joint_sweep(knobs, told):
    with pytest.raises(ValueError, match=told):
        SparseGPT(**knobs)


def test_groups_must_fill_every_row():
    shapes = {"a": (8, 128), "b": (8, 96)}
    for method in (SparseGPT(bits=4, group=64), Pipeline(Magnitude(), RTN(group=64))):
        with pytest.raises(ValueError, match=r"group=64 does not divide in_features=96 of b; valid: 8"):
            method.suits(shapes)
    with pytest.raises(ValueError, match=r"method.run=64 does not divide in_features=96 of b"):
        Pipeline(Magnitude(run=64), RTN()).suits(shapes)


def test_the_names_in_messages_are_all_there_are():
    notes = {path.stem: OmegaConf.load(path).method for path in (ROOT / "conf/method").glob("*.yaml")}
    kinds = {name: get_class(note["_target_"]) for name, note in notes.items()}
    for field, kind in (("first", Pruner), ("then", Rounder)):
        names = {name for name, found in kinds.items() if issubclass(found, kind)}
        assert names == set(pipeline.VALID[field].split(", "))


def test_bits_are_the_pipelines():
    with pytest.raises(ValueError, match=r"method.then.bits=3: of a pipeline they are method.bits"):
        Pipeline(Wanda(), RTN(bits=3))


def test_targets_inside_are_checked_and_made():
    inner = {"_target_": "methods.wanda.Wanda", "run": 4}
    config = {
        "_target_": "methods.pipeline.Pipeline",
        "first": inner,
        "then": {"_target_": "methods.rtn.RTN"},
    }
    assert made(config, "method", Pipeline) == Pipeline(Wanda(run=4), RTN())
    with pytest.raises(ValueError, match=r"_target_='os.system' is refused"):
        check_targets({"method": config | {"first": {"_target_": "os.system"}}})
    with pytest.raises(ValueError, match=r"method.first.runn is no field; nearest: run"):
        made(config | {"first": inner | {"runn": 4}}, "method", Pipeline)


@pytest.mark.parametrize(
    "method", [SparseGPT(bits=4), Pipeline(Wanda(), GPTQ()), Pipeline(SparseGPT(), RTN())], ids=str
)
def test_dead_channels_and_few_tokens(method):
    x = inputs(8, tokens=40)
    x[:, [4, 90]] = 0
    of = layer_of(layer(8).weight, x)
    found = method.compress(of, HALF)
    assert torch.isfinite(found.dense()).all()
    assert float(found.dense()[:, [4, 90]].abs().max()) == 0
    assert error(of, found.dense()) < error(of, 0 * of.weight)
    tensors, meta = found.pack()
    assert torch.equal(unpack(tensors, meta).dense(), found.dense())


def test_zero_rows_stay_zero():
    weight = layer(9).weight.clone()
    weight[3], weight[:, 32:64] = 0, 0
    of = layer_of(weight, inputs(9))
    for method in (SparseGPT(bits=3, group=32), Pipeline(Wanda(), GPTQ(group=32), bits=3)):
        found = method.compress(of, keep(0.5 * 3 / 16)).dense()
        assert float(found[3].abs().max()) == float(found[:, 32:64].abs().max()) == 0
        assert torch.isfinite(found).all()


@pytest.mark.parametrize(
    "method", [SparseGPT(bits=4), SparseGPT(run=4, bits=4), Pipeline(Wanda(run=4), GPTQ(group=-1))], ids=str
)
def test_zeros_are_there_in_the_artifact(tiny, tmp_path, method):
    model = tiny("llama_gqa")
    view, calib = View(model), Calibration(torch.arange(48).view(4, 12), batch=2)
    plan = equal_shares(view, 0.8, "bytes", "blocks", torch.bfloat16)
    terms = compress(method, view, plan, calib, "llama_gqa", Shared())
    artifact.write(tmp_path, view, terms, torch.bfloat16, {"plan": plan.to_json()})
    loaded = View(crunchmark.load(tmp_path, packed=False))
    weights = {site.name: site.weight() for i in range(len(loaded.blocks)) for site in loaded.sites(i)}
    assert weights.keys() == terms.keys()
    for name, term in terms.items():
        assert 0 < term.count < weights[name].numel()
        assert bool((weights[name][~term.mask()] == 0).all())
        if term.layout.form == "nm":
            runs = (weights[name] != 0).view(len(weights[name]), -1, 4).sum(-1)
            assert int(runs.max()) <= term.count * 4 // weights[name].numel() < 4
