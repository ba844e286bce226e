"""RTN, GPTQ and HQQ: grids, exact identities, and the orderings the papers claim."""

from itertools import pairwise

import pytest
import torch
from method_recipe import inputs, keep, layer, layer_of, with_gram

from crunchmark.budget import Room, Unreachable
from crunchmark.linalg import calibrated_error
from crunchmark.rounding import grids
from crunchmark.stats import Gram
from crunchmark.terms import unpack_bits
from methods.gptq import GPTQ
from methods.hqq import HQQ
from methods.rtn import RTN

GRIDS = [{"group": g, "sym": s} for g in (-1, 32, 128) for s in (False, True)]
each_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)


def codes(term):
    return unpack_bits(term.codes, term.bits, term.in_features)


def loss(method, of, bits):
    term = method.compress(of, keep(bits / 16))
    assert term.bits == bits
    return calibrated_error(of.weight, term.dense(), of[Gram].value)


@each_grid
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("act_order", [False, True])
def test_gptq_on_white_inputs_is_rtn(grid, bits, act_order):
    of = with_gram(layer(1), 3.0 * torch.eye(128))
    found = GPTQ(**grid, act_order=act_order).compress(of, keep(bits / 16))
    want = RTN(**grid).compress(of, keep(bits / 16))
    assert torch.equal(codes(found), codes(want))
    assert torch.equal(found.dense(), want.dense())


@pytest.mark.parametrize("act_order", [False, True])
@each_grid
def test_blocks_do_not_change_the_codes(grid, act_order):
    of = layer(2)
    found = [
        codes(GPTQ(**grid, act_order=act_order, block=b).compress(of, keep(4 / 16))) for b in (16, 50, 128)
    ]
    for other in found[1:]:
        assert int((other != found[0]).sum()) <= 1e-4 * other.numel()


@each_grid
def test_both_use_the_grid_of_the_original_weight(grid):
    of = layer(3)
    want = RTN(**grid).compress(of, keep(3 / 16))
    for act_order in (False, True):
        found = GPTQ(**grid, act_order=act_order).compress(of, keep(3 / 16))
        assert torch.equal(found.scale, want.scale)
        assert (found.zero is None) == (want.zero is None) == grid["sym"]
        assert want.zero is None or torch.equal(found.zero, want.zero)
        assert not torch.equal(codes(found), codes(want))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_rtn_is_within_half_a_step(bits):
    of = layer(4)
    for group in (-1, 32):
        scale, _ = grids(of.weight, bits, group, sym=False)
        step = scale.float().repeat_interleave(128 // scale.shape[1], dim=1)  # (out, in)
        off = (RTN(group=group).compress(of, keep(bits / 16)).dense() - of.weight).abs() / step
        ends = 2**bits * 2.0**-11  # what rounding the scale to float16 moves the last level by
        assert float(off.max()) <= 0.5 + ends + 0.5  # the zero code is rounded, so an end may be clipped
        assert float((off > 0.5 + 1e-3).float().mean()) < 0.05


def test_rtn_twice_changes_nothing():
    of = layer(5)
    once = RTN(group=-1).compress(of, keep(4 / 16))
    again = RTN(group=-1).compress(layer_of(once.dense(), inputs(5)), keep(4 / 16))
    found = codes(once)
    whole = (found.amin(1) == 0) & (found.amax(1) == 15)  # a row that misses an end gets a finer grid
    assert int(whole.sum()) > 48
    assert torch.equal(again.dense()[whole], once.dense()[whole])


@pytest.mark.slow
def test_orderings():
    for seed in range(8):
        of = layer(40 * seed)
        for bits in (2, 3, 4, 8):
            assert loss(GPTQ(group=-1), of, bits) <= loss(RTN(group=-1), of, bits)
            assert loss(GPTQ(group=-1, act_order=True), of, bits) <= loss(GPTQ(group=-1), of, bits)
            assert loss(RTN(group=-1), of, bits) <= loss(RTN(group=-1, sym=True), of, bits)
            assert loss(RTN(group=32), of, bits) <= loss(RTN(group=-1), of, bits)
        for bits in (3, 4, 8):
            grouped = loss(GPTQ(group=32), of, bits)
            assert grouped <= loss(RTN(group=32), of, bits)
            assert loss(GPTQ(group=32, act_order=True), of, bits) <= grouped
        for method in (RTN(group=-1), GPTQ(group=-1)):
            by_bits = [loss(method, of, b) for b in range(2, 9)]
            assert by_bits == sorted(by_bits, reverse=True)


@pytest.mark.parametrize("sym", [False, True])
@pytest.mark.parametrize("size", [1e-12, 1e-6])
def test_sizes_a_float16_scale_can_not_tell(size, sym):
    """Tiny weights become zero or coarse; nothing becomes nan or inf."""
    of = layer_of(layer(6).weight * size, inputs(6))
    for method in (RTN(sym=sym), GPTQ(sym=sym)):
        found = method.compress(of, keep(4 / 16)).dense()
        assert torch.isfinite(found).all()
        assert float(found.abs().max()) <= 2 * float(of.weight.abs().max()) + 2.0**-24 * 16


@pytest.mark.parametrize("method", [RTN(group=-1), GPTQ(group=-1), HQQ(group=-1)])
def test_a_step_that_float16_can_not_hold_is_refused(method):
    weight, room = layer(6).weight.clone(), keep(5.5 / 16)  # 5 bits: 31 steps
    weight[3, 5] = 9e5
    made = method.compress(layer_of(weight, inputs(6)), room).dense()
    assert float(made[3, 5]) == pytest.approx(9e5, rel=1e-2)
    weight[3, 5] = 3e6
    with pytest.raises(ValueError, match=r"codes 9\.677e\+04 apart; valid: float16 holds up to 65504"):
        method.compress(layer_of(weight, inputs(6)), room)


def test_zero_rows_and_groups_stay_zero():
    weight = layer(7).weight.clone()
    weight[3], weight[:, 32:64] = 0, 0
    of = layer_of(weight, inputs(7))
    found = RTN(group=32).compress(of, keep(3 / 16)).dense()
    assert float(found[3].abs().max()) == float(found[:, 32:64].abs().max()) == 0


def test_dead_channels_and_few_tokens():
    x = inputs(8, tokens=40)
    x[:, [4, 90]] = 0
    of = layer_of(layer(8).weight, x)
    for act_order in (False, True):
        found = GPTQ(act_order=act_order).compress(of, keep(4 / 16)).dense()
        assert torch.isfinite(found).all()
        assert float(found[:, [4, 90]].abs().max()) == 0
        assert loss(GPTQ(act_order=act_order), of, 4) < loss(RTN(), of, 4)


def test_columns_fall_in_the_order_of_the_diagonal():
    of = layer(9)
    order = of[Gram].inverse(0.01, descending=True).order
    diag = of[Gram].value.diagonal()[order]
    assert bool((diag[:-1] >= diag[1:]).all())
    assert of[Gram].inverse(0.01, descending=True) is of[Gram].inverse(0.01, descending=True)
    assert of[Gram].inverse(0.01).order.tolist() == list(range(128))


def group_errors(w, other, group, judge):
    """Sum of |error|^judge per group, in float64."""
    parts = (w - other).double().unflatten(1, (-1, w.shape[1] if group == -1 else group))
    return parts.abs().pow(judge).sum(-1)


@pytest.mark.parametrize("judge", [0.7, 1.0, 2.0])
@pytest.mark.parametrize("group", [-1, 32])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_hqq_is_nowhere_worse_than_rtn(bits, group, judge):
    """By the norm it is judged by, in every group; and in some it is better."""
    of = layer(10)
    plain = RTN(group=group).compress(of, keep(bits / 16)).dense()
    found = HQQ(group=group, judge=judge).compress(of, keep(bits / 16)).dense()
    before, after = (group_errors(of.weight, w, group, judge) for w in (plain, found))
    assert bool((after <= before * (1 + 1e-5)).all())
    assert float((after < before).double().mean()) > 0.15


def test_hqq_does_not_get_worse_with_iterations():
    of = layer(11)
    errors = [
        group_errors(of.weight, HQQ(group=32, iterations=n).compress(of, keep(3 / 16)).dense(), 32, 2.0)
        for n in (1, 5, 20)
    ]
    assert all(bool((b <= a * (1 + 1e-6)).all()) for a, b in pairwise(errors))
    assert float(errors[-1].sum()) < float(errors[0].sum())


def test_a_small_error_is_split_to_nothing():
    """Below beta^(-1 / (2 - p)) the norm does not matter; above it does."""
    of = layer(12)
    small = layer_of(of.weight / of.weight.abs().max() * 0.1, inputs(12))
    for each, same in ((small, True), (layer_of(of.weight * 3, inputs(12)), False)):
        a, b = (HQQ(group=32, p=p).compress(each, keep(3 / 16)).dense() for p in (0.5, 1.0))
        assert torch.equal(a, b) == same


def test_hqq_stores_its_zeros_and_counts_them():
    of = layer(13)
    for budget in (0.5, 0.7, 0.8):
        room = Room(int((1 - budget) * 2 * of.weight.numel()))
        term = HQQ().compress(of, room)
        assert term.zero.dtype == torch.float16
        assert term.nbytes() in HQQ().sizes(of.shape, room)
        assert term.nbytes() == of.shape[0] * (of.shape[1] * term.bits // 8 + 4 * term.scale.shape[1])
        assert term.nbytes() <= room.nbytes
    with pytest.raises(Unreachable):
        HQQ().compress(of, Room(100))


def test_hqq_on_rows_no_grid_can_tell():
    """Of zeros, of one value, far from zero in a narrow band, and large: nothing is nan or inf."""
    w = layer(14).weight.clone()
    w[0], w[1], w[2], w[3] = 0, 0.5, 1 + 1e-7 * w[2], w[3] * 1e4
    for group in (-1, 32):
        of = layer_of(w, inputs(14))
        found = HQQ(group=group).compress(of, keep(4 / 16)).dense()
        plain = RTN(group=group).compress(of, keep(4 / 16)).dense()
        assert torch.isfinite(found).all()
        assert float(found[0].abs().max()) == 0
        off, other = ((w - v).double().square().sum(1) for v in (found, plain))
        assert bool((off <= other * (1 + 1e-5)).all())


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"p": 0}, "method.p=0 is out of range"),
        ({"p": 1.5}, "method.p=1.5 is out of range"),
        ({"beta": 0}, "method.beta=0 is out of range; valid: a number above 0"),
        ({"kappa": 0.9}, "method.kappa=0.9 is out of range; valid: a number >= 1"),
        ({"iterations": 0}, "method.iterations=0 is out of range; valid: a whole number >= 1"),
        ({"judge": -1}, "method.judge=-1 is out of range; valid: a number above 0"),
        ({"group": 0}, "method.group=0 is out of range; valid: null, -1"),
    ],
    ids=str,
)
def test_bad_knobs_of_hqq(knobs, message):
    with pytest.raises(ValueError, match=message):
        HQQ(**knobs)
