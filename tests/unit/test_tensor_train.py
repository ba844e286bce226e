"""Chains of tensors lose what the sweep dropped, take the largest bond that fits, run from their cores."""

import math
from itertools import product

import pytest
import torch
from method_recipe import normal
from term_cases import quick, seeds, sides

from crunchmark.budget import Room, Unreachable
from crunchmark.interface import Layer
from crunchmark.linalg import spectrum
from crunchmark.mpo import Chain, factors
from crunchmark.terms import TensorTrain, unpack
from methods.compactifai import CompactifAI
from methods.svd import SVD

from hypothesis import given, strategies as st  # isort: skip

W = normal(0, 24, 36)


def swept(weight, chain, bonds):
    return chain.sweep(weight, bonds, spectrum(chain.unfolded(weight)))


def rebuilt(cores):
    """The weight (out, in) of cores, by the definition."""
    rows, cols = [c.shape[1] for c in cores], [c.shape[2] for c in cores]
    found = torch.zeros(math.prod(rows), math.prod(cols), dtype=torch.float64)
    for o, js in enumerate(product(*map(range, rows))):
        for i, ks in enumerate(product(*map(range, cols))):
            found[o, i] = torch.linalg.multi_dot([c[:, j, k] for c, j, k in zip(cores, js, ks, strict=True)])
    return found


def lost(weight, cores):
    return float((weight.double() - rebuilt(cores)).square().sum())


@pytest.mark.parametrize("bond", [1, 5, 23])
def test_two_cores_lose_the_tail_of_the_rearranged_spectrum(bond):
    chain = Chain.balanced(W.shape, 2)
    values = torch.linalg.svdvals(chain.unfolded(W.double()))
    assert lost(W, swept(W, chain, [bond])) == pytest.approx(float(values[bond:].square().sum()), rel=1e-9)


def test_the_layout_is_a_sum_of_kronecker_products():
    a, b = normal(1, 4, 6), normal(2, 6, 6)
    weight = torch.kron(a, b)
    assert lost(weight, swept(weight, Chain.balanced(weight.shape, 2), [1])) < 1e-9
    assert torch.linalg.matrix_rank(weight) == 4 * 6


def test_the_degenerate_split_is_svd():
    chain = Chain((24, 1), (1, 36))
    assert torch.equal(chain.unfolded(W), W)
    found = rebuilt(swept(W, chain, [7]))
    basis = spectrum(W).basis[:, :7]
    torch.testing.assert_close(found, basis @ (basis.T @ W.double()), rtol=0, atol=1e-9)
    room = Room(0, 7 * (24 + 36) / W.numel(), torch.float32)
    torch.testing.assert_close(SVD().compress(Layer("x", W), room).dense().double(), found, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bonds", [(1, 1), (4, 4), (8, 3), (2, 6)])
def test_three_cores_lose_the_sum_of_what_the_sweep_dropped(bonds):
    chain = Chain.balanced(W.shape, 3)
    rest, left, tails = chain.unfolded(W.double()), 1, 0.0
    for k, bond in enumerate(bonds):
        _, s, v = torch.linalg.svd(rest.reshape(left * chain.sites[k], -1), full_matrices=False)
        tails += float(s[bond:].square().sum())
        rest, left = s[:bond, None] * v[:bond], bond
    assert lost(W, swept(W, chain, bonds)) == pytest.approx(tails, rel=1e-9)


@pytest.mark.parametrize("cores", [2, 3])
def test_a_full_chain_is_exact(cores):
    chain = Chain.balanced(W.shape, cores)
    assert lost(W, swept(W, chain, chain.caps)) < 1e-18 * W.numel() ** 2


def test_factors_are_even():
    assert factors(4096, 2) == (64, 64)
    assert factors(11008, 2) == (86, 128)
    assert factors(216, 3) == (6, 6, 6)
    assert factors(13, 2) == (1, 13)
    assert Chain.balanced((3072, 768), 2) == Chain((48, 64), (32, 24))
    assert Chain.balanced((4096, 11008), 2).sites == (8192, 5504)


@quick
@given(sides, sides, st.integers(0, 9000), st.sampled_from([2, 3]))
def test_the_largest_bond_that_fits(out, wide, nbytes, cores):
    chain, room = Chain.balanced((out, wide), cores), Room(nbytes)
    sizes = [2 * chain.count(b) for b in range(1, max(chain.caps) + 2)]
    assert sizes == sorted(sizes)
    if nbytes < sizes[0]:
        with pytest.raises(Unreachable) as caught:
            TensorTrain.fits(chain, room, "x")
        assert caught.value.needs == sizes[0]
        assert caught.value.least == sizes[0] / (2 * out * wide)
        return
    bonds = TensorTrain.fits(chain, room, "x")
    most = max(bonds)
    assert bonds == chain.bonds(most)
    assert sizes[most - 1] <= nbytes
    assert most == max(chain.caps) or sizes[most] > nbytes
    ends = (1, *bonds, 1)
    shapes = zip(ends, chain.rows, chain.cols, ends[1:], strict=False)
    term = TensorTrain.of([normal(k, *shape) for k, shape in enumerate(shapes)], torch.bfloat16)
    assert term.nbytes() == sizes[most - 1]
    assert term.nominal() == term.nbytes() / (2 * out * wide)
    assert TensorTrain.sizes(chain, room) == [s for s in sizes[:-1] if s < 2 * out * wide] + [2 * out * wide]


@quick
@given(seeds, st.sampled_from([2, 3]), st.integers(1, 40), st.integers(0, 5))
def test_both_ways_of_running_it_agree(seed, cores, bond, tokens):
    chain = Chain.balanced((12, 18), cores)
    term = TensorTrain.of(swept(normal(seed, 12, 18), chain, chain.bonds(bond)), torch.float32)
    x, many = normal(seed, tokens, 2, 18), normal(seed, 500, 18)
    torch.testing.assert_close(term(x), x @ term.dense().T, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(term(many), many @ term.dense().T, rtol=1e-4, atol=1e-4)


def test_multiplications_are_counted_and_the_fewer_are_made():
    """By the formula for two cores; a few tokens go core by core, many through the laid-out weight."""
    chain = Chain.balanced((4096, 4096), 2)
    term = TensorTrain.of([torch.zeros(1, 64, 64, 100), torch.zeros(100, 64, 64, 1)], torch.bfloat16)
    per_token, layout = 100 * (64 * 64 * 64 + 64 * 64 * 64), 4096 * 4096 * 100
    assert term.shape == (4096, 4096) == (math.prod(chain.rows), math.prod(chain.cols))
    for tokens in (1, 1000):
        assert term.macs(tokens) == (tokens * per_token, layout + tokens * 4096 * 4096)
    assert term.macs(1)[0] < term.macs(1)[1]
    assert term.macs(1000)[0] > term.macs(1000)[1]
    assert min(term.macs(1)) > 4096 * 4096  # more than the dense layer, with 5 % of its parameters


def test_cores_that_are_no_chain_are_refused():
    for shapes in [[(1, 2, 3, 2), (3, 2, 2, 1)], [(2, 2, 2, 1)], [(1, 2, 2)], []]:
        with pytest.raises(ValueError, match="no chain from bond 1 to bond 1"):
            TensorTrain.of([torch.zeros(s) for s in shapes], torch.float32)
    tensors, meta = CompactifAI(cores=3).compress(Layer("x", W), Room(600)).pack()
    assert sorted(tensors) == ["core0", "core1", "core2"]
    assert torch.equal(
        unpack(tensors, meta).dense(), CompactifAI(cores=3).compress(Layer("x", W), Room(600)).dense()
    )
    with pytest.raises(ValueError, match="'core1' is missing"):
        unpack({k: t for k, t in tensors.items() if k != "core1"}, meta)


def test_knobs_are_checked_and_told():
    with pytest.raises(ValueError, match=r"method.cores=4 is unknown; valid: 2, 3"):
        CompactifAI(cores=4)
    with pytest.raises(ValueError, match=r"method.exclude='downs' is unknown; valid: .*down"):
        CompactifAI(exclude=["downs"])
    with pytest.raises(ValueError, match=r"method.exclude='down' is no list; valid: as \[down\]"):
        CompactifAI(exclude="down")
    assert CompactifAI().compress(Layer("x", W), Room(800)).setting == "2 cores"


@pytest.mark.parametrize("shape", [(4096, 11008), (11008, 4096), (8192, 28672)], ids=str)
@pytest.mark.parametrize("cores", [2, 3])
def test_a_share_that_a_plan_gives_is_the_bond_it_came_from(shape, cores):
    """Shares of large layers: 1e8 numbers times a share are not whole any more."""
    chain = Chain.balanced(shape, cores)
    full = 2 * math.prod(shape)
    sizes = TensorTrain.sizes(chain, Room(0, 0.5))[:-1]
    for bond, size in list(enumerate(sizes, 1))[:: max(1, len(sizes) // 200)]:
        assert TensorTrain.fits(chain, Room(size, size / full), "x") == chain.bonds(bond)
