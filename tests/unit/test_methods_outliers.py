"""SpQR and SqueezeLLM: what stays, how much of it fits, and the orderings the papers claim."""

import math

import pytest
import torch
from method_recipe import inputs, keep, layer, layer_of, normal, with_gram

from crunchmark.apart import filled, ordinary
from crunchmark.budget import Room, Unreachable
from crunchmark.fisher import Fisher
from crunchmark.interface import Layer
from crunchmark.linalg import calibrated_error
from crunchmark.rounding import snap, span, value_of
from crunchmark.stats import Gram
from crunchmark.terms import Nest, Outliers, Table, unpack_bits
from methods.gptq import GPTQ
from methods.rtn import RTN
from methods.spqr import SpQR
from methods.squeezellm import SqueezeLLM

DENSE_ONLY = {"sensitive": 0.0, "outliers": 0.0}


def loss(method, of, bits):
    term = method.compress(of, keep(bits / 16))
    return calibrated_error(of.weight, term.dense(), of[Gram].value)


def room_of(layer, bits, dtype=torch.float16):
    return Room(int(layer.weight.numel() * bits / 8), None, dtype)


# ---- SpQR


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


def test_the_search_ends_with_the_most_that_fit():
    of = layer(8)
    seen = []

    def run(bound):
        from crunchmark.apart import Swept

        made = Swept.empty(bound, (96, 128))
        made.loss += of.weight.T.square()
        seen.append(bound)
        return made

    for start in (1e-6, 1.0, 1e6):
        seen.clear()
        found = filled(run, start, 200)
        assert 190 <= found.count <= 200
        assert len(seen) <= 2
    assert filled(run, 1.0, 0).count == 0


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
    of = layer_of(layer(6).weight * size, inputs(6))
    found = SpQR().compress(of, keep(4 / 16)).dense()
    assert torch.isfinite(found).all()


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


# ---- SqueezeLLM


def with_fisher(like, fisher):
    return Layer("x.up", like.weight, {**like.stats, Fisher: Fisher(fisher)})


def sensitive(seed):
    """A layer, and squared gradients that are large for loud inputs."""
    of = layer(seed)
    fisher = (1.5 * normal(seed + 9, 96, 128)).exp() * of[Gram].value.diagonal().float() / 1e3
    return with_fisher(of, fisher.bfloat16())


def weighed(of, term):
    return float(((term.dense() - of.weight).double().square() * of[Fisher].value).sum())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_k_means_is_no_worse_than_rounding_in_any_row(bits):
    for seed in (0, 40, 80):
        of, room = sensitive(seed), keep(bits / 16)
        for method in (SqueezeLLM(**DENSE_ONLY), SqueezeLLM(**DENSE_ONLY, iterations=1)):
            found = [m.compress(of, room).dense() for m in (method, RTN(group=-1))]
            rows = [((f - of.weight).double().square() * of[Fisher].value).sum(1) for f in found]
            assert bool((rows[0] <= rows[1] * (1 + 1e-6)).all())


@pytest.mark.parametrize("bits", [3, 4])
def test_squeezellm_orderings(bits):
    for seed in (0, 40, 80):
        of, room = sensitive(seed), keep(bits / 16)
        plain = SqueezeLLM(**DENSE_ONLY).compress(with_fisher(of, torch.ones(96, 128)), room)
        only, both = (m.compress(of, room) for m in (SqueezeLLM(**DENSE_ONLY), SqueezeLLM()))
        errors = [weighed(of, t) for t in (both, only, plain, RTN(group=-1).compress(of, room))]
        assert errors == sorted(errors)
        assert errors[1] < 0.8 * errors[2] < 0.8 * errors[3]


def test_exactly_as_many_stay_and_they_are_those():
    of = sensitive(1)
    flat = with_fisher(of, torch.ones(96, 128))  # every squared gradient ties
    for one in (of, flat):
        term = SqueezeLLM(sensitive=0.001, outliers=0.01).compress(one, keep(3 / 16))
        table, outliers = term.terms
        assert len(outliers.values) == int(0.001 * 96 * 128) + int(0.01 * 96 * 128)
        stays = torch.zeros(96, 128, dtype=torch.bool)
        rows = torch.arange(96).repeat_interleave(outliers.starts.diff())
        stays[rows, outliers.columns.long()] = True
        torch.testing.assert_close(term.dense()[stays], one.weight[stays])
        assert torch.equal(term.dense()[~stays], table.dense()[~stays])
        least = table.table.abs().amin(1, keepdim=True).expand(96, 128)
        assert torch.equal(table.dense()[stays].abs(), least[stays])  # the value nearest to zero
    stays = of[Fisher].value.flatten().topk(int(0.001 * 96 * 128)).indices
    found = SqueezeLLM(sensitive=0.001, outliers=0.0).compress(of, keep(3 / 16)).terms[1]
    rows = torch.arange(96).repeat_interleave(found.starts.diff())
    assert set((rows * 128 + found.columns).tolist()) == set(stays.tolist())


def test_sizes_are_what_is_made():
    of = sensitive(2)
    for method in (SqueezeLLM(), SqueezeLLM(**DENSE_ONLY)):
        sizes = method.sizes(of.shape, Room(0))
        for size in sizes:
            assert method.compress(of, Room(size)).nbytes() == size
        with pytest.raises(Unreachable) as caught:
            method.compress(of, Room(sizes[0] - 1))
        assert caught.value.needs == sizes[0]


def test_squared_gradients_that_say_nothing():
    """A row of zeros counts all weights alike; nan and inf are refused; a scale says nothing."""
    of = sensitive(3)
    fisher = of[Fisher].value.clone()
    fisher[5] = 0
    plain = SqueezeLLM(**DENSE_ONLY)
    alike = plain.compress(with_fisher(of, torch.ones(96, 128)), keep(3 / 16))
    got = plain.compress(with_fisher(of, fisher), keep(3 / 16))
    assert torch.equal(got.dense()[5], alike.dense()[5])
    want = plain.compress(of, keep(3 / 16)).dense()
    for scale in (2.0**-60, 2.0**60):
        torch.testing.assert_close(
            plain.compress(with_fisher(of, of[Fisher].value * scale), keep(3 / 16)).dense(), want
        )
    for bad in (math.nan, math.inf, -1.0):
        fisher[2, 2] = bad
        with pytest.raises(ValueError, match=r"x\.up: squared gradients hold nan, inf or less than 0"):
            SqueezeLLM().compress(with_fisher(of, fisher), keep(3 / 16))


def test_rows_with_fewer_values_than_levels_are_exact():
    weight = torch.tensor([[0.5, -0.25] * 4, [0.0] * 8, [1.0] * 8])
    of = Layer("x", weight, {Fisher: Fisher(torch.rand(3, 8, generator=torch.Generator().manual_seed(0)))})
    term = SqueezeLLM(**DENSE_ONLY).compress(of, keep(4 / 16))
    torch.testing.assert_close(term.dense(), weight)
    assert isinstance(term, Table)
    assert int(unpack_bits(term.codes, 4, 8).max()) < 16
    nothing = SqueezeLLM(sensitive=0.5, outliers=0.4).compress(of, keep(2 / 16))
    torch.testing.assert_close(nothing.dense(), weight)


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"sensitive": -0.1}, "method.sensitive=-0.1 is out of range"),
        ({"outliers": 1.0}, "method.outliers=1.0 is out of range"),
        ({"iterations": 0}, "method.iterations=0 is out of range"),
        ({"sensitive": 0.5, "outliers": 0.5}, "leave no weight; valid: shares with a sum below 1"),
    ],
)
def test_squeezellm_knobs(knobs, said):
    with pytest.raises(ValueError, match=said):
        SqueezeLLM(**knobs)
