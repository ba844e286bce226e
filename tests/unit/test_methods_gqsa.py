"""GQSA: which groups stay, what its start is equal to, and that no stage ends worse than it began."""

import copy

import pytest
import torch
from method_recipe import inputs, keep, layer, layer_of, normal, with_gram
from torch.nn import functional as F

from crunchmark.allocation import Uniform, equal_shares
from crunchmark.calib import Calibration
from crunchmark.compress import allocate, compress
from crunchmark.groups import GroupDraft, evenly
from crunchmark.linalg import calibrated_error
from crunchmark.stats import Gram
from crunchmark.tuning import end_to_end, reconstruct, turns
from crunchmark.view import View
from methods.gqsa import GQSA, GroupPruned
from methods.rtn import RTN


def groups(term):
    """Which groups are kept, (out, groups)."""
    return term.mask()[:, :: term.group]


TOKENS = torch.randint(3, 64, (8, 16), generator=torch.Generator().manual_seed(2))
UNTUNED = {"bqpo_steps": 0, "e2e_steps": 0}
FAMILIES = ("llama_gqa", "gpt2")  # nn.Linear with GQA; Conv1D, tied, biases


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("group", [16, 32])
def test_with_every_group_it_is_rounding_in_groups(bits, group):
    of = layer(1)
    found = GroupPruned(bits=bits, group=group).compress(of, keep(bits / 16))
    want = RTN(group=group).compress(of, keep(bits / 16))
    assert torch.equal(found.dense(), want.dense())
    assert groups(found).all()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.77])
@pytest.mark.parametrize("group", [4, 16])
def test_rows_keep_equally_many_whole_groups(share, group):
    of = layer(2)
    term = GroupPruned(bits=4, group=group).compress(of, keep(share * 4 / 16))
    counts = groups(term).sum(1)
    assert int(counts.max() - counts.min()) <= 1
    assert int(counts.sum()) == int(share * groups(term).numel() + 1e-9)
    alive = term.dense().view(96, -1, group).abs().sum(-1) > 0
    assert torch.equal(alive, groups(term))


def test_the_groups_of_most_saliency_stay():
    """w^2 / [H^-1]_jj with the inverse of the damped Gram, taken by itself."""
    of = layer(3)
    gram = of[Gram].value
    damped = gram + 0.01 * gram.diagonal().mean() * torch.eye(128, dtype=gram.dtype)
    score = of.weight.double().square() / torch.linalg.inv(damped).diagonal()
    score = score.view(96, 8, 16).sum(-1)
    kept = groups(GroupPruned(bits=4).compress(of, keep(0.125)))
    assert (kept.sum(1) == 4).all()
    assert score.masked_fill(~kept, torch.inf).amin(1).ge(score.masked_fill(kept, 0).amax(1)).all()
    white = with_gram(of, 3.0 * torch.eye(128))
    norms = of.weight.view(96, 8, 16).norm(dim=-1)
    want = norms.argsort(1, descending=True)[:, :4].sort(1).values
    found = groups(GroupPruned(bits=4).compress(white, keep(0.125)))
    assert torch.equal(found.nonzero()[:, 1].view(96, 4), want)
    assert not torch.equal(found, kept)


def test_evenly_marks_exactly_as_many():
    score = normal(4, 7, 9)
    for kept in range(7, 64):
        mask = evenly(score, kept)
        assert int(mask.sum()) == kept
        assert int(mask.sum(1).max() - mask.sum(1).min()) <= 1
    assert torch.equal(evenly(score, 63), torch.ones(7, 9, dtype=torch.bool))


def test_the_update_makes_up_for_pruned_groups():
    """For the same groups; a least-squares fit on them is no worse, and rounding adds its own."""
    for seed in range(4):
        of = layer(40 * seed)
        plain, ours = (GroupPruned(bits=8, obs_init=o).compress(of, keep(0.25)) for o in (False, True))
        assert torch.equal(groups(plain), groups(ours))
        gram, w = of[Gram].value, of.weight.double()
        fit = torch.zeros_like(w)
        for row, mask in enumerate(groups(plain).repeat_interleave(16, 1)):
            fit[row, mask] = torch.linalg.solve(gram[mask][:, mask], gram[mask] @ w[row])
        errors = [calibrated_error(w, q, gram) for q in (fit, ours.dense(), plain.dense())]
        assert errors[0] < errors[1] < 0.95 * errors[2]


def test_dead_inputs_get_no_weight():
    x = inputs(5, tokens=40)  # fewer tokens than inputs
    x[:, [4, 90]] = 0
    x[:, 32:48] = 0
    weight = layer(5).weight.clone()
    weight[3], weight[:, 64:80] = 0, 0
    of = layer_of(weight, x)
    for obs_init in (False, True):
        term = GroupPruned(bits=4, obs_init=obs_init).compress(of, keep(0.125))
        found = term.dense()
        assert torch.isfinite(found).all()
        assert float(found[:, [4, 90, *range(32, 48)]].abs().max()) == 0
        assert float(found[3].abs().max()) == 0
        others = torch.arange(96) != 3
        assert not groups(term)[others][:, [2, 4]].any() or obs_init
    assert 0 < calibrated_error(weight, found, of[Gram].value) < 1


def drafts_of(turn, share=0.125, **knobs):
    stage = GroupPruned(bits=4, group=8, **knobs)
    made = {}
    for site in turn.sites:
        of = layer_of(site.weight(), normal(1, 64, site.shape[1]), site.name)
        made[site.name] = stage.draft(type(of)(of.name, of.weight, turn.stats[site.name]), keep(share))
    return made


@torch.no_grad()
def outputs(turn, b, block):
    """What a block gives for the turn's inputs of batch b."""
    return turn.stream.block(
        turn.index, b, turn.stream.hidden[b], lambda _, h, args, kw: block(h, *args, **kw)
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lr", [1e-3, 10.0])
@pytest.mark.parametrize("steps", [1, 6])
def test_no_block_ends_worse_than_it_began(tiny, family, lr, steps):
    """Errors are those of the model with the terms in it, found here by running it."""
    model = tiny(family)
    dense = copy.deepcopy(model)
    view, calib = View(model), Calibration(TOKENS, "compressed", batch=4)
    for turn in turns(view, calib, (Gram,)):
        made = drafts_of(turn)
        start = {name: draft.term() for name, draft in made.items()}
        before, after = reconstruct(turn, made, lr, steps)
        seen = range(min(steps, 2))
        wanted = [outputs(turn, b, View(dense).blocks[turn.index]) for b in seen]
        torch.testing.assert_close(wanted, [turn.targets[b] for b in seen])
        energy = sum(float(t.square().sum()) for t in wanted)
        for terms, told in ((start, before), ({n: d.term() for n, d in made.items()}, after)):
            for site in turn.sites:
                site.install(terms[site.name])
            got = [outputs(turn, b, turn.block) for b in seen]
            error = sum(float((a - b).square().sum()) for a, b in zip(got, wanted, strict=True)) / energy
            assert error == pytest.approx(told, rel=1e-4)
        assert after <= before
        assert (after < before) == (lr < 1)  # far too large a step is not kept
    assert all(p.grad is None for p in model.parameters())
    assert not model.training


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lr", [1e-3, 100.0])
def test_the_model_ends_no_worse_than_it_began(tiny, family, lr):
    model = tiny(family)
    view, calib = View(model), Calibration(TOKENS, "dense", batch=4)
    drafts = {}
    for turn in turns(view, calib, (Gram,)):
        drafts |= drafts_of(turn)
    for draft in drafts.values():
        draft.freeze()
    codes = {name: draft.codes.clone() for name, draft in drafts.items()}
    masks = {name: draft.mask.clone() for name, draft in drafts.items()}

    def nats():
        for site in view.all_sites():
            site.install(drafts[site.name].term())
        with torch.no_grad():
            logits = model(TOKENS, use_cache=False).logits[:, :-1]
        return float(F.cross_entropy(logits.flatten(0, 1), TOKENS[:, 1:].flatten()))

    start = nats()
    before, after = end_to_end(view, calib, drafts, lr, 4)
    assert before == pytest.approx(start, rel=1e-5)
    assert after == pytest.approx(nats(), rel=1e-5)
    assert after <= before
    assert after < before or lr > 1
    assert all(torch.equal(draft.codes, codes[name]) for name, draft in drafts.items())
    assert all(torch.equal(draft.mask, masks[name]) for name, draft in drafts.items())
    assert all(p.grad is None for p in model.parameters())


def test_everything_trains(tiny):
    view = View(tiny("llama_gqa"))
    turn = next(turns(view, Calibration(TOKENS, batch=4), (Gram,)))
    made = drafts_of(turn)
    before = {name: [p.detach().clone() for p in draft.parameters()] for name, draft in made.items()}
    reconstruct(turn, made, 1e-3, 2)
    for name, draft in made.items():
        for p, old in zip(draft.parameters(), before[name], strict=True):
            assert not torch.equal(p, old), name


def run(tiny, method, inputs="compressed", budget=0.8, family="llama_gqa"):
    model = tiny(family)
    view = View(model)
    plan = equal_shares(view, budget, "bytes", "blocks", torch.bfloat16)
    given = (Calibration(TOKENS, inputs, batch=4), "tiny")
    plan = allocate(Uniform(), method, view, plan, *given)
    return compress(method, view, plan, *given), model


@pytest.mark.parametrize("inputs", ["dense", "compressed"])
def test_without_steps_only_the_start_is_left(tiny, inputs):
    found, model = run(tiny, GQSA(**UNTUNED), inputs)
    want, other = run(tiny, GQSA(**UNTUNED).likeness, inputs)
    for name, term in found.items():
        assert torch.equal(term.dense(), want[name].dense())
    assert torch.equal(model(TOKENS).logits, other(TOKENS).logits)


@pytest.mark.parametrize("knob", ["bqpo_steps", "e2e_steps"])
def test_every_stage_changes_something(tiny, knob):
    """The first tunes weights as well; the last one nothing but scales and zeros."""
    none, _ = run(tiny, GQSA(**UNTUNED), "dense")
    some, _ = run(tiny, GQSA(**(UNTUNED | {knob: 4}), bqpo_lr=1e-3, e2e_lr=1e-3), "dense")
    same = [
        all(torch.equal(getattr(none[n], t), getattr(some[n], t)) for n in none) for t in ("kept", "codes")
    ]
    assert same == [True, knob == "e2e_steps"]
    assert not all(torch.equal(none[n].scale, some[n].scale) for n in none)


def test_terms_say_what_tuning_gained(tiny):
    """The errors of their block and the nats of the model, before and after."""
    found, _ = run(tiny, GQSA())
    for told in (term.notes for term in found.values()):
        assert told["damping"] == 0.01
        assert told["block_error"][1] < told["block_error"][0] < 1
        assert told["nats"][1] < told["nats"][0]
    assert len({tuple(term.notes["block_error"]) for term in found.values()}) == 2
    assert len({tuple(term.notes["nats"]) for term in found.values()}) == 1
    start, _ = run(tiny, GQSA(**UNTUNED))
    assert all(set(term.notes) == {"damping", "dead"} for term in start.values())


def test_layers_with_room_stay_dense(tiny):
    model = tiny("llama_gqa")
    view = View(model)
    plan = equal_shares(view, 0.8, "bytes", "blocks", torch.bfloat16)
    down = view.sites(1)[-1].name
    plan.rooms[down] = equal_shares(view, 0.0, "bytes", "blocks", torch.bfloat16).rooms[down]
    found = GQSA().compress(view, plan, Calibration(TOKENS, batch=4))
    assert {name for name, term in found.items() if term.kind == "dense"} == {down}
    assert {term.kind for term in found.values()} == {"dense", "sparse_quantised"}


def test_with_room_for_everything_nothing_is_tuned(tiny):
    found, model = run(tiny, GQSA(), budget=0.0)
    assert {term.kind for term in found.values()} == {"dense"}
    assert all(torch.equal(s.weight(), found[s.name].dense()) for s in View(model).all_sites())


def test_bad_knobs_are_refused(tiny):
    wrong = {"bits": 9, "group": 0, "damp": -1, "obs_init": 1, "bqpo_steps": -1, "e2e_steps": 0.5}
    for knob, value in (wrong | {"bqpo_lr": -1e-4, "e2e_lr": float("nan")}).items():
        with pytest.raises(ValueError, match=rf"method\.{knob}={value!r} is .*; valid: "):
            GQSA(**{knob: value})
    with pytest.raises(
        ValueError, match=r"method.group=40 does not divide in_features=32 of .*; valid: 1, 2, 4, 8, 16"
    ):
        run(tiny, GQSA(group=40))


def test_inputs_that_are_not_finite_name_the_layer(tiny):
    model = tiny("llama_gqa")
    model.model.embed_tokens.weight.data[5] = float("nan")
    view = View(model)
    plan = equal_shares(view, 0.8, "bytes", "blocks", torch.bfloat16)
    with pytest.raises(
        ValueError, match=r"model.layers.0.self_attn.q_proj: calibration inputs hold nan or inf"
    ):
        GQSA().compress(view, plan, Calibration(torch.full((2, 8), 5), batch=4))


def test_a_draft_starts_on_the_grid_of_its_groups():
    w, mask = normal(9, 4, 32), torch.ones(4, 2, dtype=torch.bool)
    want = RTN(group=16).compress(layer_of(w, normal(0, 9, 32)), keep(0.25))
    assert torch.equal(GroupDraft(w, mask, 4, 16)(), want.dense())
