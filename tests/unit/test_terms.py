"""Terms weigh what they write, read back exactly, and multiply like their dense weight."""

import json
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from crunchmark.budget import Room, Unreachable
from crunchmark.rounding import grid, round_to, value_of
from crunchmark.terms import (
    KINDS,
    NM,
    Dense,
    LowRank,
    Product,
    Quantised,
    Sparse,
    Sum,
    pack_bits,
    pack_mask,
    top,
    unpack,
    unpack_bits,
    unpack_mask,
)
from crunchmark.terms.packing import packed_width

quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
sides = st.integers(1, 40)
seeds = st.integers(0, 2**31)
dtypes = st.sampled_from([torch.bfloat16, torch.float16, torch.float32])
all_bits = st.integers(2, 8)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantised(w, bits, group, sym):
    """Round each group on its own, without the term's own layout code; the last may be shorter."""
    parts = [w] if group == -1 else list(w.split(group, dim=1))
    grids = [grid(p, bits, sym) for p in parts]
    codes = torch.cat([round_to(p, s, z, bits) for p, (s, z) in zip(parts, grids, strict=True)], 1)
    scale, zero = (torch.stack([g[i] for g in grids], 1) for i in (0, 1))
    ends = [0, *torch.tensor([p.shape[1] for p in parts]).cumsum(0).tolist()]
    spans = [codes[:, a:b] for a, b in pairwise(ends)]
    want = torch.cat([value_of(c, s, z) for c, (s, z) in zip(spans, grids, strict=True)], 1)
    return Quantised.of(codes, scale, None if sym else zero, bits, group), want


@st.composite
def leaves(draw, shape=None):
    out, wide = shape or (draw(sides), draw(sides))
    w, dtype = normal(draw(seeds), out, wide), draw(dtypes)
    kind = draw(st.sampled_from(["dense", "low_rank", "sparse", "nm", "quantised"]))
    if kind == "low_rank":
        r = draw(st.integers(1, 5))
        return LowRank.of(normal(draw(seeds), out, r), normal(draw(seeds), r, wide), dtype)
    if kind == "sparse":
        return Sparse.of(w, w.abs() > draw(st.floats(0, 3)), dtype)
    runs = [m for m in range(2, wide + 1) if wide % m == 0]
    if kind == "nm" and runs:
        m = draw(st.sampled_from(runs))
        return NM.largest(w, w.abs(), draw(st.integers(1, m)), m, dtype)
    if kind == "quantised":
        return quantised(w, draw(all_bits), draw(st.sampled_from([1, 3, 8, 32, -1])), draw(st.booleans()))[0]
    return Dense(w, dtype)


@st.composite
def terms(draw):
    shape = out, wide = draw(sides), draw(sides)
    join = draw(st.sampled_from(["leaf", "sum", "product", "nested"]))
    if join == "leaf":
        return draw(leaves(shape))
    if join == "sum":
        return Sum([draw(leaves(shape)) for _ in range(draw(st.integers(1, 3)))])
    inner = draw(sides)
    product = Product([draw(leaves((out, inner))), draw(leaves((inner, wide)))])
    return product if join == "product" else Sum([draw(leaves(shape)), product])


# ---------------------------------------------------------------- packing


@quick
@given(seeds, st.integers(0, 30), st.integers(1, 70), st.integers(1, 8))
def test_codes_survive_packing(seed, rows, count, bits):
    codes = torch.randint(0, 2**bits, (rows, count), generator=torch.Generator().manual_seed(seed))
    packed = pack_bits(codes.to(torch.uint8), bits)
    assert packed.dtype == torch.uint8
    assert packed.shape == (rows, math.ceil(count * bits / 8))
    assert packed.is_contiguous()
    assert torch.equal(unpack_bits(packed, bits, count), codes.to(torch.uint8))


@quick
@given(seeds, st.integers(1, 30), all_bits)
def test_the_stream_is_dense_and_little_endian(seed, count, bits):
    codes = torch.randint(0, 2**bits, (1, count), generator=torch.Generator().manual_seed(seed))
    number = sum(int(c) << (i * bits) for i, c in enumerate(codes[0]))
    want = number.to_bytes(math.ceil(count * bits / 8), "little")
    assert bytes(pack_bits(codes.to(torch.uint8), bits)[0].tolist()) == want


def test_mask_has_little_bit_order_and_whole_bytes():
    mask = torch.tensor([[1, 0, 0, 0, 0, 0, 0, 0, 1, 1], [0, 1, 0, 0, 0, 0, 0, 1, 0, 0]]).bool()
    assert pack_mask(mask).tolist() == [[1, 3], [130, 0]]
    assert torch.equal(unpack_mask(pack_mask(mask), 10), mask)


def test_a_code_too_large_is_refused():
    with pytest.raises(ValueError, match="code 8 does not fit into bits=3"):
        pack_bits(torch.tensor([[1, 8]], dtype=torch.uint8), 3)
    with pytest.raises(ValueError, match="bits=9"):
        pack_bits(torch.zeros(1, 1, dtype=torch.uint8), 9)


def test_ranking_is_exact_and_ties_go_to_the_lower_index():
    assert top(torch.ones(2, 5), 2).tolist() == [[True, True, False, False, False]] * 2
    assert top(torch.tensor([1.0, 3.0, 3.0, 2.0, 3.0]), 2).tolist() == [False, True, True, False, False]
    assert int(top(torch.zeros(10_000), 777).sum()) == 777


# ---------------------------------------------------------------- every term


@quick
@given(terms(), seeds)
def test_forward_is_the_dense_weight(term, seed):
    x = normal(seed, 2, 3, term.shape[1])
    want = x.double() @ term.dense().double().T
    scale = float((x.abs() @ term.dense().abs().T).max()) + 1
    assert term.dense().shape == term.shape
    assert term.dense().dtype == torch.float32
    assert float((term(x) - want).abs().max()) <= 1e-4 * scale
    assert term(x.bfloat16()).dtype == torch.bfloat16
    assert term(x.double()).dtype == torch.float64


@quick
@given(terms())
def test_a_written_term_reads_back_exactly(tmp_path, term):
    tensors, meta = term.pack()
    save_file(tensors, tmp_path / "term.safetensors")
    read, same = load_file(tmp_path / "term.safetensors"), json.loads(json.dumps(meta))
    back = unpack(read, same)
    assert type(back) is type(term)
    assert torch.equal(back.dense(), term.dense())
    assert back.shape == term.shape
    assert back.nominal() == term.nominal()
    assert back.pack()[1] == meta
    assert all(torch.equal(t, read[name]) and t.is_contiguous() for name, t in tensors.items())
    assert term.nbytes() == sum(t.numel() * t.element_size() for t in read.values())


@quick
@given(terms())
def test_a_cast_moves_nothing_that_was_accounted(term):
    before, dense = term.nbytes(), term.dense()
    assert term.to(torch.float64).half().nbytes() == before
    assert torch.equal(term.dense(), dense)
    assert not list(term.parameters())


@quick
@given(terms(), st.data())
def test_a_damaged_pack_names_the_tensor(term, data):
    tensors, meta = term.pack()
    name = data.draw(st.sampled_from(sorted(tensors)))
    leaf = name.split(".")[-1]
    with pytest.raises(ValueError, match=f"'{leaf}' is missing"):
        unpack({k: t for k, t in tensors.items() if k != name}, meta)
    with pytest.raises(ValueError, match=f"'{leaf}' has shape"):
        unpack(tensors | {name: tensors[name][None]}, meta)
    with pytest.raises(ValueError, match=f"'{leaf}' has shape"):
        unpack(tensors | {name: tensors[name].double()}, meta)


def test_all_kinds_are_known_and_others_are_not():
    assert {"dense", "low_rank", "sparse", "nm", "quantised", "sum", "product"} <= set(KINDS)
    with pytest.raises(ValueError, match=r"'magic' is unknown; valid: .*dense"):
        unpack({}, {"kind": "magic"})
    with pytest.raises(ValueError, match="dtype 'int8' is unknown"):
        unpack({}, {"kind": "dense", "shape": [1, 1], "dtype": "int8"})


# ---------------------------------------------------------------- what fits

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


def test_named_size_of_what_is_unreachable():
    with pytest.raises(Unreachable, match=r"up: the smallest packing is 66 bytes, the room is 10 bytes"):
        LowRank.fits((11, 22), Room(10), "up")
    with pytest.raises(Unreachable, match=r"up: the smallest packing is 68 bytes, the room is 10 bytes"):
        Quantised.fits((2, 128), Room(10), "up", group=-1, sym=True)


# ---------------------------------------------------------------- knobs that do not go


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


# ---------------------------------------------------------------- what the numbers mean


def test_a_kept_zero_stays_kept():
    w = torch.zeros(2, 8)
    assert Sparse.largest(w, w, Room(2 + 8), "x").nbytes() == 10
    assert NM.largest(w, w, 2, 4, torch.bfloat16).nbytes() == 2 * (8 + 1)


@quick
@given(sides, sides, seeds, dtypes)
def test_layer_scope_keeps_the_most_mass(out, wide, seed, dtype):
    w = normal(seed, out, wide)
    room = Room(out * packed_width(wide, 1) + dtype.itemsize * (out * wide // 2), None, dtype)
    whole = Sparse.largest(w, w.abs(), room, "x", scope="layer")
    rows = Sparse.largest(w, w.abs(), room, "x", scope="row")
    assert float(whole.dense().norm()) >= float(rows.dense().norm())
    kept = unpack_mask(whole.mask, wide)
    assert torch.equal(whole.dense(), torch.where(kept, w, 0).to(dtype).float())


@quick
@given(sides, sides, seeds, all_bits, st.sampled_from([1, 7, 16, -1]), st.booleans())
def test_packed_codes_are_the_rounded_weight_bit_for_bit(out, wide, seed, bits, group, sym):
    term, want = quantised(normal(seed, out, wide), bits, group, sym)
    assert torch.equal(term.dense(), want)
    assert term.nbytes() == Quantised.size((out, wide), bits, group, sym)
    assert term.nominal() == bits / 16


@quick
@given(seeds, all_bits, st.booleans(), st.floats(-9, 4))
def test_rounding_is_within_half_a_step(seed, bits, sym, exponent):
    w = normal(seed, 5, 32) * 10**exponent
    scale, zero = grid(w, bits, sym)
    assert scale.dtype == torch.float16
    assert bool((scale > 0).all() and scale.isfinite().all())
    error = (value_of(round_to(w, scale, zero, bits), scale, zero) - w).abs()
    step = scale.float()[:, None]
    clipped = step if sym else step * 0.5 + w.abs() * 2**-10 + 2.0**-24 * 2**bits
    assert bool((error <= clipped * 1.001 + (w.abs().amax(1, True) * 2**-10 + 2.0**-24 * 2**bits)).all())


@pytest.mark.parametrize("sym", [False, True])
@pytest.mark.parametrize("bits", range(2, 9))
def test_zeros_and_extremes_round_to_something_finite(bits, sym):
    w = torch.tensor([[0.0] * 4, [1e-12, 0, -1e-12, 0], [1e9, -1e9, 0, 1], [1, 2, 3, 4], [-1, -2, -3, -4]])
    scale, zero = grid(w, bits, sym)
    value = value_of(round_to(w, scale, zero, bits), scale, zero)
    assert bool(value.isfinite().all())
    assert value[0].tolist() == [0] * 4
    assert float(value[1].abs().max()) <= 2.0**-23
    assert bool((value[:, 2:3] == 0)[[0, 1, 2]].all())


def test_joins_count_what_their_terms_keep():
    w, b, a = normal(1, 6, 8), normal(2, 6, 2), normal(3, 2, 8)
    factors = LowRank.of(b, a, torch.bfloat16)
    product = Product([Dense(b, torch.bfloat16), Dense(a, torch.bfloat16)])
    assert product.nominal() == factors.nominal() == 2 * 14 / 48
    assert torch.equal(product.dense(), factors.dense())
    whole = Sum([NM.largest(w, w.abs(), 2, 4, torch.bfloat16), factors])
    assert whole.nominal() == pytest.approx(0.5 + 28 / 48)
    assert whole.nbytes() == sum(t.nbytes() for t in whole.terms)
    assert whole.simulated
    assert not product.simulated
    with pytest.raises(ValueError, match=r"term 1: packed tensor 'a' is missing"):
        unpack({k: t for k, t in whole.pack()[0].items() if k != "1.a"}, whole.pack()[1])


def test_a_term_owns_its_memory():
    w = normal(0, 4, 8)
    term, kept = Dense(w, torch.float32), w.clone()
    w.zero_()
    assert torch.equal(term.dense(), kept)
    assert Dense.of(kept, Room(64, None, torch.float16)).nbytes() == 64
