"""NormalFloat: bitsandbytes' grid, scales against plain loops, bytes by formula, what fits, bad grids."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from term_cases import normal, normal_grids, quick, seeds, sides

from crunchmark.budget import Room, Unreachable
from crunchmark.normal import BITS, NormalGrid, levels, to_normal
from crunchmark.terms import NormalFloat, unpack
from crunchmark.terms.normal_float import GRIDS

NF4 = (  # bitsandbytes.functional.get_4bit_type("nf4")
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941),
    *(0.7229568362236023, 1.0),
)


def test_four_bits_are_those_of_bitsandbytes():
    torch.testing.assert_close(levels(4), torch.tensor(NF4), rtol=0, atol=1e-6)


@pytest.mark.parametrize("bits", BITS)
def test_levels_hold_zero_and_both_ends(bits):
    found = levels(bits)
    assert len(found) == 2**bits
    assert bool((found.diff() > 0).all())
    assert (float(found[0]), float(found[-1])) == (-1.0, 1.0)
    assert int((found == 0).sum()) == 1
    assert int((found > 0).sum()) == 2 ** (bits - 1)  # one more than below zero


def by_hand(w, grid):
    """Codes and values by loops over blocks and runs, in the paper's words."""
    flat, known = w.flatten().tolist(), levels(grid.bits).tolist()
    blocks = [flat[i : i + grid.block] for i in range(0, len(flat), grid.block)]
    peaks = [max(abs(v) for v in block) for block in blocks]
    least, most, scales = min(peaks), 2**grid.scale_bits - 1, []
    for i in range(0, len(peaks), grid.run):
        run = [p - least for p in peaks[i : i + grid.run]]
        top = float(torch.tensor(max(run)).bfloat16())
        scales += [min(most, round(p / top * most)) * top / most + least if top else least for p in run]
    values = []
    for block, scale in zip(blocks, scales, strict=True):
        values += [min((abs(scale * k - v), scale * k) for k in known)[1] for v in block]
    return torch.tensor(values).view(w.shape)


@pytest.mark.parametrize("shape", [(7, 13), (4, 32), (1, 5), (9, 1)])
@pytest.mark.parametrize("grid", [(2, 2, 16, 4), (3, 4, 8, 3), (4, 8, 64, 256), (8, 3, 5, 2)], ids=str)
def test_as_in_plain_loops(grid, shape):
    w = normal(3, *shape)
    term = NormalFloat.of(shape, to_normal(w, NormalGrid(*grid)))
    torch.testing.assert_close(term.dense(), by_hand(w, NormalGrid(*grid)), rtol=1e-5, atol=1e-6)


@quick
@given(sides, sides, normal_grids, seeds)
def test_bytes_are_the_formula(out, wide, grid, seed):
    """b + b0 / B0 + b1 / (B0 B1) bits a weight and four bytes, each part in whole bytes."""
    term = NormalFloat.of((out, wide), to_normal(normal(seed, out, wide), grid))
    weights = out * wide
    blocks = math.ceil(weights / grid.block)
    runs = math.ceil(blocks / grid.run)
    want = math.ceil(weights * grid.bits / 8) + math.ceil(blocks * grid.scale_bits / 8) + 2 * runs + 4
    packed, meta = term.pack()
    assert sum(t.numel() * t.element_size() for t in packed.values()) == want
    assert term.nbytes() == NormalFloat.size((out, wide), grid) == want
    again = unpack(packed, meta)
    assert torch.equal(again.dense(), term.dense())
    assert (again.setting, again.nominal()) == (term.setting, term.nominal())


def test_bits_of_qlora_and_of_whole_blocks():
    term = NormalFloat.of((64, 512), to_normal(normal(1, 64, 512), NormalGrid(4, 8, 64, 256)))
    assert 16 * term.nominal() == 4 + 8 / 64 + 16 / (64 * 256)
    assert 8 * (term.nbytes() - 4) == 16 * term.nominal() * 64 * 512


@pytest.mark.slow
def test_grids_are_those_that_pay():
    """Recomputed on normal weights: no smaller grid has less than 2 % more error."""
    w, made = normal(0, 2**19), []
    for grid in itertools.product(BITS, BITS, (16, 32, 64), (16, 64, 256)):
        found = NormalGrid(*grid)
        size = NormalFloat.size((2**10, 2**9), found)
        made.append((size, float((w - to_normal(w, found).value()).square().mean()), found))
    kept, least = [], math.inf
    for _, error, grid in sorted(made):
        if error < 0.98 * least:
            kept.insert(0, grid)
            least = error
    assert kept == list(GRIDS)


@quick
@given(sides, sides, st.integers(0, 4000), st.integers(0, 300))
def test_the_first_that_fits_beside_what_is_stored_with_it(out, wide, nbytes, extra):
    room, sizes = Room(nbytes), [NormalFloat.size((out, wide), grid) + extra for grid in GRIDS]
    known = NormalFloat.sizes((out, wide), room, beside=lambda _: extra)
    assert known == sorted(set(known))
    assert known[0] == min(sizes)
    if min(sizes) > nbytes:
        with pytest.raises(Unreachable) as e:
            NormalFloat.fits((out, wide), room, "x", beside=lambda _: extra)
        assert e.value.needs == min(sizes)
        return
    grid = NormalFloat.fits((out, wide), room, "x", beside=lambda _: extra)
    at = GRIDS.index(grid)
    assert sizes[at] <= nbytes
    assert all(size > nbytes for size in sizes[:at])
    assert max(size for size in known if size <= nbytes) == sizes[at]


def test_zero_and_extreme_weights():
    grid = NormalGrid(3, 4, 16, 4)
    for size in (1e-30, 1e-6, 1e6, 1e30):
        w = normal(2, 8, 32).double().mul(size).float()
        found = to_normal(w, grid).value().view_as(w)
        assert torch.isfinite(found).all()
        assert float((found - w).double().norm() / w.double().norm()) < 0.3
    w = normal(2, 8, 32)
    w[3], w[5, :16] = 0, 0
    found = to_normal(w, grid).value().view_as(w)
    assert float(found[3].abs().max()) == float(found[5, :16].abs().max()) == 0
    assert not to_normal(torch.zeros(8, 32), grid).value().any()


@pytest.mark.parametrize(
    ("name", "value"), [("bits", 5), ("bits", 1), ("scale_bits", 16), ("block", 0), ("run", 0), ("run", 1.5)]
)
def test_a_grid_that_is_none_is_refused(name, value):
    term = NormalFloat.of((8, 32), to_normal(normal(2, 8, 32), NormalGrid(4, 8, 16, 4)))
    packed, meta = term.pack()
    with pytest.raises(ValueError, match=f"{name}={value} is out of range; valid: "):
        unpack(packed, meta | {name: value})


@pytest.mark.parametrize("name", ["codes", "scale", "top", "offset"])
def test_a_tensor_of_another_shape_is_refused(name):
    packed, meta = NormalFloat.of((8, 32), to_normal(normal(2, 8, 32), NormalGrid(4, 8, 16, 4))).pack()
    with pytest.raises(ValueError, match=f"packed tensor '{name}' has shape"):
        unpack(packed | {name: torch.cat([packed[name]] * 2)}, meta)
    with pytest.raises(ValueError, match=f"packed tensor '{name}' is missing"):
        unpack({k: t for k, t in packed.items() if k != name}, meta)
