"""Words of a codebook: what they cost, which setting fits, k-means, and what LR2VQ's two errors add up to."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from method_recipe import keep, normal
from term_cases import quick, seeds, sides

from crunchmark.budget import Room, Unreachable
from crunchmark.clusters import kmeans, nearest
from crunchmark.interface import Layer
from crunchmark.terms import Codebook, unpack
from methods.lr2vq import LR2VQ
from methods.vq import VQ

W = normal(0, 24, 64)


@quick
@given(sides, sides, st.integers(2, 8), st.integers(1, 8), st.integers(0, 3), seeds)
def test_bytes_are_codes_book_and_lift(out, runs, bits, length, dims, seed):
    draw = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**bits, (out, runs), generator=draw).to(torch.uint8)
    lift = normal(seed, dims, length) if dims else None
    book = normal(seed + 1, 2**bits, dims or length)
    term = Codebook.of(codes, book, lift, torch.float16)
    numbers = 2**bits * (dims or length) + dims * length
    assert term.nbytes() == out * -(-runs * bits // 8) + 2 * numbers
    assert term.nbytes() == Codebook.size(term.shape, bits, length, 2, dims or None)
    assert term.nominal() == bits / length / 16
    words = book.half().float() if lift is None else book.half().float() @ lift.half().float()
    assert torch.equal(term.dense(), words[codes.long()].reshape(out, runs * length))


@quick
@given(sides, sides, st.integers(0, 4000), st.booleans())
def test_the_most_bits_per_weight_that_fit(out, wide, nbytes, lifted):
    """Of all settings, tried one by one."""
    room, sizes = Room(nbytes), {}
    for bits in range(2, 9):
        for length in (n for n in range(1, 9) if wide % n == 0 and out * wide // n >= 2**bits):
            size = Codebook.size((out, wide), bits, length, 2, length if lifted else None)
            sizes[bits / length, length, bits] = size
    if not sizes:
        with pytest.raises(ValueError, match="want more runs than x has"):
            Codebook.fits((out, wide), room, "x", lifted=lifted)
        return
    fitting = [setting for setting, size in sizes.items() if size <= nbytes]
    if not fitting:
        with pytest.raises(Unreachable) as caught:
            Codebook.fits((out, wide), room, "x", lifted=lifted)
        assert caught.value.needs == min(sizes.values())
        return
    _, length, bits = max(fitting)
    assert Codebook.fits((out, wide), room, "x", lifted=lifted) == (bits, length)


@quick
@given(sides, sides, st.booleans(), st.sampled_from([None, 0.3]))
def test_sizes_are_those_of_what_fits(out, wide, lifted, nominal):
    """Every size is made in a room of just that size, and no room is filled in another way."""
    at = [Room(nbytes, nominal) for nbytes in range(0, 2 * out * wide + 800, 7)]
    try:
        sizes = Codebook.sizes((out, wide), at[0], lifted=lifted)
    except ValueError:
        return
    assert sizes == sorted(set(sizes))
    full = 2 * out * wide
    for size in sizes:
        room = Room(size) if nominal is None else Room(size, size / full)
        bits, length = Codebook.fits((out, wide), room, "x", lifted=lifted)
        if nominal is None:
            assert Codebook.size((out, wide), bits, length, 2, length if lifted else None) == size
        else:
            assert size == -(-full * bits // (16 * length))
    if nominal is None:
        for room in (room for room in at if room.nbytes >= sizes[0]):
            bits, length = Codebook.fits((out, wide), room, "x", lifted=lifted)
            assert Codebook.size((out, wide), bits, length, 2, length if lifted else None) in sizes


def test_knobs_that_do_not_go_are_refused():
    with pytest.raises(
        ValueError, match=r"method.length=5 does not divide in_features=64 of x; valid: .* 16"
    ):
        VQ(length=5).compress(Layer("x", W), Room(9999))
    with pytest.raises(
        ValueError, match=r"method.bits=8.* more runs than up has \(2, 8\); valid: bits up to 4"
    ):
        VQ(bits=8).compress(Layer("up", W[:2, :8].contiguous()), Room(9999))
    with pytest.raises(ValueError, match=r"method.bits=9 is unknown; valid: null, 2"):
        VQ(bits=9)
    with pytest.raises(ValueError, match=r"method.dims=3 is out of range; valid: null or 1 to 2"):
        LR2VQ(length=2, dims=3)
    with pytest.raises(ValueError, match=r"method.sample=9 is out of range"):
        VQ(sample=9)
    with pytest.raises(ValueError, match="the book has 5 words; valid: 4, 8"):
        Codebook.of(torch.zeros(2, 2, dtype=torch.uint8), normal(0, 5, 2), None, torch.float32)
    with pytest.raises(ValueError, match="code 7 does not fit into bits=2"):
        Codebook.of(torch.full((2, 2), 7, dtype=torch.uint8), normal(0, 4, 2), None, torch.float32)


def test_a_pack_reads_back_and_settings_are_told():
    term = LR2VQ(bits=4, length=4, dims=2).compress(Layer("x", W), Room(9999))
    assert term.setting == "4 bit, length 4, 2 dims"
    assert VQ(bits=4, length=4).compress(Layer("x", W), Room(9999)).setting == "4 bit, length 4"
    tensors, meta = term.pack()
    again = unpack(tensors, meta)
    assert torch.equal(again.dense(), term.dense())
    assert again.setting == term.setting
    for name in ("codes", "book", "lift"):
        with pytest.raises(ValueError, match=f"'{name}' is missing"):
            unpack({k: t for k, t in tensors.items() if k != name}, meta)


def test_means_find_clusters_that_are_there():
    centres = normal(1, 8, 3) * 20
    points = (centres.repeat(40, 1) + 0.1 * normal(2, 320, 3)).contiguous()
    found = kmeans(points, 8, 0, 25, 320)
    assert float(torch.cdist(found, centres).min(1).values.max()) < 0.1
    codes, apart = nearest(points, found)
    exact = torch.cdist(points.double(), found.double())
    assert torch.equal(codes, exact.argmin(1))
    torch.testing.assert_close(apart.double(), exact.min(1).values.square(), rtol=0, atol=1e-3)


def test_the_same_points_in_any_order_have_the_same_means():
    points, order = normal(3, 500, 4), torch.randperm(500, generator=torch.Generator().manual_seed(1))
    for sample in (500, 100):
        one = kmeans(points, 16, 7, 25, sample)
        assert torch.equal(one, kmeans(points, 16, 7, 25, sample))
        assert torch.equal(one, kmeans(points[order], 16, 7, 25, sample))
        assert not torch.equal(one, kmeans(points, 16, 8, 25, sample))


def test_no_move_makes_it_worse_and_more_means_are_better():
    points = normal(4, 600, 2)
    moves = [kmeans(points, 16, 0, iterations, 600) for iterations in range(1, 12)]
    errors = [float(nearest(points, means)[1].sum()) for means in moves]
    assert all(b <= a * (1 + 1e-6) for a, b in pairwise(errors))
    assert errors[-1] < errors[0]
    assert float(nearest(points, kmeans(points, 64, 0, 25, 600))[1].sum()) < 0.5 * errors[-1]


def test_means_without_points_start_again_where_it_is_worst():
    """Nine points far out, two means that start together among the rest."""
    from crunchmark.clusters import _moved

    points = torch.cat([torch.zeros(50, 2), torch.full((9, 2), 30.0)])
    moved = _moved(points, torch.tensor([[0.0, 0.0], [0.0, 0.0]]))
    assert sorted(moved[:, 0].tolist()) == [pytest.approx(9 * 30 / 59), 30.0]
    assert torch.equal(kmeans(torch.ones(20, 2), 4, 0, 5, 20), torch.ones(4, 2))
    with pytest.raises(ValueError, match="8 means of 7 points"):
        kmeans(normal(0, 7, 2), 8, 0, 5, 100)


@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_lr2vq_loses_what_the_directions_and_the_clusters_lose(dims):
    layer = Layer("x", W @ torch.diag(torch.linspace(0.2, 2, 64)))
    term = LR2VQ(bits=5, length=4, dims=dims).compress(layer, keep(1, torch.float32))
    runs, lift = layer.weight.reshape(-1, 4).double(), term.lift.double()
    low = (runs - runs @ lift.T @ lift).square().sum()
    tail = torch.linalg.svdvals(runs)[dims:].square().sum()
    torch.testing.assert_close(low, tail, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(lift @ lift.T, torch.eye(dims, dtype=torch.float64), rtol=0, atol=1e-6)
    _, apart = nearest((runs @ lift.T).float(), term.book)
    lost = (layer.weight.double() - term.dense().double()).square().sum()
    torch.testing.assert_close(lost, low + apart.double().sum(), rtol=1e-5, atol=0)


def test_dims_are_those_with_the_least_error():
    layer = Layer("x", W)
    room = keep(1, torch.float32)
    tried = [LR2VQ(bits=4, length=4, dims=d).compress(layer, room) for d in (1, 2, 3, 4)]
    errors = [float((t.dense() - W).square().sum()) for t in tried]
    best = LR2VQ(bits=4, length=4).compress(layer, room)
    assert best.book.shape[1] == 1 + errors.index(min(errors))
    assert float((best.dense() - W).square().sum()) == min(errors)
    assert errors[0] > errors[3]


def test_full_dimensions_are_plain_vq_up_to_the_start():
    plain = VQ(bits=6, length=2).compress(Layer("x", W), keep(1, torch.float32))
    lifted = LR2VQ(bits=6, length=2, dims=2).compress(Layer("x", W), keep(1, torch.float32))
    errors = [float((t.dense() - W).square().sum()) for t in (plain, lifted)]
    assert max(errors) < 1.1 * min(errors)


@quick
@given(st.integers(1, 9), st.integers(0, 2**31))
def test_on_a_line_the_closest_mean_is_the_closest(k, seed):
    generator = torch.Generator().manual_seed(seed)
    points, means = torch.randn(200, 1, generator=generator), torch.randn(k, 1, generator=generator)
    codes, apart = nearest(points, means)
    distances = (points - means.T).square()  # (200, k)
    assert torch.equal(distances.gather(1, codes[:, None])[:, 0], apart)
    torch.testing.assert_close(apart, distances.min(1).values)
