"""Codes and masks survive packing, in the bit order that the docs state."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from term_cases import all_bits, quick, seeds

from crunchmark.terms import pack_bits, pack_mask, top, unpack_bits, unpack_mask


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
