"""DSFormer's factors: one entry per segment, what they cost, and what they lose."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from method_recipe import keep, normal
from term_cases import dtypes, quick, seeds, sides

from crunchmark.budget import Room, Unreachable, dense_bytes
from crunchmark.interface import Layer
from crunchmark.linalg import spectrum
from crunchmark.terms import Segments, unpack
from methods.dsformer import DSFormer, factorised, spread
from methods.svd import SVD


@quick
@given(st.integers(1, 12), st.integers(1, 20), sides, seeds, dtypes)
def test_every_column_has_one_entry_per_segment(count, length, wide, seed, dtype):
    values = normal(seed, count, wide).abs() + 0.1
    index = torch.randint(length, (count, wide), generator=torch.Generator().manual_seed(seed)).byte()
    term = Segments.of(values, index, length, dtype)
    parts = term.dense().view(count, length, wide)
    assert ((parts != 0).sum(1) == 1).all()
    assert torch.equal(parts.abs().argmax(1), index.long())
    assert torch.equal(parts.sum(1), values.to(dtype).float())
    bits = (length - 1).bit_length()
    assert term.nbytes() == dtype.itemsize * count * wide + count * -(-wide * bits // 8)
    assert term.nbytes() == Segments.size(count, length, wide, dtype.itemsize)
    assert term.nominal() == 1 / length


def test_what_does_not_go_is_refused():
    with pytest.raises(ValueError, match="index 3 is outside segments of length=3"):
        Segments.of(normal(0, 2, 4), torch.full((2, 4), 3, dtype=torch.uint8), 3, torch.float32)
    term = Segments.of(normal(0, 2, 4), torch.full((2, 4), 2, dtype=torch.uint8), 3, torch.float32)
    tensors, meta = term.pack()
    with pytest.raises(ValueError, match="'index' holds 3; expected below 3"):
        unpack(tensors | {"index": torch.full_like(tensors["index"], 255)}, meta)
    with pytest.raises(ValueError, match=r"length=257 is out of range; valid: 1 to 256"):
        unpack(tensors, meta | {"shape": [514, 4]})
    with pytest.raises(ValueError, match=r"method.length=0 is unknown; valid: 1"):
        DSFormer(length=0)
    with pytest.raises(ValueError, match=r"method.iterations=-1 is out of range"):
        DSFormer(iterations=-1)
    with pytest.raises(ValueError, match=r"method.length=9 is above the rank of k \(8, 64\); valid: 1 to 8"):
        DSFormer(length=9).suits({"q": (64, 64), "k": (8, 64)})


def start(w, segments, length):
    """Leading singular vectors, dealt out."""
    basis = spectrum(w).basis[:, : segments * length]
    return basis.unflatten(1, (length, segments)).mT.flatten(1)


def lost(w, found, length):
    d, index, values = found
    return float((w - d @ spread(index, values, length)).square().sum())


@pytest.mark.parametrize("shape", [(96, 128), (128, 64), (48, 160)], ids=str)
@pytest.mark.parametrize("length", [1, 3, 4])
def test_no_iteration_raises_the_error(shape, length):
    w, segments = normal(1, *shape).double(), 40 // length
    errors = [lost(w, factorised(w, start(w, segments, length), segments, n), length) for n in range(8)]
    assert all(b <= a * (1 + 1e-9) for a, b in pairwise(errors))
    assert errors[-1] < errors[0] or length == 1


@pytest.mark.parametrize("shape", [(96, 128), (128, 64)], ids=str)
@pytest.mark.parametrize("segments", [1, 10, 30])
def test_segments_of_one_row_are_the_svd(shape, segments):
    """Nothing is left out then; with longer ones the best `segments` directions are still among them."""
    w = normal(2, *shape).double()
    tail = float(torch.linalg.svdvals(w)[segments:].square().sum())
    assert lost(w, factorised(w, start(w, segments, 1), segments, 0), 1) == pytest.approx(tail, rel=1e-9)
    assert lost(w, factorised(w, start(w, segments, 1), segments, 5), 1) <= tail * (1 + 1e-9)
    assert lost(w, factorised(w, start(w, segments, 2), segments, 0), 2) <= tail * (1 + 1e-9)


def test_more_segments_lose_less():
    w = normal(3, 96, 128).double()
    errors = [lost(w, factorised(w, start(w, s, 4), s, 10), 4) for s in (1, 2, 4, 8, 16, 24)]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize("d", [64, 96])
def test_less_is_lost_than_by_an_svd_of_as_many_bytes(d):
    """A tenth or more on weights without structure."""
    for seed in range(3):
        of = Layer("x", normal(10 + seed, 192, 256))
        one = DSFormer().size(of.shape, 1, Room(0))
        room = Room(d // 4 * one)
        apart = [float((of.weight - m.compress(of, room).dense()).norm()) for m in (DSFormer(), SVD())]
        assert DSFormer().compress(of, room).nbytes() == room.nbytes
        assert apart[0] < 0.93 * apart[1]


def test_the_room_decides_the_segments():
    of = Layer("x", normal(4, 32, 48))
    sizes = DSFormer().sizes(of.shape, Room(0))
    for segments, size in enumerate(sizes, 1):
        for nbytes in (size, size + 1):
            term = DSFormer(iterations=1).compress(of, Room(nbytes))
            assert term.nbytes() == size
            assert len(term.terms[1].values) == segments
            assert term.shape == (32, 48)
    with pytest.raises(Unreachable) as caught:
        DSFormer().compress(of, Room(sizes[0] - 1))
    assert caught.value.needs == sizes[0]
    for share in (0.2, 0.5, 0.8):
        term = DSFormer(iterations=1).compress(of, keep(share))
        step = (32 * 4 + 48) / (32 * 48)
        assert share - step < term.nominal() <= share
    assert DSFormer().sizes(of.shape, keep(0.5))[0] == dense_bytes(of.shape) * (32 * 4 + 48) // (32 * 48)


def test_weights_without_rank():
    """Zero weights, zero columns and equal rows stay finite, and zero where they are."""
    w = normal(5, 24, 32)
    w[:, 3:9], w[5] = 0, w[4]
    for weight in (torch.zeros(24, 32), w, normal(6, 24, 2) @ normal(7, 2, 32)):
        of = Layer("x", weight)
        found = DSFormer().compress(of, Room(dense_bytes(of.shape) // 2)).dense()
        assert torch.isfinite(found).all()
        assert float((found - weight).norm()) <= 0.9 * float(weight.norm())
        assert float(found[:, weight.abs().sum(0) == 0].abs().sum()) == 0
