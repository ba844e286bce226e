"""A term takes the most that fits its room, names what does not fit, and refuses knobs that do not go."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from term_cases import dtypes, normal, quantised, quick, seeds, sides

from crunchmark.budget import Room, Unreachable, dense_bytes
from crunchmark.terms import NM, Dense, LowRank, Product, Quantised, Sparse, Sum, unpack, unpack_mask

rooms = st.builds(Room, st.integers(0, 4000), st.none(), dtypes)


@quick
@given(sides, sides, rooms, seeds)
def test_low_rank_takes_the_largest_rank_that_fits(out, wide, room, seed):
    one = room.itemsize * (out + wide)
    if room.nbytes < one:
        with pytest.raises(Unreachable) as e:
            LowRank.fits((out, wide), room, "x")
        assert e.value.needs == one
        return
    r = LowRank.fits((out, wide), room, "x")
    term = LowRank.of(normal(seed, out, r), normal(seed, r, wide), room.dtype)
    assert term.nbytes() <= room.nbytes
    assert term.nbytes() + one > room.nbytes or r == min(out, wide)


@quick
@given(sides, sides, rooms, seeds)
def test_sparse_keeps_as_many_as_fit(out, wide, room, seed):
    w, bitmap = normal(seed, out, wide), out * math.ceil(wide / 8)
    if room.nbytes < bitmap:
        with pytest.raises(Unreachable) as e:
            Sparse.keeps((out, wide), room, "x")
        assert e.value.needs == bitmap
        return
    kept = Sparse.keeps((out, wide), room, "x")
    whole = Sparse.largest(w, w.abs(), room, "x", scope="layer")
    assert len(whole.values) == kept
    assert whole.nbytes() <= room.nbytes
    assert whole.nbytes() + room.itemsize > room.nbytes or kept == out * wide
    rows = Sparse.largest(w, w.abs(), room, "x", scope="row")
    assert unpack_mask(rows.mask, wide).sum(1).tolist() == [kept // out] * out


@quick
@given(sides, st.sampled_from([2, 3, 4, 8, 32]), st.integers(1, 8), rooms, seeds)
def test_nm_keeps_the_largest_n_that_fits(out, m, runs, room, seed):
    shape, w = (out, m * runs), normal(seed, out, m * runs)
    least = NM.size(shape, 1, m, room.itemsize)
    if room.nbytes < least:
        with pytest.raises(Unreachable) as e:
            NM.fits(shape, room, m, "x")
        assert e.value.needs == least
        return
    n = NM.fits(shape, room, m, "x")
    term = Sparse.largest(w, w.abs(), room, "x", run=m)
    assert (term.n, term.m, term.nominal()) == (n, m, n / m)
    assert term.nbytes() == NM.size(shape, n, m, room.itemsize) <= room.nbytes
    assert n == m - 1 or NM.size(shape, n + 1, m, room.itemsize) > room.nbytes
    assert (term.dense().view(out, runs, m) != 0).sum(-1).unique().tolist() == [n]


@quick
@given(sides, st.sampled_from([5, 32, 64, 96, 128, 172, 192, 256]), rooms, st.booleans(), seeds)
def test_quantised_takes_the_most_bits_then_the_smallest_group(out, wide, room, sym, seed):
    shape, groups = (out, wide), [g for g in (32, 64, 128) if wide % g == 0] + [-1]
    sizes = {(b, g): Quantised.size(shape, b, g, sym) for b in range(2, 9) for g in groups}
    if min(sizes.values()) > room.nbytes:
        with pytest.raises(Unreachable) as e:
            Quantised.fits(shape, room, "x", sym=sym)
        assert e.value.needs == min(sizes.values())
        return
    bits, group = Quantised.fits(shape, room, "x", sym=sym)
    term, _ = quantised(normal(seed, out, wide), bits, group, sym)
    assert term.nbytes() == sizes[bits, group] <= room.nbytes
    assert all(size > room.nbytes for (b, _), size in sizes.items() if b > bits)
    assert all(sizes[bits, g] > room.nbytes for g in groups[: groups.index(group)])


def test_nominal_accounting_counts_as_papers_do():
    half, shape = Room(0, 0.5), (6, 192)
    assert LowRank.fits(shape, half, "x") == math.floor(0.5 * 6 * 192 / 198)
    assert Sparse.keeps(shape, half, "x") == 576
    assert NM.fits(shape, half, 4, "x") == 2
    assert Quantised.fits(shape, Room(0, 0.25), "x") == (4, 64)
    assert Quantised.fits((6, 256), half, "x") == (8, 128)
    assert Quantised.fits((6, 172), Room(0, 3 / 16), "x") == (3, -1)
    assert Quantised.fits(shape, half, "x", group=32, bits=3) == (3, 32)
    for call in (LowRank.fits, Quantised.fits):
        with pytest.raises(Unreachable):
            call(shape, Room(10**6, 0.01), "x")
    with pytest.raises(Unreachable):
        NM.fits(shape, Room(10**6, 0.2), 4, "x")


@pytest.mark.parametrize("setting", [(None, False), (None, True), (16, False), (-1, True)])
def test_sizes_of_bits_are_those_that_fit(setting):
    shape, (group, sym) = (12, 64), setting
    sizes = Quantised.sizes(shape, Room(0), group, sym)
    reached = set()
    for nbytes in range(sizes[0], dense_bytes(shape)):
        bits, g = Quantised.fits(shape, Room(nbytes), "x", group, sym)
        reached.add(Quantised.size(shape, bits, g, sym))
    assert sizes == sorted(reached)
    assert len(sizes) >= 7


def test_sizes_of_runs_are_those_that_fit():
    sizes = NM.sizes((12, 64), Room(0), 8)
    kept = {NM.fits((12, 64), Room(n), 8, "x") for n in range(sizes[0], sizes[-1] + 9)}
    assert [NM.size((12, 64), n, 8, 2) for n in sorted(kept)] == sizes
    nominal = Room(0, 0.5)
    full = dense_bytes((12, 64))
    for m, sizes in ((7, Quantised.sizes((12, 64), nominal)), (7, NM.sizes((12, 64), nominal, 8))):
        assert len(sizes) == m
        assert all(0 < size < full for size in sizes)


def test_named_size_of_what_is_unreachable():
    with pytest.raises(Unreachable, match=r"up: the smallest packing is 66 bytes, the room is 10 bytes"):
        LowRank.fits((11, 22), Room(10), "up")
    with pytest.raises(Unreachable, match=r"up: the smallest packing is 68 bytes, the room is 10 bytes"):
        Quantised.fits((2, 128), Room(10), "up", group=-1, sym=True)


def test_a_run_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"run=8 does not divide in_features=172 of up; valid: .* 2, 4, 43"):
        NM.fits((3, 172), Room(999), 8, "up")
    with pytest.raises(ValueError, match="run=1 "):
        NM.fits((3, 172), Room(999), 1, "up")


def test_a_group_that_does_not_divide_is_refused():
    with pytest.raises(
        ValueError, match=r"group=100 does not divide in_features=192 of up; valid: .*32, 48, 64"
    ):
        Quantised.fits((3, 192), Room(999), "up", group=100)
    with pytest.raises(ValueError, match=r"in_features=172 of up; valid: -1 \(whole row\)"):
        Quantised.fits((3, 172), Room(999), "up", group=32)
    with pytest.raises(ValueError, match="group=0 is out of range"):
        Quantised.fits((3, 192), Room(999), "up", group=0)
    with pytest.raises(ValueError, match="bits=1 is out of range; valid: 2 to 8"):
        Quantised.fits((3, 192), Room(999), "up", bits=1)


def test_wrong_parts_are_refused():
    w = normal(0, 4, 8)
    with pytest.raises(ValueError, match="exactly n=2 of every m=4"):
        NM.of(w, w > 9, 2, 4, torch.bfloat16)
    with pytest.raises(ValueError, match="scope='global' is unknown; valid: row, layer"):
        Sparse.largest(w, w, Room(999), "x", scope="global")
    with pytest.raises(ValueError, match="share a rank"):
        LowRank.of(w, w, torch.bfloat16)
    with pytest.raises(ValueError, match="'scale' has shape"):
        Quantised.of(torch.zeros(4, 8, dtype=torch.uint8), torch.zeros(4, 8), None, 4, -1)
    with pytest.raises(ValueError, match="one shape"):
        Sum([Dense(w, w.dtype), Dense(w.T, w.dtype)])
    with pytest.raises(ValueError, match="multiplied"):
        Product([Dense(w, w.dtype), Dense(w, w.dtype)])
    with pytest.raises(ValueError, match="at least one"):
        Sum([])
    tensors, meta = Sparse.of(w, w > 0, w.dtype).pack()
    with pytest.raises(ValueError, match="'mask' keeps 32 weights"):
        unpack(tensors | {"mask": torch.full_like(tensors["mask"], 255)}, meta)
