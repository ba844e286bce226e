"""A partial solution of a spectrum misses no more than it says, or the whole one is taken."""

import pytest
import torch
from method_recipe import normal

from crunchmark import linalg
from crunchmark.linalg import LARGE, MISSED, leading, spectrum


def decaying(seed, out, wide, power=0.5):
    """A weight (out, wide) with singular values i^-power."""
    q, _ = torch.linalg.qr(normal(seed, out, min(out, wide), dtype=torch.float64))
    p, _ = torch.linalg.qr(normal(seed + 1, wide, min(out, wide), dtype=torch.float64))
    return (q * torch.arange(1, min(out, wide) + 1, dtype=torch.float64) ** -power @ p.T).float()


def gram_of(seed, wide):
    x = normal(seed, 2 * wide, wide, dtype=torch.float64) * (0.5 * normal(seed + 1, wide)).exp()
    return x.T @ x


def energies(weight, gram, basis):
    """Energy in the basis, and in the best one of its rank, as shares of all."""
    w = weight.double()
    c = torch.eye(w.shape[1], dtype=w.dtype) if gram is None else gram.diag() if gram.ndim == 1 else gram
    values = torch.linalg.eigvalsh(w @ c @ w.T).flip(0)
    got = ((w @ c @ w.T @ basis) * basis).sum()
    return float(got / values.sum()), float(values[: basis.shape[1]].sum() / values.sum())


CASES = [((256, 300), "full"), ((300, 256), "full"), ((300, 256), "diagonal"), ((300, 256), "identity")]


@pytest.mark.parametrize(("shape", "kind"), CASES, ids=str)
def test_a_partial_solution_misses_no_more_than_its_bound(shape, kind):
    weight, gram = decaying(1, *shape), gram_of(2, shape[1])
    c = {"identity": None, "diagonal": gram.diagonal().clone(), "full": gram}[kind]
    found = leading(weight, c, 6)
    assert found.solver == "partial"
    assert found.basis.shape == (shape[0], 6)
    got, best = energies(weight, c, found.basis)
    assert best * (1 - 1e-9) - found.missed <= got <= best * (1 + 1e-9)
    assert 0 <= found.missed <= MISSED
    eye = torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(found.basis.T @ found.basis, eye, rtol=0, atol=1e-9)


def test_what_can_not_be_proven_is_solved_whole(monkeypatch):
    weight, gram = decaying(3, 256, 256), gram_of(4, 256)
    monkeypatch.setattr(linalg, "ROUNDS", 1)
    monkeypatch.setattr(linalg, "STEPS", 0)  # a random basis proves nothing
    found = leading(weight, gram, 6)
    assert (found.solver, found.missed) == ("full", 0.0)
    assert torch.equal(found.basis, spectrum(weight, gram).basis[:, :6])


def test_a_bundle_of_like_directions_falls_back():
    """Forty nearly equal directions hold all the energy: no few iterations tell six of them apart."""
    q, _ = torch.linalg.qr(normal(5, 256, 256, dtype=torch.float64))
    values = torch.zeros(256, dtype=torch.float64)
    values[:40] = 1 - 0.005 * torch.arange(40)
    weight = (q * values.sqrt()).float()
    found = leading(weight, None, 6)
    got, best = energies(weight, None, found.basis)
    assert got >= best * (1 - 1e-9) - found.missed
    assert found.solver == ("full" if found.missed == 0 else "partial")


@pytest.mark.parametrize(("side", "rank"), [(LARGE - 1, 1), (LARGE, 25)])
def test_small_weights_and_many_directions_are_solved_whole(side, rank):
    assert leading(decaying(6, side, side), None, rank).solver == "full"


def test_a_singular_gram_of_a_tall_weight_is_solved_whole_or_proven():
    weight, x = decaying(7, 300, 256), normal(8, 40, 256, dtype=torch.float64)
    found = leading(weight, x.T @ x, 6)
    got, best = energies(weight, x.T @ x, found.basis)
    assert torch.isfinite(found.basis).all()
    assert got >= best * (1 - 1e-6) - found.missed


def test_nothing_to_find():
    found = leading(torch.zeros(256, 256), None, 4)
    assert found.solver == "full"
    assert torch.isfinite(found.basis).all()
