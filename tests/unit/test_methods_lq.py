"""LQ-LoRA and INT2.1: iterates, weights, bytes, and what they are without their low-rank part."""

import pytest
import torch
from method_recipe import error, keep, layer, layer_of, normal

from crunchmark.budget import Room, Unreachable, dense_bytes
from crunchmark.fisher import Fisher
from crunchmark.interface import Layer
from crunchmark.linalg import calibrated_error
from crunchmark.normal import NormalGrid, to_normal
from crunchmark.stats import Gram
from crunchmark.terms import LowRank, NormalFloat, Quantised, Sum, unpack_bits
from crunchmark.weighed import Weighed
from methods.gptq import GPTQ
from methods.int2_1 import INT21
from methods.lq_lora import LQLoRA

SHARES = (0.2, 0.25, 0.3, 0.5)


def with_fisher(of, fisher):
    return Layer(of.name, of.weight, {**of.stats, Fisher: Fisher(fisher)})


def prices(seed, out=96, wide=128):
    """Of very unequal rows and columns, and of entries that are no product of these."""
    spread = normal(seed, out, 1) + normal(seed + 1, 1, wide) + 0.5 * normal(seed + 2, out, wide)
    return spread.exp().bfloat16()


def room(share, of, dtype=torch.bfloat16):
    return Room(int(share * dense_bytes(of.shape)), None, dtype)


def lost(of, term, fisher=None):
    d = (of.weight - term.dense()).square()
    return float((d if fisher is None else d * fisher.float()).sum(dtype=torch.float64))


def plain(of, term):
    """NormalFloat alone on the grid of that term."""
    return NormalFloat.of(of.shape, to_normal(of.weight, term.terms[0].grid))


@pytest.mark.slow
@pytest.mark.parametrize("fisher", [False, True])
@pytest.mark.parametrize("share", SHARES)
def test_the_best_of_all_iterates_is_returned(share, fisher):
    """The same sequence, cut after each iteration, never gives less error than the whole."""
    of = with_fisher(layer(1), prices(5))
    weights = prices(5) if fisher else None
    whole = LQLoRA(fisher=fisher).compress(of, room(share, of))
    steps = whole.notes["iterations"]
    errors = [
        lost(of, LQLoRA(fisher=fisher, iterations=n).compress(of, room(share, of)), weights)
        for n in range(1, steps + 1)
    ]
    assert steps > 1
    assert errors == sorted(errors, reverse=True)
    assert lost(of, whole, weights) == errors[-1] < errors[0]
    assert lost(of, whole, weights) <= lost(of, plain(of, whole), weights)


def test_where_low_rank_does_not_help_there_is_none():
    """A weight that the grid has exactly."""
    grid = NormalGrid(8, 8, 16, 256)
    of = layer_of(to_normal(layer(2).weight, grid).value().view(96, 128), normal(1, 50, 128))
    term = LQLoRA(rank=1).compress(of, room(0.9, of))
    assert isinstance(term, NormalFloat)
    assert term.notes["rank"] == 0


@pytest.mark.parametrize("share", SHARES)
def test_equal_prices_are_no_prices(share):
    of = layer(3)
    for price in (1.0, 3e-9, 7e5):
        weighed = with_fisher(of, torch.full(of.shape, price).bfloat16())
        found = LQLoRA(fisher=True).compress(weighed, room(share, of))
        assert torch.equal(found.dense(), LQLoRA().compress(of, room(share, of)).dense())


@pytest.mark.parametrize("share", SHARES)
def test_prices_lower_what_they_weigh(share):
    of, weights = layer(4), prices(9)
    weighed = LQLoRA(fisher=True).compress(with_fisher(of, weights), room(share, of))
    even = LQLoRA().compress(of, room(share, of))
    assert lost(of, weighed, weights) < lost(of, even, weights)
    assert lost(of, even) < lost(of, weighed)


@pytest.mark.slow
def test_where_prices_are_products_the_branch_is_optimal():
    """Of all ranks as low: against gradient descent from it and from others."""
    rows, cols = normal(1, 30, 1).exp(), normal(2, 1, 40).exp()
    weighed, target = Weighed.by(rows * cols, "x"), normal(3, 30, 40)
    b, a = weighed.truncated(target, 4)
    best = weighed.error(target - b @ a)
    for seed in range(5):
        x, y = (b + 0.3 * normal(seed, 30, 4)).double(), a.double()
        for _ in range(200):  # weighted least squares in turns
            x = solved(target.double().T, y.T, weighed.each.double().T).T
            y = solved(target.double(), x, weighed.each.double())
        assert weighed.error(target - (x @ y).float()) >= best * (1 - 1e-5)


def solved(target, left, price):
    """Argmin of sum price * (target - left y)^2, column by column."""
    found = [
        torch.linalg.solve(left.T @ (p[:, None] * left), left.T @ (p * t))
        for t, p in zip(target.T, price.T, strict=True)
    ]
    return torch.stack(found, 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_prices_that_are_none_are_refused(bad):
    of = with_fisher(layer(3), torch.full((96, 128), bad).bfloat16())
    with pytest.raises(ValueError, match=r"squared gradients of layer reach .*; valid: finite"):
        LQLoRA(fisher=True).compress(of, room(0.3, of))


def test_a_layer_without_any_gradient_is_weighed_alike_and_says_so():
    of = with_fisher(layer(3), torch.zeros(96, 128).bfloat16())
    for knobs in ({}, {"rank": 0}):
        found, plain = (LQLoRA(fisher=f, **knobs).compress(of, room(0.3, of)) for f in (True, False))
        assert torch.equal(found.dense(), plain.dense())
        assert "no gradient" in found.notes["note"]


def test_rows_and_columns_without_a_price():
    weights = prices(2)
    weights[5], weights[:, 7] = 0, 0
    of = with_fisher(layer(3), weights)
    assert torch.isfinite(LQLoRA(fisher=True).compress(of, room(0.3, of)).dense()).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("knobs", [{}, {"rank": 3}, {"share": 0.4}, {"rank": 0}], ids=str)
def test_sizes_are_what_terms_pack_into(knobs, dtype):
    of, method = layer(5), LQLoRA(iterations=1, **knobs)
    sizes = method.sizes(of.shape, Room(0, None, dtype))
    assert len(sizes) > 20
    for size in sizes:
        term = method.compress(of, Room(size, None, dtype))
        low = [part for part in getattr(term, "terms", [term]) if isinstance(part, LowRank)]
        assert term.nbytes() == size or not low
        assert term.nbytes() <= size
        if method.rank == 0:
            assert not low
        for part in low:
            assert part.rank <= method.rank
            assert part.rank == 1 or part.nbytes() <= method.share * size
    with pytest.raises(Unreachable) as e:
        method.compress(of, Room(sizes[0] - 1, None, dtype))
    assert e.value.needs == sizes[0]


def test_rank_64_is_whole_at_the_papers_size():
    """At 4096 x 4096 no share cuts it, whatever the bits."""
    shape, method = (4096, 4096), LQLoRA()
    sizes = method.sizes(shape, Room(0))
    alone = NormalFloat.sizes(shape, Room(0))
    assert {size - bare for size, bare in zip(sizes, alone, strict=True)} == {2 * 64 * 8192}


def test_a_room_with_the_same_grid_is_not_solved_again():
    of, made = layer(6), {}

    def memo(key, make):
        if key not in made:
            made[key] = make()
        return made[key]

    of = Layer(of.name, of.weight, of.stats, memo=memo)
    method, sizes = LQLoRA(), LQLoRA().sizes(of.shape, Room(0))
    found = [method.compress(of, Room(sizes[9] + more)).dense() for more in (0, 1)]
    assert torch.equal(*found)
    assert len(made) == 1
    method.compress(of, Room(sizes[10]))
    assert len(made) == 2


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"rank": -1}, "method.rank=-1"),
        ({"share": 1.0}, "method.share=1.0"),
        ({"iterations": 0}, "method.iterations=0"),
        ({"fisher": 1}, "method.fisher=1"),
    ],
)
def test_bad_knobs_of_lq_lora(knobs, told):
    with pytest.raises(ValueError, match=rf"{told} is .*; valid: "):
        LQLoRA(**knobs)


def codes(term):
    return unpack_bits(term.codes, term.bits, term.in_features)


@pytest.mark.parametrize(
    "knobs", [{}, {"sym": True}, {"act_order": True}, {"group": -1}, {"group": 32}], ids=str
)
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_int2_1_without_a_branch_is_gptq(knobs, bits):
    of = layer(7)
    found = INT21(rank=0, bits=bits, **knobs).compress(of, room(0.5, of))
    want = GPTQ(**({"group": 64} | knobs)).compress(of, keep(bits / 16))
    assert isinstance(found, Quantised)
    assert (found.bits, found.group) == (bits, want.group)
    assert torch.equal(codes(found), codes(want))
    assert torch.equal(found.dense(), want.dense())


def test_the_branch_lowers_the_calibrated_error_and_keeps_the_codes():
    of, last = layer(8), float("inf")
    base = INT21(rank=0).compress(of, room(0.5, of))
    for rank in (0, 1, 4, 16, 40):
        term = INT21(rank=rank).compress(of, room(0.9, of, torch.float32))
        now = calibrated_error(of.weight, term.dense(), of[Gram].value)
        assert now < last
        assert torch.equal(codes(term.terms[0] if rank else term), codes(base))
        last = now
    full = INT21(bits=2).compress(of, Room(10**6, None, torch.float32))
    assert calibrated_error(of.weight, full.dense(), of[Gram].value) < 1e-9


def test_no_branch_of_that_rank_is_better():
    of = layer(9)
    term = INT21(rank=5).compress(of, room(0.9, of, torch.float32))
    low, best = term.terms[1], error(of, term.dense())
    for seed in range(20):
        for size in (1e-3, 1e-1):
            b, a = low.b + size * normal(seed, 96, 5), low.a + size * normal(seed + 50, 5, 128)
            assert error(of, term.terms[0].dense() + b @ a) > best


@pytest.mark.parametrize("wide", [128, 96, 40])
def test_int2_1_spends_all_but_less_than_a_rank(wide):
    of = layer(10, out=64, wide=wide)
    base = INT21(rank=0).compress(of, room(0.9, of))
    assert base.group == {128: 64, 96: 32, 40: -1}[wide]
    for share in (0.25, 0.4, 0.6):
        term = INT21().compress(of, room(share, of))
        one = 2 * (64 + wide)
        assert room(share, of).nbytes - one < term.nbytes() <= room(share, of).nbytes
        assert term.nbytes() in INT21().sizes(of.shape, room(share, of))
    with pytest.raises(Unreachable) as e:
        INT21().compress(of, Room(base.nbytes() - 1))
    assert e.value.needs == base.nbytes() == INT21().sizes(of.shape, Room(0))[0]


def test_int2_1_on_dead_channels_and_few_tokens():
    of = layer(11, tokens=20)
    x = normal(3, 20, 128)
    x[:, [4, 90]] = 0
    of = layer_of(of.weight, x)
    term = INT21().compress(of, room(0.3, of))
    assert isinstance(term, Sum)
    assert torch.isfinite(term.dense()).all()


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"bits": 1}, "method.bits=1"),
        ({"group": 0}, "method.group=0"),
        ({"rank": -1}, "method.rank=-1"),
        ({"sym": 1}, "method.sym=1"),
        ({"act_order": None}, "method.act_order=None"),
        ({"damp": -1}, "method.damp=-1"),
        ({"block": 0}, "method.block=0"),
    ],
)
def test_bad_knobs_of_int2_1(knobs, told):
    with pytest.raises(ValueError, match=rf"{told} is .*; valid: "):
        INT21(**knobs)


def test_a_group_that_does_not_divide():
    of = layer(12, wide=96)
    with pytest.raises(ValueError, match=r"method\.group=64 does not divide in_features=96 of layer"):
        INT21(group=64).compress(of, room(0.5, of))
