"""Magnitude, Wanda and SparseGPT: counts, optimal masks, and the orderings the papers claim."""

import math
from itertools import combinations, pairwise

import pytest
import torch
from method_recipe import error, inputs, keep, layer, layer_of, normal, with_gram

from crunchmark.budget import Room
from crunchmark.linalg import calibrated_error, damped_inverse
from crunchmark.obs import sweep
from crunchmark.stats import Gram, InputNorm
from crunchmark.terms import NM, Sparse, unpack_mask
from methods.gptq import GPTQ
from methods.magnitude import Magnitude
from methods.sparsegpt import SparseGPT
from methods.wanda import Wanda

METHODS = {"magnitude": Magnitude, "wanda": Wanda, "sparsegpt": SparseGPT}
methods = pytest.mark.parametrize("kind", METHODS.values(), ids=METHODS)


def kept(term):
    """The mask (out, in)."""
    if isinstance(term, Sparse):
        return unpack_mask(term.mask, term.in_features)
    return term.dense() != 0


@methods
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.7])
def test_exact_count(kind, dtype, p):
    of = layer(1, 37, 50)
    gone = ~kept(kind().compress(of, keep(1 - p, dtype)))
    if kind is Wanda:
        assert gone.sum(1).tolist() == [math.floor(p * 50 + 1e-9)] * 37
    else:
        assert int(gone.sum()) == math.floor(p * 37 * 50 + 1e-9)


@methods
def test_bytes_are_used_up(kind):
    of = layer(1, 37, 50)
    room = Room(2000)
    spare = room.nbytes - kind().compress(of, room).nbytes()
    assert 0 <= spare < (37 * 2 if kind is Wanda else 2)  # equally many in every row


@methods
def test_ties_do_not_change_the_count(kind):
    of = layer_of(torch.ones(8, 32), inputs(2, 32))
    assert int((~kept(kind().compress(of, keep(0.5)))).sum()) == 128


@pytest.mark.parametrize("kind", [Magnitude, Wanda])
def test_masks_are_nested(kind):
    of = layer(3)
    masks = [kept(kind().compress(of, keep(share))) for share in (0.2, 0.4, 0.6, 0.8)]
    assert all(not (less & ~more).any() for less, more in pairwise(masks))


def test_magnitude_keeps_the_most_mass():
    of = layer(4, 6, 10)
    mass = kept(Magnitude().compress(of, keep(0.5))) * of.weight.square()
    best = of.weight.square().flatten().sort(descending=True).values[:30].sum()
    torch.testing.assert_close(mass.sum(), best)
    for other in (Wanda(), SparseGPT()):
        mask = kept(other.compress(of, keep(0.5)))
        assert float((mask * of.weight.square()).sum()) <= float(mass.sum()) * (1 + 1e-6)


def test_wanda_is_the_best_mask_of_every_row():
    of = layer(5, 6, 8)
    norm = of[InputNorm].value.double().square()
    mask = kept(Wanda().compress(of, keep(0.5)))
    cost = of.weight.double().square() * norm
    for row, marks in zip(cost, mask, strict=True):
        every = [float(row[list(gone)].sum()) for gone in combinations(range(8), 4)]
        assert len(every) == 70
        assert float(row[~marks].sum()) == pytest.approx(min(every))


def test_input_norms_are_the_diagonal():
    x = inputs(6)
    norm, gram = InputNorm.zero(128), Gram.zero(128)
    norm.update(x)
    gram.update(x)
    torch.testing.assert_close(norm.value.double().square(), gram.value.diagonal(), rtol=1e-5, atol=0)


def test_wanda_moves_with_the_scale_of_a_channel_and_is_magnitude_without():
    of = layer(7)
    mask = kept(Wanda().compress(of, keep(0.5)))
    scale = 2.0 ** normal(8, 128).round()
    moved = layer_of(of.weight * scale, inputs(7) / scale)
    assert torch.equal(kept(Wanda().compress(moved, keep(0.5))), mask)
    white = with_gram(of, 3.0 * torch.eye(128))
    rows = kept(Wanda().compress(white, keep(0.5)))
    lowest = of.weight.abs().masked_fill(~rows, torch.inf).amin(1)
    highest = of.weight.abs().masked_fill(rows, 0).amax(1)
    assert bool((lowest >= highest).all())
    assert not torch.equal(rows, mask)


@pytest.mark.parametrize("block", [16, 128])
def test_sparsegpt_on_white_inputs_is_magnitude_per_block(block):
    of = with_gram(layer(9), 5.0 * torch.eye(128))
    term = SparseGPT(block=block).compress(of, keep(0.5))
    mask = kept(term)
    assert torch.equal(term.dense()[mask], of.weight[mask])  # nothing to repair
    for w, marks in zip(of.weight.split(block, 1), mask.split(block, 1), strict=True):
        assert int(marks.sum()) == w.numel() // 2
        assert float(w[marks].abs().min()) >= float(w[~marks].abs().max())


@methods
@pytest.mark.parametrize(("run", "n"), [(4, 2), (8, 4), (4, 1), (16, 12)])
def test_every_run_keeps_its_share(kind, run, n):
    of = layer(10)
    term = kind(run=run).compress(of, keep(n / run))
    assert isinstance(term, NM)
    assert (term.n, term.m) == (n, run)
    assert bool(((term.dense() != 0).view(96, -1, run).sum(-1) == n).all())


def fixed(mask):
    def choose(left, d, j):
        return left[:, 0].masked_fill(~mask[:, j], 0.0)

    return choose


def test_a_fixed_mask_is_repaired_the_same_in_any_blocks():
    of = layer(11)
    mask = kept(Wanda().compress(of, keep(0.5)))
    upper = damped_inverse(of[Gram].value, 0.01).upper
    swept = [sweep(of.weight, upper, fixed(mask), block=b) for b in (1, 16, 50, 128, 1000)]
    for other in swept[1:]:
        assert float((other - swept[0]).norm() / swept[0].norm()) < 1e-5


def least_squares(of, mask):
    """The best values under a mask, row by row, in float64."""
    w, gram = of.weight.double(), of[Gram].value
    best = torch.zeros_like(w)
    for row, marks, out in zip(w, mask, best, strict=True):
        out[marks] = torch.linalg.solve(gram[marks][:, marks], gram[marks] @ row)
    return best


def test_sweep_lies_between_least_squares_and_no_repair():
    for seed in range(5):
        of = layer(20 * seed)
        mask = kept(Wanda().compress(of, keep(0.5)))
        swept = sweep(of.weight, damped_inverse(of[Gram].value, 0.01).upper, fixed(mask))
        assert torch.equal(swept != 0, mask)
        best = error(of, least_squares(of, mask))
        assert best <= error(of, swept) * (1 + 1e-6)
        assert error(of, swept) < 0.9 * error(of, of.weight * mask)


def test_one_dropped_column_is_made_up_for_in_closed_form():
    """The first column has all others behind it: the sweep is then the least-squares answer."""
    of = layer(12, 8, 16)
    mask = torch.ones(8, 16, dtype=torch.bool)
    mask[:, 0] = False
    swept = sweep(of.weight, damped_inverse(of[Gram].value, 1e-9).upper, fixed(mask))
    torch.testing.assert_close(swept.double(), least_squares(of, mask), rtol=1e-3, atol=1e-3)


def loss(method, of, share=0.5):
    return calibrated_error(of.weight, method.compress(of, keep(share)).dense(), of[Gram].value)


def test_orderings():
    for seed in range(10):
        of = layer(30 * seed)
        for share in (0.3, 0.5, 0.7):
            found = [loss(m, of, share) for m in (SparseGPT(), Wanda(), Magnitude())]
            assert found == sorted(found)
        patterns = [loss(SparseGPT(run=run), of) for run in (0, 8, 4)]
        assert patterns == sorted(patterns)


def test_dead_channels():
    x = inputs(13)
    x[:, [4, 90]] = 0
    of = layer_of(layer(13).weight, x)
    assert not bool(kept(Wanda().compress(of, keep(0.5)))[:, [4, 90]].any())
    for method in (SparseGPT(), SparseGPT(run=4)):
        found = method.compress(of, keep(0.5)).dense()
        assert torch.isfinite(found).all()
        assert float(found[:, [4, 90]].abs().max()) == 0
        assert loss(method, of) < 1


@pytest.mark.parametrize("method", [SparseGPT(), SparseGPT(run=4)], ids=str)
def test_fewer_tokens_than_inputs(method):
    of = layer(14, tokens=40)
    assert of[Gram].tokens == 40 < 128
    assert loss(method, of) < loss(Wanda(), of)


@pytest.mark.parametrize("method", [SparseGPT(), SparseGPT(run=4), GPTQ()], ids=str)
def test_damping_is_noted_on_the_term(method):
    of = layer(16)
    assert method.compress(of, keep(0.5)).notes == {"damping": 0.01, "dead": 0}
    gram = of[Gram].value - 0.05 * of[Gram].value.diagonal().mean() * torch.eye(128)
    assert float(torch.linalg.eigvalsh(gram)[0]) < 0
    assert method.compress(with_gram(of, gram), keep(0.5)).notes == {"damping": 0.1, "dead": 0}


def test_nan_raises():
    x = inputs(15)
    x[17, 3] = float("nan")
    for kind in (Gram, InputNorm):
        with pytest.raises(ValueError, match="calibration inputs hold nan or inf"):
            kind.zero(128).update(x)
    bad = with_gram(layer(15), torch.full((128, 128), float("nan")))
    with pytest.raises(ValueError, match="gram holds nan or inf"):
        SparseGPT().compress(bad, keep(0.5))
