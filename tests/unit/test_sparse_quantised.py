"""Kept weights as integers: the bytes of the papers' formulas, exact zeros, and what is refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from term_cases import all_bits, bits_per_weight, kept_codes, normal, quick, seeds, sides

from crunchmark.budget import Room, Unreachable
from crunchmark.rounding import grids
from crunchmark.terms import NM, Dense, Kept, Layout, Settings, Sparse, SparseQuantised, unpack


def term_of(mask, layout, bits, group, sym):
    """Any codes will do where bytes are counted."""
    w = normal(0, *mask.shape)
    scale, zero = grids(w, bits, group, sym)
    codes = (w.abs() * 1000).int().remainder(2**bits).byte()
    return SparseQuantised.of(Kept(mask, layout), codes, scale, None if sym else zero, bits, group)


@pytest.mark.parametrize("wide", [256, 4096])
def test_half_the_weights_in_four_bits_per_row(wide):
    """1 + (1 - p) b + (16 + b) / K: 3.005 bits at K = 4096 (arXiv:2301.00774, section 3.4)."""
    mask = torch.arange(8 * wide).view(8, wide) % 2 == 0
    found = bits_per_weight(term_of(mask, Layout(), 4, -1, sym=False))
    assert found == pytest.approx(1 + 0.5 * 4 + (16 + 8) / wide, abs=1e-12)  # a zero of 4 bits fills a byte
    assert wide < 4096 or found == pytest.approx(3.005, abs=1.1e-3)


def test_two_of_four_in_groups_of_128():
    """2 + 1 + 16 / 128 = 3.125 bits with a symmetric grid."""
    mask = (torch.arange(256) % 4 < 2).expand(8, -1)
    assert bits_per_weight(term_of(mask, Layout("nm", 4), 4, 128, sym=True)) == 3.125
    asym = bits_per_weight(term_of(mask, Layout("nm", 4), 4, 128, sym=False))
    assert asym == 3.125 + 4 / 128


def test_half_the_groups_of_16():
    """(1 - p) (b + (16 + b) / g) + 1 / g = 2.6875 bits (arXiv:2412.17560)."""
    mask = (torch.arange(16) % 2 == 0).repeat_interleave(16).expand(8, -1)
    assert bits_per_weight(term_of(mask, Layout("groups", 16), 4, 16, sym=False)) == 2.6875


@quick
@given(sides, sides, seeds, all_bits, st.booleans(), st.data())
def test_what_is_gone_is_exactly_zero_and_bytes_are_those_counted(out, wide, seed, bits, sym, data):
    term, kept, want = data.draw(kept_codes((out, wide), seed, bits, sym))
    assert torch.equal(term.dense(), want)
    assert float(term.dense()[~kept.mask].abs().sum()) == 0
    assert torch.equal(term.mask(), kept.mask)
    count = int(kept.mask.sum())
    assert term.nbytes() == SparseQuantised.size((out, wide), count, bits, term.group, sym, kept.layout)
    assert term.nominal() == pytest.approx(count / (out * wide) * bits / 16)


@quick
@given(sides, sides, st.integers(0, 2000), all_bits, st.booleans())
def test_as_many_are_kept_as_fit(out, wide, nbytes, bits, sym):
    room, fixed = Room(nbytes), SparseQuantised.size((out, wide), 0, bits, -1, sym)
    if fixed > nbytes:
        with pytest.raises(Unreachable) as caught:
            SparseQuantised.keeps((out, wide), room, "x", bits, -1, sym)
        assert caught.value.needs == fixed == SparseQuantised.least((out, wide), room, bits, -1, sym)
        return
    kept = SparseQuantised.keeps((out, wide), room, "x", bits, -1, sym)
    assert SparseQuantised.size((out, wide), kept, bits, -1, sym) <= nbytes
    assert kept == out * wide or SparseQuantised.size((out, wide), kept + 1, bits, -1, sym) > nbytes


def test_settings_take_the_most_that_fits():
    runs = Settings.of_runs((8, 64), 4, 4, -1)
    sizes = [SparseQuantised.size((8, 64), 128 * n, 4, -1, False, Layout("nm", 4)) for n in (1, 2, 3)]
    assert runs.sizes(Room(0)) == sizes
    assert runs.fits(Room(sizes[2] - 1), "x") == (256, 4, -1)
    assert runs.fits(Room(0, 0.125), "x") == (256, 4, -1)
    with pytest.raises(Unreachable) as caught:
        runs.fits(Room(sizes[0] - 1), "x")
    assert caught.value.needs == sizes[0]
    depths = Settings((8, 64), [256], range(8, 1, -1), [32, 64, -1])
    assert depths.fits(Room(10**6), "x") == (256, 8, 32)
    assert depths.fits(Room(0, 0.125), "x") == (256, 4, 64)
    assert all(depths.fits(Room(size), "x") for size in depths.sizes(Room(0)))


def test_what_does_not_go_together_is_refused():
    w = normal(0, 4, 12)
    scale, zero = grids(w, 4, 4, False)
    codes = torch.zeros(4, 12, dtype=torch.uint8)
    part = torch.zeros(4, 12, dtype=torch.bool)
    part[0, 0] = True
    for layout, told in (
        (Layout("groups", 4), "keeps part of a group of 4"),
        (Layout("nm", 4), "does not keep equally many of every 4"),
        (Layout("groups", 5), "span=5 does not divide in_features=12"),
        (Layout("groups", 6), "group=4 is not what is kept as a whole; valid: span=6"),
        (Layout("rows", 1), "form='rows' is unknown; valid: bitmap, nm, groups"),
    ):
        with pytest.raises(ValueError, match=told):
            SparseQuantised.of(Kept(part, layout), codes, scale, zero, 4, 4)
    with pytest.raises(ValueError, match="keeps no single weights; valid: sparse, nm"):
        Kept.of(Dense(w, torch.float32))


@pytest.mark.parametrize("layout", [Layout(), Layout("nm", 4), Layout("groups", 4)], ids=str)
def test_marks_of_another_count_are_refused(layout):
    mask = (torch.arange(16) % 8 < 4).expand(3, -1) if layout.form != "nm" else (torch.arange(16) % 4 < 2)
    term = term_of(mask.expand(3, -1), layout, 4, 4, False)
    tensors, meta = term.pack()
    damaged = tensors | {"kept": torch.zeros_like(tensors["kept"])}
    with pytest.raises(ValueError, match="packed tensor 'kept' keeps"):
        unpack(damaged, meta)


def test_a_stage_that_fills_zeros_or_keeps_too_much_is_caught():
    w = normal(0, 4, 8)
    for pruned in (Sparse.of(w, w > 0, torch.float32), NM.largest(w, w.abs(), 2, 4, torch.float32)):
        kept = Kept.of(pruned)
        kept.check(pruned.dense(), "layer", "first", kept.count)
        with pytest.raises(ValueError, match=rf"layer: first filled {32 - kept.count} of {32 - kept.count} "):
            kept.check(w, "layer", "first", kept.count)
        with pytest.raises(ValueError, match=rf"first keeps {kept.count} weights; valid: at most"):
            kept.check(pruned.dense(), "layer", "first", kept.count - 1)
