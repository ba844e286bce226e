"""SVD and SVD-LLM are the optima they claim to be."""

import pytest
import torch
from method_recipe import error, inputs, keep, layer, layer_of, normal, with_gram

from crunchmark.linalg import spectrum
from crunchmark.stats import Gram
from methods.svd import SVD
from methods.svd_llm import SVDLLM

SHAPES = [(96, 128), (128, 128), (160, 96)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def made(method, of, rank):
    out, wide = of.shape
    term = method.compress(of, keep(rank * (out + wide) / (out * wide)))
    assert term.rank == rank
    return term.dense().double()


@shapes
@pytest.mark.parametrize("rank", [1, 10, 40])
def test_svd_loses_the_tail(shape, rank):
    of = layer(1, *shape)
    tail = torch.linalg.svdvals(of.weight.double())[rank:].square().sum()
    lost = (of.weight.double() - made(SVD(), of, rank)).square().sum()
    torch.testing.assert_close(lost, tail, rtol=1e-5, atol=0)
    u = spectrum(of.weight).basis[:, :rank]
    exact = (of.weight.double() - u @ u.T @ of.weight.double()).square().sum()
    torch.testing.assert_close(exact, tail, rtol=1e-9, atol=0)


@shapes
@pytest.mark.parametrize("rank", [1, 10, 40])
def test_svd_llm_loses_the_whitened_tail(shape, rank):
    of = layer(2, *shape)
    w, gram = of.weight.double(), of[Gram].value
    root = torch.linalg.cholesky(gram)
    u, s, v = torch.linalg.svd(w @ root, full_matrices=False)
    tail = float(s[rank:].square().sum())
    assert error(of, made(SVDLLM(), of, rank)) == pytest.approx(tail, rel=1e-4)
    whitened = torch.linalg.solve_triangular(root.T, (u[:, :rank] * s[:rank] @ v[:rank]).T, upper=True).T
    basis = spectrum(of.weight, gram).basis[:, :rank]
    found = basis @ (basis.T @ w)
    assert error(of, found) == pytest.approx(tail, rel=1e-8)
    reference = torch.linalg.solve(root.T, (u[:, :rank] * s[:rank] @ v[:rank]).T).T  # W_r L^-1, both ways
    torch.testing.assert_close(whitened, reference, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found @ root, u[:, :rank] * s[:rank] @ v[:rank], rtol=1e-6, atol=1e-6)


@shapes
def test_energy_is_what_a_direction_saves(shape):
    of = layer(3, *shape)
    for gram in (None, of[Gram].value):
        found = spectrum(of.weight, gram)
        assert torch.equal(found.energy, found.energy.sort(descending=True).values)
        k = found.basis.shape[1]
        eye = torch.eye(k, dtype=torch.float64)
        torch.testing.assert_close(found.basis.T @ found.basis, eye, rtol=0, atol=1e-9)
        c = torch.eye(of.shape[1], dtype=torch.float64) if gram is None else gram
        outputs = of.weight.double() @ c @ of.weight.double().T
        saved = ((outputs @ found.basis) * found.basis).sum(0)
        torch.testing.assert_close(saved, found.energy, rtol=1e-6, atol=1e-8 * float(found.energy[0]))


@pytest.mark.parametrize("method", [SVD(), SVDLLM()], ids=["svd", "svd_llm"])
@shapes
def test_no_perturbation_beats_the_optimum(method, shape):
    of = layer(4, *shape)
    if isinstance(method, SVD):
        of = with_gram(of, torch.eye(shape[1]))  # the error is then the Frobenius norm
    term = method.compress(of, keep(0.3))
    b, a = term.b.double(), term.a.double()
    best = error(of, b @ a)
    for k in range(100):
        size = 10.0 ** -(k % 5 + 1)
        db = normal(k, *b.shape, dtype=torch.float64) * b.norm() / b.numel() ** 0.5
        da = normal(k + 500, *a.shape, dtype=torch.float64) * a.norm() / a.numel() ** 0.5
        assert error(of, (b + size * db) @ (a + size * da)) >= best * (1 - 1e-6)


def test_svd_llm_beats_svd_and_equals_it_on_white_inputs():
    for seed in range(10):
        of = layer(10 * seed)
        assert error(of, made(SVDLLM(), of, 20)) < error(of, made(SVD(), of, 20))
    white = with_gram(of, 7.0 * torch.eye(128))
    torch.testing.assert_close(made(SVDLLM(), white, 20), made(SVD(), white, 20), rtol=0, atol=1e-5)


def test_errors_fall_and_spaces_are_nested():
    of = layer(5)
    lost, spaces = [], []
    for rank in (1, 5, 20, 50):
        term = SVDLLM().compress(of, keep(rank * 224 / (96 * 128)))
        lost.append(error(of, term.dense()))
        spaces.append(term.b)
    assert lost == sorted(lost, reverse=True)
    assert all(torch.equal(spaces[-1][:, : s.shape[1]], s) for s in spaces)


def test_scale_and_order_of_tokens_do_not_matter():
    of, x = layer(6), inputs(6)
    want = made(SVDLLM(), of, 20)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    for other in (3.7 * x, x[order]):
        found = made(SVDLLM(), layer_of(of.weight, other), 20)
        assert float((found - want).norm() / want.norm()) < 1e-4


@pytest.mark.parametrize("method", [SVD(), SVDLLM()], ids=["svd", "svd_llm"])
def test_doing_it_twice_changes_nothing(method):
    of = layer(7)
    once = made(method, of, 15)
    again = with_gram(layer_of(once.float(), inputs(7)), of[Gram].value)
    torch.testing.assert_close(made(method, again, 15), once, rtol=0, atol=1e-4)


@shapes
def test_fewer_tokens_than_inputs_and_a_dead_channel(shape):
    x = inputs(8, shape[1], tokens=shape[1] // 2)
    x[:, 5] = 0
    of = layer_of(layer(8, *shape).weight, x)
    y = of.weight.double() @ x.double().T  # (out, tokens)
    tail = float(torch.linalg.svdvals(y)[20:].square().sum())
    found = made(SVDLLM(), of, 20)
    assert torch.isfinite(found).all()
    assert error(of, found) == pytest.approx(tail, rel=1e-3)


def test_align():
    of = layer(9)
    assert SVD(align=8).compress(of, keep(0.5)).rank == 24  # 27 fit
    assert SVDLLM(align=8).compress(of, keep(0.5)).rank == 24
    assert SVD(align=32).compress(of, keep(0.5)).rank == 27  # below one multiple: what fits
