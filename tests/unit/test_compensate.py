"""Repairs: what they take, what they give back, and that nothing of their rank does better."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_recipe import error, inputs, keep, layer, layer_of, normal, with_gram

from crunchmark.budget import Room, Unreachable, dense_bytes
from crunchmark.calib import Calibration
from crunchmark.interface import Layer
from crunchmark.linalg import spectrum
from crunchmark.maker import Maker, Nothing, around
from crunchmark.shared import Shared
from crunchmark.stats import Gram, InputMean
from crunchmark.terms import Dense, LowRank, Shift, Sum
from methods.afm import AFM
from methods.compensate.eora import EoRA
from methods.compensate.lrec import LREC
from methods.compensate.svd import SVD as ErrorSVD
from methods.int2_1 import INT21
from methods.rtn import RTN
from methods.svd_llm import SVDLLM
from methods.wanda import Wanda

SHAPES = [(96, 128), (128, 128), (160, 96)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
BASES = [Wanda(), RTN(), SVDLLM()]
bases = pytest.mark.parametrize("base", BASES, ids=lambda b: type(b).__name__)
UNDAMPED = EoRA(rank=8, damp=0.0)


def pruned(of, share=0.5):
    return Wanda().compress(of, keep(share))


def frobenius(of, stand_in):
    return float((of.weight.double() - stand_in.double()).square().sum())


def room_of(shape, share, dtype=torch.bfloat16):
    return Room(int(share * dense_bytes(shape)), None, dtype)


def maker(method, repairer):
    return Maker(method, repairer, Calibration(torch.empty(0, 0)), "model", Shared())


@shapes
@bases
def test_eora_leaves_the_tail_of_the_whitened_error(shape, base):
    of = layer(1, *shape)
    term = base.compress(of, keep(0.4))
    lost = of.weight.double() - term.dense().double()
    root = torch.linalg.cholesky(of[Gram].value)
    tail = float(torch.linalg.svdvals(lost @ root)[8:].square().sum())
    both = UNDAMPED.repair(of, term, keep(0.4))
    assert isinstance(both, Sum)
    assert both.terms[0] is term
    assert error(of, both.dense()) == pytest.approx(tail, rel=1e-4)


@shapes
def test_the_repair_is_the_projection_in_full_precision(shape):
    of = layer(2, *shape)
    lost = of.weight.double() - pruned(of).dense().double()
    root = torch.linalg.cholesky(of[Gram].value)
    basis = spectrum(lost, of[Gram].value).basis[:, :8]
    tail = float(torch.linalg.svdvals(lost @ root)[8:].square().sum())
    assert error(of, of.weight.double() - (lost - basis @ basis.T @ lost)) == pytest.approx(tail, rel=1e-8)


@shapes
@bases
def test_eora_before_svd_before_nothing(shape, base):
    for seed in range(5):
        of = layer(seed, *shape)
        term = base.compress(of, keep(0.4))
        eora, svd = (c.repair(of, term, keep(0.4)).dense() for c in (UNDAMPED, ErrorSVD(rank=8)))
        assert error(of, eora) <= error(of, svd) * (1 + 1e-6)
        assert error(of, eora) < error(of, term.dense())
        assert frobenius(of, svd) <= frobenius(of, eora) * (1 + 1e-6)
        assert frobenius(of, svd) < frobenius(of, term.dense())


@shapes
@pytest.mark.parametrize("repairer", [EoRA(rank=999), ErrorSVD(rank=999), LREC(rank=999)], ids=repr)
def test_full_rank_restores_the_weight(shape, repairer):
    of = layer(3, *shape)
    both = repairer.repair(of, pruned(of), keep(0.5))
    assert float((both.dense() - of.weight).norm() / of.weight.norm()) < 1e-6


@shapes
def test_full_rank_restores_the_weight_from_few_tokens(shape):
    """The Gram has rank 40: directions that no input has are restored, too."""
    of = layer(3, *shape, tokens=40)
    both = LREC(rank=999).repair(of, pruned(of), keep(0.5))
    torch.testing.assert_close(both.dense(), of.weight, rtol=0, atol=1e-4)
    full = SVDLLM().compress(of, keep(sum(shape) / max(shape)))
    torch.testing.assert_close(full.dense(), of.weight, rtol=0, atol=1e-3)


@pytest.mark.parametrize("repairer", [UNDAMPED, ErrorSVD(rank=8)], ids=["eora", "svd"])
@shapes
def test_no_perturbation_beats_the_optimum(repairer, shape):
    of = layer(4, *shape)
    if repairer != UNDAMPED:
        of = with_gram(of, torch.eye(shape[1]))  # the error is then the Frobenius norm
    term, low = repairer.repair(of, pruned(of), keep(0.5)).terms
    base, b, a = term.dense().double(), low.b.double(), low.a.double()
    best = error(of, base + b @ a)
    for k in range(100):
        size = 10.0 ** -(k % 5 + 1)
        db = normal(k, *b.shape, dtype=torch.float64) * b.norm() / b.numel() ** 0.5
        da = normal(k + 500, *a.shape, dtype=torch.float64) * a.norm() / a.numel() ** 0.5
        assert error(of, base + (b + size * db) @ (a + size * da)) >= best * (1 - 1e-6)


@shapes
def test_of_nothing_it_is_svd_llm(shape):
    of = layer(5, *shape)
    nothing = Dense(torch.zeros(shape), torch.float32)
    rank = 8
    want = SVDLLM().compress(of, keep(rank * sum(shape) / (shape[0] * shape[1]))).dense()
    found = UNDAMPED.repair(of, nothing, keep(0.5)).dense()
    torch.testing.assert_close(found, want, rtol=0, atol=1e-4)
    assert torch.equal(LREC(rank=rank).repair(of, nothing, keep(0.5)).dense(), found)


@pytest.mark.parametrize("repairer", [EoRA(), ErrorSVD(), LREC()], ids=repr)
def test_where_nothing_was_lost_nothing_is_added(repairer):
    of = layer(6)
    whole = Dense(of.weight, torch.float32)
    assert repairer.repair(of, whole, keep(0.5)) is whole


def test_the_ridge_is_a_share_of_the_mean_diagonal():
    of = layer(7)
    gram = of[Gram].value
    ridge = EoRA(damp=0.03).metric(of) - gram
    want = 0.03 * gram.trace() / 128 * torch.eye(128, dtype=torch.float64)
    torch.testing.assert_close(ridge, want, rtol=0, atol=1e-9 * float(gram.trace()))


def test_a_branch_beside_a_branch():
    of = layer(8)
    term = INT21(rank=3).compress(of, keep(0.5))
    both = EoRA(rank=5).repair(of, term, keep(0.5))
    assert (term.notes["rank"], both.notes["rank"], both.notes["damping"]) == (3, 5, 0.01)
    assert error(of, both.dense()) < error(of, term.dense())


def test_a_large_ridge_is_the_svd_of_the_error():
    of = layer(7)
    term = pruned(of)
    want = ErrorSVD(rank=8).repair(of, term, keep(0.5)).dense()
    found = EoRA(rank=8, damp=1e12).repair(of, term, keep(0.5)).dense()
    torch.testing.assert_close(found, want, rtol=0, atol=1e-4)


def test_fewer_tokens_than_inputs_and_a_dead_channel():
    x = inputs(8, 128, tokens=40)
    x[:, 5] = 0
    of = layer_of(layer(8).weight, x)
    for repairer in (UNDAMPED, EoRA(rank=8), LREC(rank=8)):
        both = repairer.repair(of, pruned(of), keep(0.5))
        assert torch.isfinite(both.dense()).all()
        assert error(of, both.dense()) < error(of, pruned(of).dense())


def centred(seed, shape):
    """A layer whose inputs have a mean, with everything AFM needs."""
    x = inputs(seed, shape[1]) + 2 * normal(seed + 9, shape[1])
    of, mean = layer_of(layer(seed, *shape).weight, x), InputMean.zero(shape[1])
    mean.update(x)
    return Layer(of.name, of.weight, {**of.stats, InputMean: mean}), x


def affine_error(of, x, term):
    lost = x.double() @ (of.weight.double() - term.dense().double()).T - term.shift().double()
    return float(lost.square().sum())


@shapes
@pytest.mark.parametrize("repairer", [UNDAMPED, EoRA(rank=8), ErrorSVD(rank=8)], ids=repr)
def test_the_mean_that_a_term_keeps_stays_kept(shape, repairer):
    of, x = centred(9, shape)
    term = AFM().compress(of, keep(0.4))
    both = repairer.repair(of, term, keep(0.4))
    lost = (of.weight - both.dense()) @ x.mean(
        0
    )  # what the outputs lose on average, and the shift gives back
    torch.testing.assert_close(both.shift(), lost, rtol=0, atol=1e-3 * float(lost.abs().max() + 1))
    assert affine_error(of, x, both) < affine_error(of, x, term)


@shapes
def test_beside_a_shift_eora_is_the_best_branch_about_the_mean(shape):
    """The shift pays for the mean, so that a branch that spends its rank there loses to plain SVD."""
    for seed in range(5):
        of, x = centred(seed, shape)
        term = AFM().compress(of, keep(0.4))
        eora, lrec, svd = (
            affine_error(of, x, c.repair(of, term, keep(0.4)))
            for c in (EoRA(rank=1), LREC(rank=1), ErrorSVD(rank=1))
        )
        assert lrec <= svd * (1 + 1e-6)
        assert eora <= svd * (1 + 1e-3)  # the ridge asks for a little of svd
        about = (x - x.mean(0)).double() @ (of.weight - term.dense()).double().T
        tail = float(torch.linalg.svdvals(about)[1:].square().sum())
        assert lrec == pytest.approx(tail, rel=1e-4)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 300), st.integers(1, 300), st.floats(0.01, 0.9), st.one_of(st.none(), st.integers(1, 40)),
    st.integers(0, 50_000),
)  # fmt: skip
def test_the_room_around_a_size_is_the_smallest(out, wide, share, rank, size):
    repairer, room = EoRA(share=share, rank=rank), Room(0)

    def left(nbytes):
        return nbytes - repairer.reserve((out, wide), Room(nbytes))

    whole = around(repairer, size, (out, wide), room)
    assert left(whole) == size
    assert all(left(nbytes) < size for nbytes in range(max(0, whole - 200), whole))
    assert around(Nothing(), size, (out, wide), room) == size


@shapes
@bases
@pytest.mark.parametrize("repairer", [EoRA(), EoRA(rank=3), ErrorSVD(share=0.3), LREC()], ids=repr)
def test_its_bytes_come_out_of_the_same_room(shape, base, repairer):
    of = layer(10, *shape)
    for share in (0.3, 0.5, 0.8):
        room = room_of(shape, share)
        both = maker(base, repairer).term(of, room)
        taken = repairer.reserve(shape, room)
        assert both.terms[1].nbytes() == taken == both.terms[1].rank * 2 * sum(shape)
        assert both.terms[0].nbytes() <= room.nbytes - taken
        bare = base.compress(of, room.less(taken))
        assert torch.equal(both.terms[0].dense(), bare.dense())
        assert error(of, both.dense()) < error(of, bare.dense())
        assert both.setting == bare.setting


@pytest.mark.parametrize("repairer", [EoRA(share=0.6), EoRA(rank=20)], ids=repr)
def test_what_a_repair_leaves_can_be_too_little(repairer):
    of = layer(11)
    room = room_of(of.shape, 0.1)
    with pytest.raises(Unreachable) as caught:
        maker(RTN(), repairer).term(of, room)
    needs = caught.value.needs
    assert needs > room.nbytes
    assert maker(RTN(), repairer).term(of, Room(needs)).nbytes() <= needs
    with pytest.raises(Unreachable):
        maker(RTN(), repairer).term(of, Room(needs - 1))


def test_where_a_repair_takes_nearly_all_only_dense_is_left():
    of = layer(11)
    with pytest.raises(Unreachable) as caught:
        maker(RTN(), EoRA(share=0.95)).term(of, room_of(of.shape, 0.9))
    assert caught.value.needs == dense_bytes(of.shape)


@pytest.mark.parametrize(
    ("knobs", "complaint"),
    [
        ({"share": 0.0}, r"compensate.share=0.0 is out of range; valid: 0 < share < 1"),
        ({"share": 1}, r"compensate.share=1 is out of range; valid: 0 < share < 1"),
        ({"share": "a"}, r"compensate.share='a' is out of range"),
        ({"rank": 0}, r"compensate.rank=0 is out of range; valid: a whole number >= 1"),
        ({"rank": 2.5}, r"compensate.rank=2.5 is out of range"),
        ({"damp": -1}, r"compensate.damp=-1 is out of range; valid: a number >= 0"),
    ],
)
def test_what_is_no_knob_is_refused(knobs, complaint):
    with pytest.raises(ValueError, match=complaint):
        EoRA(**knobs)


def test_a_branch_is_balanced():
    low = UNDAMPED.repair(layer(12), pruned(layer(12)), keep(0.5)).terms[1]
    assert isinstance(low, LowRank)
    torch.testing.assert_close(low.b.norm(dim=0), low.a.norm(dim=1), rtol=1e-4, atol=0)


def test_only_a_shift_can_be_moved():
    with pytest.raises(ValueError, match="term kind 'dense' has no shift to move"):
        Dense(torch.zeros(3, 4), torch.float32).moved(torch.ones(3))
    both = Sum([Dense(torch.zeros(3, 4), torch.float32), Shift.of(torch.ones(3), 4, torch.float32)])
    assert both.moved(torch.ones(3)).shift().tolist() == [2.0, 2.0, 2.0]
    assert both.shift().tolist() == [1.0, 1.0, 1.0]
