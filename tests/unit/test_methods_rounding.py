"""RTN and GPTQ: grids, exact identities, and the orderings the papers claim."""

import pytest
import torch
from method_recipe import inputs, keep, layer, layer_of, with_gram

from crunchmark.linalg import calibrated_error
from crunchmark.rounding import grids
from crunchmark.stats import Gram
from crunchmark.terms import unpack_bits
from methods.gptq import GPTQ
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
@pytest.mark.parametrize("size", [1e-12, 1e-6, 1e6])
def test_sizes_a_float16_scale_can_not_tell(size, sym):
    """Tiny weights become zero or coarse, huge ones are clipped; nothing becomes nan or inf."""
    of = layer_of(layer(6).weight * size, inputs(6))
    for method in (RTN(sym=sym), GPTQ(sym=sym)):
        found = method.compress(of, keep(4 / 16)).dense()
        assert torch.isfinite(found).all()
        assert float(found.abs().max()) <= 2 * float(of.weight.abs().max()) + 2.0**-24 * 16


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
