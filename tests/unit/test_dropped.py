"""Deleted blocks and branches: the same as adding nothing, and an ordinary model afterwards."""

from itertools import pairwise

import pytest
import torch
from transformers import AutoModelForCausalLM

from crunchmark import artifact
from crunchmark.allocation import Uniform, equal_shares
from crunchmark.budget import Room, Unreachable
from crunchmark.calib import Calibration
from crunchmark.compress import allocate
from crunchmark.dropped import Dropper, Without, drop, rebuild, units, without
from crunchmark.edits import settle
from crunchmark.effects import angles, influence, surprise, taken_greedily
from crunchmark.heads import by_role
from crunchmark.interface import Layer, Skip
from crunchmark.terms import unpack
from crunchmark.view import View
from methods.allocate.components import Components
from methods.allocate.greedy import Greedy
from methods.allocate.owl import OWL
from methods.shortgpt import ShortGPT

BF16 = torch.bfloat16
HOW = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
UNITS = pytest.mark.parametrize("unit", ["block", "branch"])


@torch.no_grad()
def logits(model, tokens):
    return model(tokens, use_cache=False).logits


def deep(tiny, name, depth=4):
    """The tiny model of a family with more blocks."""
    changes = {"n_layer" if name == "gpt2" else "num_hidden_layers": depth}
    if name == "gemma3_text":
        changes["layer_types"] = ["sliding_attention", "full_attention"] * (depth // 2)
    return tiny(name, **changes)


def planned(view, budget, accounting="bytes", scope="blocks"):
    return equal_shares(view, budget, accounting, scope, BF16)


def silence(model, i):
    """Block i adds nothing."""
    with torch.no_grad():
        for role in ("o", "down"):
            site = by_role(View(model), i)[role]
            site.module.weight.zero_()
            if site.bias is not None:
                site.bias.zero_()


@pytest.mark.parametrize("score", ["influence", "window"])
def test_a_silent_block_goes_first_and_is_free(tiny, tokens, family, score):
    model = deep(tiny, family)
    silence(model, 2)
    settle(model, BF16)
    view, calib = View(model), Calibration(tokens)
    want = logits(model, tokens)
    found = influence(view, calib)
    assert min(found, key=found.get) == ((2, "attn"), (2, "mlp"))
    assert abs(min(found.values())) < 1e-12
    assert all(0 <= v <= 2 for v in list(found.values())[:2])
    ShortGPT(score).compress(view, planned(view, 0.2), calib)
    assert len(view.blocks) == 3
    torch.testing.assert_close(logits(model, tokens), want, rtol=0, atol=1e-5)


def test_dropping_is_leaving_out(tiny, tokens, family):
    """Of blocks and of branches, with and without a cache, in memory and rebuilt."""
    for parts in ([(0, "attn")], [(1, "mlp")], [(0, "attn"), (0, "mlp")], [(0, "attn"), (2, "mlp")]):
        view, fresh = View(deep(tiny, family)), deep(tiny, family)
        before = logits(view.model, tokens)
        with without(view, parts):
            want = logits(view.model, tokens)
        assert torch.equal(logits(view.model, tokens), before)
        drop(view, parts, 0.5)
        assert torch.equal(logits(view.model, tokens), want)
        cached = view.model.generate(tokens, use_cache=True, **HOW)
        assert torch.equal(cached, view.model.generate(tokens, use_cache=False, **HOW))
        if len(view.blocks) == 4:
            rebuild(fresh, view.model.crunchmark_edits[0])
            assert fresh.crunchmark_edits == view.model.crunchmark_edits
            fresh.load_state_dict(view.model.state_dict())
            assert torch.equal(logits(fresh, tokens), want)


def test_fewer_blocks_are_an_ordinary_model(tiny, tokens, family):
    view = View(deep(tiny, family))
    ShortGPT().compress(view, planned(view, 0.4), Calibration(tokens))
    assert view.model.config.num_hidden_layers == len(view.blocks) == 2
    ordinary = AutoModelForCausalLM.from_config(view.model.config).eval()
    ordinary.load_state_dict(view.model.state_dict(), strict=True)
    assert torch.equal(logits(ordinary, tokens), logits(view.model, tokens))
    numbers = [b.get_submodule(view.family.attn).layer_idx for b in view.blocks]
    assert numbers == [0, 1]


@UNITS
def test_a_layer_that_is_not_there_is_the_same_layer_by_layer(tiny, tokens, family, unit):
    for one in units(View(deep(tiny, family)), unit):
        view = View(deep(tiny, family))
        with without(view, one):
            want = logits(view.model, tokens)
        for site in [s for part in one for s in Dropper(view, planned(view, 0.2), "", unit).sites(part)]:
            site.install(Without(unit).compress(Layer(site.name, site.weight()), Room(0)))
        torch.testing.assert_close(logits(view.model, tokens), want, rtol=0, atol=1e-6)


def test_zero_is_no_byte(tokens):
    term = Without().compress(Layer("x", torch.ones(3, 4)), Room(0))
    assert (term.nbytes(), term.nominal(), term.shape) == (0, 0.0, (3, 4))
    again = unpack(*term.pack())
    assert torch.equal(again.dense(), torch.zeros(3, 4))
    assert torch.equal(again(torch.ones(2, 4)), torch.zeros(2, 3))
    assert Without().sizes((3, 4), Room(0)) == (0, 24)


@UNITS
@pytest.mark.parametrize("scope", ["blocks", "model"])
def test_the_budget_is_met_to_one_unit(tiny, tokens, tmp_path, family, unit, scope):
    view = View(deep(tiny, family))
    plan, whole = planned(view, 0.3, scope=scope), view.scope_bytes(scope)
    largest = max(Dropper(view, plan, "", unit).costs.values())
    ShortGPT(unit=unit).compress(view, plan, Calibration(tokens))
    artifact.write(tmp_path, view, {}, BF16, {})
    size = artifact.sizes(tmp_path)[{"blocks": "scope_bytes", "model": "model_bytes"}[scope]]
    assert 0 <= int(0.7 * whole) - size < largest


def test_the_order_is_nested(tiny, tokens):
    gone = []
    for budget in (0.2, 0.4, 0.6, 0.8):
        view = View(deep(tiny, "llama", 6))
        dropper = Dropper(view, planned(view, budget), "", "block")
        gone.append(ShortGPT().choose(dropper, view, Calibration(tokens)))
    assert [len(g) for g in gone] == [2, 3, 4, 5]
    assert all(a == b[: len(a)] for a, b in pairwise(gone))


def test_the_window_turns_least(tiny, tokens):
    view, calib = View(deep(tiny, "llama", 6)), Calibration(tokens)
    turns = angles(view, calib, 2)
    assert len(turns) == 5
    plan = planned(view, 0.3)
    gone = ShortGPT("window").choose(Dropper(view, plan, "", "block"), view, calib)
    start = gone[0][0][0]
    assert [one[0][0] for one in gone] == [start, start + 1]
    assert turns[start] == min(turns)


@torch.no_grad()
def test_a_window_is_judged_by_its_last_token(tiny, tokens):
    view = View(deep(tiny, "llama", 6))
    states = view.model(tokens, output_hidden_states=True).hidden_states[:-1]  # the last one is normed
    cosines = [
        torch.cosine_similarity(a[:, -1].double(), b[:, -1].double(), dim=-1)
        for a, b in zip(states, states[2:], strict=False)
    ]
    want = [float(c.arccos().mean() / torch.pi) for c in cosines]
    assert angles(view, Calibration(tokens), 2)[:-1] == pytest.approx(want, rel=1e-5)


def test_perplexity_takes_the_cheapest_each_time(tiny, tokens):
    view, calib = View(deep(tiny, "llama", 6)), Calibration(tokens)
    dropper = Dropper(view, planned(view, 0.3), "", "block")
    gone = ShortGPT("perplexity").choose(dropper, view, calib)
    costs = {}
    for one in dropper.units:
        with without(view, one):
            costs[one] = surprise(view, calib)
    assert gone[0] == min(costs, key=costs.get)
    assert len(gone) == 2


def test_greedy_on_a_toy():
    price = {((i, "attn"),): p for i, p in enumerate((3, 1, 2))}
    cost = lambda gone: sum(price[one] for one in gone)  # noqa: E731
    assert [one[0][0] for one in taken_greedily(list(price), lambda g: len(g) == 2, cost)] == [1, 2]
    assert len(taken_greedily(list(price), lambda g: False, cost)) == 2


@UNITS
def test_what_a_plan_gives_no_room_goes(tiny, tokens, unit):
    view = View(deep(tiny, "llama"))
    plan, chosen = planned(view, 0.5), [units(view, unit)[k] for k in (1, -1)]
    sites = {s.name for one in chosen for part in one for s in Dropper(view, plan, "", unit).sites(part)}
    rooms = {n: Room(0 if n in sites else 2 * a * b) for n, (a, b) in view.layers().items()}
    total = sum(r.nbytes for r in rooms.values())
    kept = set(view.layers()) - sites
    weights = {n: s.weight() for s in view.all_sites() if (n := s.name) in kept}
    plan = type(plan)(rooms, 0.5, total=total, notes={"allocator": "Mine"})
    ShortGPT(unit=unit).compress(view, plan, Calibration(tokens))
    assert len(view.all_sites()) == len(kept)
    left = [s.weight() for s in view.all_sites()]
    settled = [w.to(BF16).float() for w in weights.values()]
    assert all(torch.equal(a, b) for a, b in zip(left, settled, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("accounting", ["bytes", "nominal"])
@pytest.mark.parametrize("allocator", [Components(), OWL(lam=0)], ids=["components", "owl"])
@UNITS
def test_equal_shares_say_nothing_of_what_goes(tiny, tokens, unit, accounting, allocator):
    left = []
    for asked in (Uniform(), allocator):
        view, method = View(deep(tiny, "llama_gqa", 6)), ShortGPT(unit=unit)
        plan = planned(view, 0.3, accounting)
        plan = allocate(asked, method, view, plan, Calibration(tokens), "six")
        method.compress(view, plan, Calibration(tokens))
        left.append([site.weight() for site in view.all_sites()])
    assert len(left[0]) == len(left[1]) > 0.6 * 6 * 7
    assert all(torch.equal(a, b) for a, b in zip(*left, strict=True))


@pytest.mark.parametrize("accounting", ["bytes", "nominal"])
@pytest.mark.parametrize("allocator", [Greedy(), OWL()], ids=["greedy", "owl"])
@pytest.mark.parametrize(("depth", "budget", "kept"), [(2, 0.45, 1), (6, 0.5, 3), (6, 0.3, 4)])
def test_a_plan_of_layers_deletes_no_more_blocks_than_the_budget_asks(
    tiny, tokens, accounting, allocator, depth, budget, kept
):
    view = View(deep(tiny, "llama_gqa", depth))
    plan = planned(view, budget, accounting)
    plan = allocate(allocator, ShortGPT(), view, plan, Calibration(tokens), str(depth))
    for i in range(depth):
        assert len({plan.rooms[s.name].nbytes > 0 for s in view.sites(i)}) == 1, "a block goes whole"
    ShortGPT().compress(view, plan, Calibration(tokens))
    assert len(view.blocks) == kept


@pytest.mark.parametrize("score", ["window", "perplexity"])
def test_scores_that_look_at_more_than_a_block_take_no_plan(tiny, tokens, score):
    view = View(deep(tiny, "llama_gqa"))
    with pytest.raises(Skip, match="ShortGPT decides itself what to take where; valid: allocate=uniform"):
        allocate(Greedy(), ShortGPT(score), view, planned(view, 0.3), Calibration(tokens), "four")
    allocate(Greedy(), ShortGPT(), view, planned(view, 0.3), Calibration(tokens), "four")


def test_one_block_stays(tiny, tokens):
    view = View(deep(tiny, "llama"))
    with pytest.raises(Unreachable) as caught:
        ShortGPT().compress(view, planned(view, 0.8), Calibration(tokens))
    assert caught.value.nearest == 0.75
    assert len(view.blocks) == 4


def test_refusals(tiny, tokens):
    view = View(tiny("gpt2", scale_attn_by_inverse_layer_idx=True))
    with pytest.raises(Skip, match="scaled by the number of its block"):
        ShortGPT().compress(view, planned(view, 0.2), Calibration(tokens))
    view = View(tiny("llama"))
    with pytest.raises(Skip, match=r"calib\.inputs=compressed; valid: dense"):
        ShortGPT().compress(view, planned(view, 0.2), Calibration(tokens, "compressed"))
    with pytest.raises(ValueError, match="makes no run of blocks"):
        ShortGPT("window", "branch")
    with pytest.raises(ValueError, match=r"method\.score='up' is unknown"):
        ShortGPT("up")
