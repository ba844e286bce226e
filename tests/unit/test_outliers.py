"""Terms of SpQR and SqueezeLLM: what they cost, what they refuse, and the grids and k-means behind them."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from method_recipe import normal
from term_cases import all_bits, bilevel, dtypes, nests, quick, seeds, sides

from crunchmark.budget import Room, Unreachable
from crunchmark.clusters import divided, kmeans_of_rows, nearest_of_rows
from crunchmark.rounding import nested, snap, span, value_of
from crunchmark.terms import Bilevel, Nest, Outliers, Table, unpack

F16 = torch.float16


@quick
@given(sides, sides, seeds, st.floats(0, 4), dtypes)
def test_outliers_are_32_bits_each_and_a_start_per_row(out, wide, seed, least, dtype):
    w = normal(seed, out, wide)
    mask = w.abs() > least
    term = Outliers.of(w, mask, dtype)
    assert term.nbytes() == 4 * (out + 1) + int(mask.sum()) * (2 + dtype.itemsize)
    assert term.nbytes() == Outliers.size((out, wide), int(mask.sum()), dtype.itemsize)
    assert torch.equal(term.dense(), w.masked_fill(~mask, 0).to(dtype).float())
    assert term.nominal() == 0


@quick
@given(sides, sides, seeds, all_bits, nests(), st.booleans())
def test_bilevel_codes_are_the_rounded_weight_bit_for_bit(out, wide, seed, bits, nest, ordered):
    w, order = normal(seed, out, wide), normal(seed + 1, wide).argsort() if ordered else None
    term, want = bilevel(w, bits, nest, order)
    assert torch.equal(term.dense(), want)
    groups, runs = math.ceil(wide / nest.group), math.ceil(out / nest.rows)
    row = sum(
        math.ceil(n * b / 8) for n, b in ((wide, bits), (groups, nest.scale_bits), (groups, nest.zero_bits))
    )
    assert term.nbytes() == out * row + runs * groups * 4 * 2 + (2 * wide if ordered else 0)
    assert term.nbytes() == Bilevel.size((out, wide), bits, nest, ordered)
    assert term.nominal() == bits / 16


def test_bits_per_weight_are_the_papers():
    """b + 0.625 for groups of 16 in 16 rows with 3-bit scales and zeros; b + 16 2^b / K for tables."""
    shape = (256, 512)
    assert Bilevel.size(shape, 3, Nest(), False) * 8 / (256 * 512) == 3 + 6 / 16 + 64 / 256
    assert Table.size(shape, 4, 2) * 8 / (256 * 512) == 4 + 16 * 16 / 512
    per = (Outliers.size(shape, 1311, 2) - Outliers.size(shape, 0, 2)) * 8 / 1311
    assert per == 32


@quick
@given(sides, sides, seeds, all_bits, dtypes)
def test_table_bytes_are_codes_and_values(out, wide, seed, bits, dtype):
    codes = torch.randint(0, 2**bits, (out, wide), generator=torch.Generator().manual_seed(seed))
    table = normal(seed, out, 2**bits).to(dtype)
    term = Table.of(codes.byte(), table)
    assert term.nbytes() == out * (math.ceil(wide * bits / 8) + dtype.itemsize * 2**bits)
    assert term.nbytes() == Table.size((out, wide), bits, dtype.itemsize)
    assert torch.equal(term.dense(), table.float().gather(1, codes))
    assert term.nominal() == bits / 16


@quick
@given(sides, sides, st.integers(0, 4000), st.integers(0, 50))
def test_the_most_bits_that_fit(out, wide, nbytes, beside):
    shape, room, nest = (out, wide), Room(nbytes), Nest(8, 4)
    for size, fits in (
        (lambda b: Table.size(shape, b, 2), lambda: Table.fits(shape, room, "x", beside)),
        (
            lambda b: Bilevel.size(shape, b, nest, True),
            lambda: Bilevel.fits(shape, room, "x", nest, True, beside),
        ),
    ):
        if size(2) + beside > nbytes:
            with pytest.raises(Unreachable) as caught:
                fits()
            assert (caught.value.needs, caught.value.least) == (size(2) + beside, 2 / 16)
            continue
        assert size(fits()) + beside <= nbytes
        assert fits() == 8 or size(fits() + 1) + beside > nbytes


def test_columns_are_named_by_16_bits():
    w = torch.zeros(2, 2**16)
    w[0, 2**15], w[0, 2**16 - 1], w[1, 7] = 1, 2, 3
    term = Outliers.of(w, w != 0, F16)
    assert torch.equal(unpack(*term.pack()).dense(), w)
    order = torch.arange(2**16 - 1, -1, -1)
    wide, _ = bilevel(w[:1], 2, Nest(2**15), order)
    assert torch.equal(unpack(*wide.pack()).dense(), wide.dense())
    more = torch.zeros(1, 2**16 + 1)
    with pytest.raises(ValueError, match="in_features=65537 is out of range; valid: at most 65536"):
        Outliers.of(more, more > 0, F16)
    with pytest.raises(ValueError, match="in_features=65537 is out of range; valid: at most 65536"):
        Bilevel.fits((1, 2**16 + 1), Room(9**9), "x", Nest(), True)
    assert Bilevel.fits((1, 2**16 + 1), Room(9**9), "x", Nest(), False) == 8


def test_packs_that_contradict_themselves_are_refused():
    w = normal(0, 4, 8)
    tensors, meta = Outliers.of(w, w > 0, F16).pack()
    falling = tensors["starts"].flip(0).contiguous()
    with pytest.raises(ValueError, match=f"'starts' does not rise from 0 to kept={meta['kept']}"):
        unpack(tensors | {"starts": falling}, meta)
    for columns in (tensors["columns"] + 8, torch.zeros_like(tensors["columns"])):
        with pytest.raises(ValueError, match="'columns' does not rise within the rows; valid: below 8"):
            unpack(tensors | {"columns": columns}, meta)
    tensors, meta = bilevel(w, 3, Nest(4, 2), torch.arange(8))[0].pack()
    with pytest.raises(ValueError, match="'order' does not name each of the 8 inputs once"):
        unpack(tensors | {"order": torch.zeros_like(tensors["order"])}, meta)
    with pytest.raises(ValueError, match="bits=9 is out of range; valid: 2 to 8"):
        unpack(tensors, meta | {"bits": 9})
    with pytest.raises(ValueError, match="group=0, rows=2 are out of range"):
        unpack(tensors, meta | {"group": 0})
    with pytest.raises(ValueError, match="the table has 5 values a row; valid: 4, 8"):
        Table.of(torch.zeros(2, 2, dtype=torch.uint8), normal(0, 2, 5))
    with pytest.raises(ValueError, match="'second' has shape"):
        Bilevel.of(torch.zeros(4, 8, dtype=torch.uint8), [Nest(4).grid(w[:, :4], 3)], 3, Nest(4))


@quick
@given(seeds, all_bits, st.floats(-6, 3))
def test_a_grid_from_end_to_end_is_within_half_a_step(seed, bits, exponent):
    w = (normal(seed, 6, 16) + 3 * normal(seed + 1, 6, 1)) * 10**exponent
    scale, zero = span(w, bits)
    error = (value_of(snap(w, scale, zero, bits), scale, zero) - w).abs()
    assert bool((error <= 0.5 * scale[:, None] * (1 + 1e-3)).all())


def test_groups_without_spread():
    """Zeros stay zero, one value stays, and a narrow group does not take the grid of its neighbours."""
    w = normal(1, 16, 16)
    w[3], w[5], w[7] = 0.0, 2.0, 5.0 + 1e-4 * w[7]
    scale, zero = span(w, 3)
    value = value_of(snap(w, scale, zero, 3), scale, zero)
    assert float(value[3].abs().max()) == 0
    torch.testing.assert_close(value[5], w[5])
    assert float(zero.abs().max()) <= 28.01
    group = Nest().grid(torch.zeros(16, 16), 3)
    assert (
        float(
            value_of(snap(torch.zeros(16, 16), group.scale, group.zero, 3), group.scale, group.zero)
            .abs()
            .max()
        )
        == 0
    )


@pytest.mark.parametrize("values", [[0.0] * 5, [1e-3] * 5, [-7.0] * 5, [5e4, 5e4 + 1], [1e-30, 2e-30]])
def test_grids_of_scales_stay_finite(values):
    v = torch.tensor(values)
    codes, scale, zero = nested(v, 3, 2)
    got = Nest(rows=2).values(codes, scale, zero)
    assert bool(scale.isfinite().all() and zero.isfinite().all() and (scale > 0).all())
    assert float((got - v).abs().max()) <= 2e-3 * float(v.abs().max()) or values[0] == 1e-30
    assert bool(got.isfinite().all())


def test_a_grid_of_scales_that_float16_can_not_hold_is_refused():
    with pytest.raises(ValueError, match=r"codes 2\.857e\+08 apart; valid: float16 holds up to 65504"):
        nested(torch.tensor([1e9, -1e9]), 3, 2)


def exact(points, weights, k):
    """The least weighted error of k parts, by trying all ends (dynamic programming)."""
    x, w = points.double().sort().values, weights.double()[points.argsort()]
    n = len(x)
    cost = torch.full((n + 1, n + 1), float("inf"), dtype=torch.float64)
    for i in range(n):
        for j in range(i + 1, n + 1):
            mean = (w[i:j] * x[i:j]).sum() / w[i:j].sum()
            cost[i, j] = (w[i:j] * (x[i:j] - mean).square()).sum()
    best = cost[0]
    for _ in range(k - 1):
        best = torch.minimum(best, (best[:, None] + cost).min(0).values)
    return float(best[n])


def lost(points, weights, means):
    near = means.gather(1, nearest_of_rows(points, means))
    return ((near - points.double()).square() * weights).sum(1)


def test_k_means_of_rows_never_rises_and_ends_near_the_best():
    x, w = normal(2, 6, 40), normal(3, 6, 40).exp().double()
    start = x[:, :6]
    steps = [lost(x, w, kmeans_of_rows(x, w, start, n).double()) for n in range(1, 9)]
    for before, after in pairwise(steps):
        assert bool((after <= before * (1 + 1e-9)).all())
    assert bool((steps[-1] < steps[0]).all())
    found = lost(x, w, kmeans_of_rows(x, w, divided(x, w, 6), 50))
    best = [exact(*row, 6) for row in zip(x, w, strict=True)]
    assert all(b * (1 - 1e-9) <= f <= 1.5 * b for f, b in zip(found.tolist(), best, strict=True))


def test_parts_that_are_there_are_found():
    centres = torch.tensor([[-9.0, -1.0, 0.5, 30.0]])
    x = centres.repeat(1, 20) + 0.01 * normal(4, 1, 80)
    torch.testing.assert_close(divided(x, torch.ones_like(x), 4), centres.double(), rtol=0, atol=0.01)
    few = divided(torch.tensor([[1.0, 1.0, 2.0]]), torch.ones(1, 3), 8)
    assert sorted(set(few[0].tolist())) == [1.0, 2.0]
    assert torch.equal(divided(x, torch.zeros_like(x), 4).isfinite(), torch.ones(1, 4, dtype=torch.bool))


def test_points_without_weight_move_nothing():
    x, w = normal(5, 3, 60), torch.ones(3, 60)
    w[:, 30:] = 0
    start = divided(x[:, :30], w[:, :30], 8)
    torch.testing.assert_close(divided(x, w, 8), start)
    torch.testing.assert_close(
        kmeans_of_rows(x, w, start, 50), kmeans_of_rows(x[:, :30], w[:, :30], start, 50)
    )
