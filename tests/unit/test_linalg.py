"""Damping ladders are climbed and recorded; bases are orthonormal and ordered."""

import pytest
import torch
from method_recipe import normal

from crunchmark import linalg
from crunchmark.linalg import FOOT, LADDER, calibrated_error, damped_inverse, principal, spectrum


def positive(seed=0, n=24):
    x = normal(seed, 3 * n, n, dtype=torch.float64)
    return x.T @ x


def with_lowest(value):
    """Unit mean diagonal, one eigenvalue at `value`."""
    q, _ = torch.linalg.qr(normal(1, 10, 10, dtype=torch.float64))
    values = torch.full((10,), (10 - value) / 9, dtype=torch.float64)
    values[0] = value
    return q * values @ q.T


@pytest.mark.parametrize("descending", [False, True])
def test_factor_of_the_inverse(descending):
    gram = positive()
    found = damped_inverse(gram, 0.01, descending)
    damped = gram + 0.01 * gram.diagonal().mean() * torch.eye(24, dtype=torch.float64)
    order = found.order
    want = torch.linalg.inv(damped[order][:, order])
    torch.testing.assert_close((found.upper.T @ found.upper).double(), want, rtol=1e-4, atol=1e-7)
    assert torch.equal(found.upper, found.upper.triu())
    assert found.damping == 0.01
    assert not found.dead.any()
    diag = gram.diagonal()[order]
    assert bool((diag[:-1] >= diag[1:]).all()) == descending


def test_eliminating_a_column_is_the_next_rows_problem():
    """U_ii^2 is the first entry of the inverse of what is left from column i on."""
    gram = positive(2)
    found = damped_inverse(gram, 0.01)
    damped = gram + 0.01 * gram.diagonal().mean() * torch.eye(24, dtype=torch.float64)
    for i in (0, 7, 23):
        left = torch.linalg.inv(damped[i:, i:])[0, 0]
        torch.testing.assert_close(found.upper[i, i].double().square(), left, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("lowest", "rung"), [(0.1, 0), (-0.005, 0), (-0.05, 1), (-0.5, 2), (-5.0, 3)])
def test_the_ladder_is_climbed_and_recorded(lowest, rung):
    found = damped_inverse(with_lowest(lowest), 0.01)
    assert found.damping == LADDER[rung] * 0.01
    assert torch.isfinite(found.upper).all()


@pytest.mark.parametrize("damp", [0.0, 1e-9])
def test_the_ladder_is_climbed_from_next_to_nothing(damp):
    x = normal(3, 5, 24, dtype=torch.float64)
    assert damped_inverse(positive(), damp).damping == damp
    found = damped_inverse((x.float().T @ x.float()).double(), damp)  # of rank 5, as the walker has it
    assert found.damping == LADDER[1] * FOOT
    assert torch.isfinite(found.upper).all()
    with pytest.raises(ValueError, match=r"indefinite with damping 0\.1 of its mean diagonal"):
        damped_inverse(with_lowest(-1.0), damp)


def test_the_ladder_ends():
    with pytest.raises(
        ValueError, match=r"indefinite with damping 10 of its mean diagonal; valid: a positive"
    ):
        damped_inverse(with_lowest(-20.0), 0.01)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_not_finite(bad):
    gram = positive()
    gram[3, 3] = bad
    with pytest.raises(ValueError, match="gram holds nan or inf; valid: finite values"):
        damped_inverse(gram, 0.01)


def test_dead_channels_are_named_and_left_alone():
    gram = positive()
    gram[[4, 9]] = 0
    gram[:, [4, 9]] = 0
    found = damped_inverse(gram, 0.01)
    assert found.dead.nonzero().flatten().tolist() == [4, 9]
    assert found.notes == {"damping": 0.01, "dead": 2}
    off = found.upper.clone().fill_diagonal_(0)
    assert float(off[[4, 9]].abs().max()) == float(off[:, [4, 9]].abs().max()) == 0
    everything = damped_inverse(torch.zeros(5, 5, dtype=torch.float64), 0.01)
    assert bool(everything.dead.all())


def test_rank_deficient():
    x = normal(3, 5, 24, dtype=torch.float64)
    found = damped_inverse(x.T @ x, 0.01)
    assert found.damping == 0.01
    assert torch.isfinite(found.upper).all()


def test_the_gram_is_not_changed():
    gram = positive()
    before = gram.clone()
    damped_inverse(gram, 0.01, descending=True)
    spectrum(normal(4, 8, 24), gram)
    principal(gram)
    assert torch.equal(gram, before)


def test_principal():
    gram = positive()
    vectors, values = principal(gram)
    torch.testing.assert_close(vectors * values @ vectors.T, gram, rtol=0, atol=1e-9)
    assert torch.equal(values, values.sort(descending=True).values)
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    assert bool((largest > 0).all())


@pytest.mark.parametrize("shape", [(8, 24), (24, 24), (40, 24)], ids=str)
def test_spectrum_energies_are_squared_singular_values(shape):
    w, gram = normal(5, *shape), positive(6)
    root = torch.linalg.cholesky(gram)
    for c, m in ((None, w.double()), (gram, w.double() @ root)):
        found = spectrum(w, c)
        want = torch.linalg.svdvals(m).square()
        torch.testing.assert_close(found.energy[: len(want)], want, rtol=1e-8, atol=1e-8 * float(want[0]))


@pytest.mark.parametrize("last", [1e-2, 1e-5])
def test_a_tall_basis_is_orthonormal_however_far_its_values_are_apart(last):
    left, _ = torch.linalg.qr(normal(8, 60, 24, dtype=torch.float64))
    right, _ = torch.linalg.qr(left[:24])
    w = (left * last ** torch.linspace(0, 1, 24).double() @ right).float()  # of condition 1 / last
    found = spectrum(w)
    assert (found.energy[-1] > linalg.CLOSE * found.energy[0]) == (last > 1e-3)  # both ways are taken
    torch.testing.assert_close(found.basis.T @ found.basis, torch.eye(24).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(found.energy, torch.linalg.svdvals(w.double()).square(), rtol=1e-8, atol=1e-15)


def test_calibrated_error():
    w, gram = normal(7, 6, 24), positive()
    assert calibrated_error(w, w, gram) == 0
    assert calibrated_error(w, torch.zeros_like(w), gram) == pytest.approx(1)
    assert calibrated_error(w, 0.5 * w, gram) == pytest.approx(0.25)
    assert calibrated_error(torch.zeros_like(w), torch.zeros_like(w), gram) == 0
