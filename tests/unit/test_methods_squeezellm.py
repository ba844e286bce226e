"""SqueezeLLM: what stays, where levels lie, and the orderings the paper claims."""

import math

import pytest
import torch
from method_recipe import keep, layer, normal

from crunchmark.budget import Room, Unreachable
from crunchmark.fisher import Fisher
from crunchmark.interface import Layer
from crunchmark.stats import Gram
from crunchmark.terms import Table, unpack_bits
from methods.rtn import RTN
from methods.squeezellm import SqueezeLLM

DENSE_ONLY = {"sensitive": 0.0, "outliers": 0.0}


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
