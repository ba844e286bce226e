"""Terms weigh what they write, read back exactly, and multiply like their dense weight."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from term_cases import all_bits, bits_per_weight, dtypes, normal, quantised, quick, seeds, sides, terms

from crunchmark.budget import Room
from crunchmark.rounding import grid, round_to, value_of
from crunchmark.terms import KINDS, NM, Dense, LowRank, Product, Quantised, Sparse, Sum, unpack, unpack_mask
from crunchmark.terms.packing import packed_width


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
    assert {"dense", "low_rank", "sparse", "nm", "quantised", "tensor_train", "codebook"} <= set(KINDS)
    assert {"sparse_quantised", "outliers", "bilevel", "table", "segments", "sum", "product"} <= set(KINDS)
    with pytest.raises(ValueError, match=r"'magic' is unknown; valid: .*dense"):
        unpack({}, {"kind": "magic"})
    with pytest.raises(ValueError, match="dtype 'int8' is unknown"):
        unpack({}, {"kind": "dense", "shape": [1, 1], "dtype": "int8"})


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
@given(sides, sides, seeds, all_bits, st.sampled_from([1, 7, 16, -1]))
def test_real_zeros_are_kept_and_counted(out, wide, seed, bits, group):
    term, want = quantised(normal(seed, out, wide), bits, group, False, real=True)
    groups = 1 if group == -1 else math.ceil(wide / group)
    assert torch.equal(term.dense(), want)
    assert term.nbytes() == Quantised.size((out, wide), bits, group, False, real=True)
    assert term.nbytes() == out * (math.ceil(wide * bits / 8) + 4 * groups)
    assert term.pack()[1]["real"] is True
    assert "real" not in quantised(normal(seed, out, wide), bits, group, False)[0].pack()[1]


@pytest.mark.parametrize(
    ("bits", "group", "sym", "want"),
    [
        (4, 128, False, 4.15625),
        (3, 128, False, 3.1484375),
        (2, 32, False, 2.5625),
        (8, 64, False, 8.375),
        (4, 128, True, 4.125),
        (3, 64, True, 3.25),
        (8, -1, True, 8.00390625),
    ],
)
def test_bits_per_weight_of_integers(bits, group, sym, want):
    """b + (16 + b) / g with a zero of b bits per group, b + 16 / g with the symmetric one; rows of 4096."""
    assert bits_per_weight(quantised(normal(0, 2, 4096), bits, group, sym)[0]) == want


@pytest.mark.parametrize(
    ("n", "m", "want"),
    [(2, 4, 9.0), (4, 8, 9.5), (1, 4, 4.5), (1, 8, 2.375), (1, 16, 1.25), (1, 32, 0.65625)],
)
def test_bits_per_weight_of_n_in_m(n, m, want):
    """n / m (16 + ceil(log2 m)): values in 16 bits and their positions; rows of 4096."""
    w = normal(0, 2, 4096)
    assert bits_per_weight(NM.largest(w, w.abs(), n, m, torch.bfloat16)) == want


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
    w = torch.tensor([[0.0] * 4, [1e-12, 0, -1e-12, 0], [9e4, -9e4, 0, 1], [1, 2, 3, 4], [-1, -2, -3, -4]])
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
