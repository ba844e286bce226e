"""SpQR: what stays, how much of it fits, and the orderings the paper claims."""

import math
from contextlib import nullcontext

import pytest
import torch
from method_recipe import inputs, keep, layer, layer_of, normal, with_gram

from crunchmark.apart import Swept, Usual, filled, ordinary
from crunchmark.budget import Room, Unreachable
from crunchmark.linalg import calibrated_error
from crunchmark.rounding import snap, span, value_of
from crunchmark.stats import Gram
from crunchmark.terms import Nest, Outliers
from methods.gptq import GPTQ
from methods.rtn import RTN
from methods.spqr import SpQR


def loss(method, of, bits):
    term = method.compress(of, keep(bits / 16))
    return calibrated_error(of.weight, term.dense(), of[Gram].value)


def room_of(layer, bits, dtype=torch.float16):
    return Room(int(layer.weight.numel() * bits / 8), None, dtype)


@pytest.mark.parametrize("act_order", [False, True])
def test_spqr_on_white_inputs_rounds_each_group_to_its_own_grid(act_order):
    of = with_gram(layer(1), 3.0 * torch.eye(128))
    term = SpQR(threshold=None, act_order=act_order).compress(of, keep(3 / 16))
    grids = [Nest().grid(part, 3) for part in of.weight.split(16, dim=1)]
    parts = zip(of.weight.split(16, dim=1), grids, strict=True)
    want = torch.cat([value_of(snap(w, g.scale, g.zero, 3), g.scale, g.zero) for w, g in parts], 1)
    assert torch.equal(term.dense(), want)
    assert len(term.terms[1].values) == 0
    assert (term.notes["outliers"], term.notes["threshold"]) == (0, None)


def test_what_stays_is_the_weight_and_the_rest_is_on_the_grid():
    """Without correlations nothing is repaired: outliers come out as they were."""
    of = with_gram(layer(2), torch.diag(torch.linspace(1, 9, 128)))
    for dtype, off in ((torch.float32, 1e-6), (torch.float16, 2.0**-11)):
        term = SpQR().compress(of, keep(3 / 16, dtype))
        codes, outliers = term.terms
        far = outliers.dense() != 0
        assert int(far.sum()) == len(outliers.values) == round(term.notes["outliers"] * far.numel()) > 20
        gap = (term.dense() - of.weight).abs()[far] / (of.weight - codes.dense()).abs()[far]
        assert float(gap.max()) <= off * 1.01 + 1e-6
        assert torch.equal(term.dense()[~far], codes.dense()[~far])


def test_fewer_stay_as_the_threshold_rises():
    of = layer(3)
    counts = [SpQR(threshold=t).compress(of, keep(3 / 16)).notes["outliers"] for t in (0.05, 0.2, 0.8, 1e9)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[1] > counts[2] > counts[3] == 0
    assert SpQR().compress(of, keep(3 / 16)).notes["threshold"] == pytest.approx(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [3.3, 4.2, 5.4, 8.0])
@pytest.mark.parametrize("threshold", [0.02, 0.2, 5.0])
def test_outliers_fill_what_the_bits_leave_and_no_more(bits, threshold):
    of = layer(4)
    room = room_of(of, bits)
    term = SpQR(threshold=threshold).compress(of, room)
    codes, outliers = term.terms
    assert term.nbytes() <= room.nbytes
    most = (room.nbytes - codes.nbytes() - Outliers.size(of.shape, 0, 2)) // 4
    assert 0.85 * most <= len(outliers.values) <= most
    more = SpQR(threshold=None).compress(of, Room(room.nbytes + of.weight.numel() // 8 + 9, None, room.dtype))
    assert more.terms[0].bits == codes.bits + 1


def test_no_room_for_any_outlier_is_none():
    of = layer(5)
    bare = SpQR().least(of.shape, Room(0))
    term = SpQR().compress(of, Room(bare + 3))
    assert (term.nbytes(), len(term.terms[1].values)) == (bare, 0)
    with pytest.raises(Unreachable) as caught:
        SpQR().compress(of, Room(bare - 1))
    assert caught.value.needs == bare


def test_the_order_costs_two_bytes_an_input():
    of = layer(5)
    sizes = [SpQR(threshold=None, act_order=a).compress(of, keep(3 / 16)).nbytes() for a in (True, False)]
    assert sizes[0] - sizes[1] == 2 * 128


def test_leave_one_out_finds_the_weight_that_spoils_the_grid():
    """By the definition: the grid of the other 15, one by one."""
    w, d = normal(6, 12, 16), normal(7, 16).abs() + 0.5
    w[4, 9] = 20.0

    def off(part, scales):
        scale, zero = span(part, 3)
        return float(((part - value_of(snap(part, scale, zero, 3), scale, zero)) / scales).square().sum())

    others = [[j for j in range(16) if j != m] for m in range(16)]
    gain = [[off(row[None], d) - off(row[o][None], d[o]) for o in others] for row in w]
    for bound in (0.5, 2.0):
        likely = torch.tensor(gain) > bound
        assert bool(likely[4, 9])
        means = [
            row[~mark].mean() if bool((~mark).any()) else 0.0 for row, mark in zip(w, likely, strict=True)
        ]
        want = torch.stack([torch.where(m, mean, row) for m, mean, row in zip(likely, means, w, strict=True)])
        torch.testing.assert_close(ordinary(w, d, 3, bound), want)
    assert torch.equal(ordinary(w, d, 3, math.inf), w)
    assert torch.equal(ordinary(w[:, :1], d[:1], 3, 0.1), w[:, :1])


@pytest.mark.parametrize("bound", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("steep", [0.0, 0.1])
def test_the_search_ends_with_the_most_that_fit(bound, steep):
    """Whatever is expected, and also where what is lost depends on the bound."""
    seen = []

    def run(at):
        made = Swept.empty(at, torch.ones(128), 96)
        made.lost += normal(8, 128, 96).abs() ** 2.5 * at**-steep
        made.rest += torch.hardshrink(made.lost, math.sqrt(at))
        seen.append(at)
        return made

    found = filled(run, Usual(bound, 0.02, 0.4), 200, 96 * 128)
    assert 192 <= found.count <= 200
    assert len(seen) <= 6
    assert filled(run, Usual(bound, 0.02, 0.4), 0, 96 * 128).bound == math.inf
    assert filled(run, Usual(0.0, 0.02, 0.4), 200, 96 * 128).bound == math.inf


@pytest.mark.slow
def test_spqr_orderings():
    for seed in (0, 40, 80):
        of = layer(seed)
        assert loss(SpQR(), of, 3) < loss(GPTQ(group=128, act_order=True), of, 3)
        assert loss(SpQR(), of, 4) < loss(SpQR(), of, 3)
        assert loss(SpQR(), of, 3) < loss(SpQR(threshold=None), of, 3)


@pytest.mark.slow
def test_spqr_with_dead_channels_few_tokens_and_odd_shapes():
    x = inputs(9, wide=77, tokens=40)
    x[:, [4, 70]] = 0
    weight = normal(10, 19, 77)
    weight[3] = 0
    for of in (layer_of(weight, x), layer_of(weight[:1], x), layer_of(torch.zeros(5, 77), x)):
        for act_order in (False, True):
            for room in (keep(3 / 16), Room(2 * of.weight.numel() * 5 // 8)):
                if room.nominal is None and room.nbytes < SpQR().least(of.shape, room):
                    continue
                found = SpQR(act_order=act_order, group=500).compress(of, room).dense()
                assert torch.isfinite(found).all()
                found = SpQR(act_order=act_order).compress(of, room).dense()
                assert torch.isfinite(found).all()
                assert (
                    float(found[of.weight.eq(0).all(1)].abs().sum())
                    < 1e-2 * float(of.weight.abs().sum()) + 1e-9
                )
    assert loss(SpQR(), layer_of(weight, x), 4) < loss(RTN(), layer_of(weight, x), 4)


@pytest.mark.parametrize("size", [1e-12, 1e-6, 1e6])
def test_sizes_a_float16_grid_can_not_tell(size):
    """Small ones become zero or coarse, too large ones are refused."""
    of = layer_of(layer(6).weight * size, inputs(6))
    with nullcontext() if size < 1 else pytest.raises(ValueError, match="apart; valid: float16 holds up to"):
        assert torch.isfinite(SpQR().compress(of, keep(4 / 16)).dense()).all()


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"threshold": 0}, "method.threshold=0 is out of range; valid: a number above 0"),
        ({"group": 0}, "method.group=0 is out of range; valid: a whole number >= 1"),
        ({"rows": -1}, "method.rows=-1 is out of range"),
        ({"scale_bits": 9}, "method.scale_bits=9 is unknown; valid: 1, 2"),
        ({"act_order": 1}, "method.act_order=1 is no switch"),
        ({"damp": -1}, "method.damp=-1 is out of range"),
    ],
)
def test_spqr_knobs(knobs, said):
    with pytest.raises(ValueError, match=said):
        SpQR(**knobs)
