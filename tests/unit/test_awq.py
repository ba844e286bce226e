"""AWQ: without scales it is plain rounding, with them never worse where it looks; and what it leaves."""

import json

import pytest
import torch

import crunchmark
from crunchmark import artifact
from crunchmark.allocation import Uniform, equal_shares
from crunchmark.budget import Plan, Room, Unreachable, dense_bytes
from crunchmark.calib import Calibration
from crunchmark.compress import allocate, compress
from crunchmark.edits import settle
from crunchmark.folds import foldable
from crunchmark.interface import Skip
from crunchmark.rounded import Grid
from crunchmark.rounding import nearest_values
from crunchmark.terms import Dense, Quantised
from crunchmark.view import View
from methods.allocate.entropic import Entropic
from methods.awq import AWQ, clipped
from methods.compensate.eora import EoRA
from methods.rtn import RTN

TOKENS = torch.randint(3, 64, (8, 16), generator=torch.Generator().manual_seed(2))
STORED = torch.bfloat16


def dense(tiny, family="llama"):
    model = tiny(family)
    settle(model, STORED)
    with torch.no_grad():  # inputs of unequal size, as scales need them
        for block in model.model.layers:
            block.input_layernorm.weight[::7] *= 8
            block.post_attention_layernorm.weight[::5] *= 8
    return model


def logits(model):
    with torch.no_grad():
        return model(TOKENS, use_cache=False).logits


def run(method, model, budget, accounting="bytes", inputs="dense", allocator=None, repairer=None):
    view = View(model)
    plan = equal_shares(view, budget, accounting, "blocks", STORED)
    given = (Calibration(TOKENS, inputs, batch=4), "m")
    plan = allocate(allocator or Uniform(), method, view, plan, *given)
    return plan, compress(method, view, plan, *given, repairer=repairer)


@pytest.mark.parametrize("how", [{}, {"sym": True}, {"group": 16}], ids=str)
@pytest.mark.parametrize("family", ["llama", "llama_gqa"])
def test_one_ratio_and_no_bounds_is_rtn(tiny, how, family):
    for budget in (0.3, 0.5, 0.7):
        a, b = dense(tiny, family), dense(tiny, family)
        plan, found = run(AWQ(**how, ratios=1, clip=False), a, budget)
        want_plan, want = run(RTN(**how), b, budget)
        assert plan.rooms == want_plan.rooms
        for name, term in found.items():
            packed, other = term.pack(), want[name].pack()
            assert packed[1] == other[1]
            assert all(torch.equal(t, other[0][k]) for k, t in packed[0].items())
        assert torch.equal(logits(a), logits(b))


def grids_of(view, bits=3):
    return {s.name: Grid(Room(0, None, STORED), bits, -1) for s in view.all_sites()}


def error_of(fold, stream, weights, change):
    """Squared error of what is inspected inside the running block, with the readers' weights changed."""
    seen = []
    hook = fold.inspected.register_forward_hook(lambda m, a, out: seen.append(out))
    for made in (lambda w: w, change):
        for site, w in zip(fold.readers, weights, strict=True):
            site.install(Dense(made(w), torch.float32))
        list(stream.forward(0))
    hook.remove()
    outs = [out[0] if isinstance(out, tuple) else out for out in seen]
    half = len(outs) // 2
    return sum(float((a - b).double().square().sum()) for a, b in zip(outs[:half], outs[half:], strict=True))


@torch.no_grad()
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_no_scale_is_worse_than_none(tiny, bits):
    """On what is inspected, and as it is after folding; where inputs differ in size it is better."""
    model = dense(tiny)
    view = View(model)
    stream, method, gains = Calibration(TOKENS, batch=4).stream(view), AWQ(clip=False), []
    for fold in foldable(view, 0, stream):
        options, losses = method.search(fold, 0, stream, grids_of(view, bits), STORED)
        assert len(options) == len(losses) == 20
        assert torch.equal(options[0], torch.ones_like(options[0]))
        weights = [site.weight() for site in fold.readers]

        def rounded(w):
            return nearest_values(w, bits, -1, False)

        plain = error_of(fold, stream, weights, rounded)
        assert losses[0] == pytest.approx(plain, rel=1e-3)
        s = options[losses.index(min(losses))]
        for site, w in zip(fold.readers, weights, strict=True):
            site.install(Dense(w, torch.float32))
        fold.apply(s, STORED)
        found = error_of(fold, stream, [w * s for w in weights], rounded)
        assert found == pytest.approx(min(losses), rel=1e-3)
        assert found <= plain * (1 + 1e-6)
        gains.append(found / plain)
        for site, w in zip(fold.readers, weights, strict=True):
            site.install(Dense(w * s, torch.float32))
    assert len(gains) == 4
    assert min(gains) < 0.8


def part_errors(w, other, x, group):
    """Squared error of every group's part of the outputs, (out, groups)."""
    off = (w - other).double().unflatten(1, (-1, group))
    return torch.einsum("tgk,ogk->otg", x.double().unflatten(1, (-1, group)), off).square().sum(1)


@pytest.mark.parametrize("tokens", [7, 200])
@pytest.mark.parametrize("sym", [False, True])
def test_no_bound_is_worse_than_none(tokens, sym):
    """For every group on its own, and some are better."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(12, 64, generator=generator).pow(3)
    x = torch.randn(tokens, 64, generator=generator) * torch.rand(64, generator=generator)
    grid = Grid(Room(0, None, STORED), 3, 16, sym)
    found = clipped(w, x, grid)
    before, after = (part_errors(w, grid.value(v), x, 16) for v in (w, found))
    assert bool((after <= before * (1 + 1e-4)).all())
    assert float((after < 0.9 * before).float().mean()) > 0.3
    ratio = found.unflatten(1, (4, 16)).abs().amax(-1) / w.unflatten(1, (4, 16)).abs().amax(-1)
    assert bool(((ratio * 20 - (ratio * 20).round()).abs() < 1e-4).all())
    assert 0.5 < float(ratio.min()) < float(ratio.max()) == 1
    same = (found == w) | (found.abs() < w.abs())
    assert bool(same.all())


def test_groups_without_weights_or_inputs_stay():
    w, x = torch.randn(4, 32, generator=torch.Generator().manual_seed(1)), torch.zeros(50, 32)
    w[2, :16] = 0
    grid = Grid(Room(0, None, STORED), 2, 16)
    assert torch.equal(clipped(w, x, grid), w)


@pytest.mark.parametrize("inputs", ["dense", "compressed"])
def test_it_is_better_than_rtn(tiny, inputs):
    """Inputs of unequal size are what it is for."""
    want, off = logits(dense(tiny)), {}
    for method in (AWQ(), RTN()):
        model = dense(tiny)
        run(method, model, 0.75, inputs=inputs)
        off[type(method)] = float((logits(model) - want).norm())
    assert off[AWQ] < 0.9 * off[RTN]


@pytest.mark.parametrize("family", ["llama", "llama_gqa"])
def test_an_artifact_holds_norms_and_codes(tiny, tmp_path, family):
    model = dense(tiny, family)
    gains = model.model.layers[0].input_layernorm.weight.clone()
    plan, terms = run(AWQ(), model, 0.7)
    assert all(isinstance(term, Quantised) for term in terms.values())
    assert not torch.equal(model.model.layers[0].input_layernorm.weight, gains)
    folder = tmp_path / "a"
    folder.mkdir()
    artifact.write(folder, View(model), terms, STORED, {"plan": plan.to_json()})
    want = logits(model)
    assert torch.equal(logits(crunchmark.load(folder, packed=False)), want)
    torch.testing.assert_close(logits(crunchmark.load(folder)), want, rtol=1e-4, atol=1e-4)
    size = artifact.sizes(folder)["scope_bytes"]
    assert size == sum(term.nbytes() for term in terms.values()) <= plan.total
    layers = json.loads((folder / artifact.MANIFEST).read_text())["layers"]
    name = "model.layers.0.self_attn.o_proj"
    unscaled = {"note": "o: no scale"}
    assert (layers[name]["notes"] == unscaled) == (family == "llama_gqa")
    assert 0 <= layers["model.layers.1.mlp.up_proj"]["notes"]["ratio"] < 1


def test_rooms_are_those_of_the_plan(tiny):
    """An allocator tries plain rounding, and every layer ends at the bits its own room holds."""
    allocator = Entropic(eps=0.02)
    plan, terms = run(AWQ(), dense(tiny), 0.7, allocator=allocator)
    want, others = run(RTN(), dense(tiny), 0.7, allocator=allocator)
    assert plan.rooms == want.rooms
    assert {n: (t.bits, t.group) for n, t in terms.items()} == {
        n: (t.bits, t.group) for n, t in others.items()
    }
    assert len({term.bits for term in terms.values()}) > 1


def test_what_has_room_stays_dense(tiny):
    """Scaled, if others that read the same norm are rounded, and as it was, if none is."""
    model = dense(tiny)
    view = View(model)
    shapes = view.layers()
    rooms = {
        n: Room(dense_bytes(s) // 4 if ".0.self_attn.q" in n else dense_bytes(s)) for n, s in shapes.items()
    }
    plan = Plan(rooms, 0.1, total=sum(room.nbytes for room in rooms.values()))
    before = {s.name: s.weight() for s in view.all_sites()}
    terms = compress(AWQ(), view, plan, Calibration(TOKENS, batch=4), "m")
    changed = {n for n, t in terms.items() if not torch.equal(t.dense(), before[n])}
    assert changed == {f"model.layers.0.self_attn.{r}_proj" for r in "qkv"}
    assert [n for n, t in terms.items() if not isinstance(t, Dense)] == ["model.layers.0.self_attn.q_proj"]


def test_a_room_that_is_too_small_is_said_at_once(tiny):
    model = dense(tiny)
    before = logits(model)
    with pytest.raises(Unreachable) as caught:
        run(AWQ(), model, 0.99)
    assert 0.7 < caught.value.nearest < 0.875
    assert torch.equal(logits(model), before)
    with pytest.raises(ValueError, match=r"method.group=5 does not divide in_features=32 of .*; valid: 8, "):
        run(AWQ(group=5), model, 0.5)


def test_no_repair(tiny):
    with pytest.raises(Skip, match="AWQ takes no repair; valid: compensate=none"):
        run(AWQ(), dense(tiny), 0.5, repairer=EoRA())


def test_dead_channels_and_broken_inputs(tiny):
    model = dense(tiny)
    with torch.no_grad():
        model.model.layers[0].input_layernorm.weight[:4] = 0
        model.model.layers[1].mlp.up_proj.weight[:6] = 0
    run(AWQ(), model, 0.7)
    assert torch.isfinite(logits(model)).all()
    broken = dense(tiny)
    with torch.no_grad():
        broken.model.layers[1].mlp.up_proj.weight[3, 3] = float("nan")
    with pytest.raises(ValueError, match="hold nan or inf; valid: finite activations"):
        run(AWQ(), broken, 0.7)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("part", ["down", "up"])
def test_levels_that_float16_can_not_hold_name_the_layer(tiny, part, clip):
    model = dense(tiny)
    with torch.no_grad():
        getattr(model.model.layers[1].mlp, f"{part}_proj").weight.mul_(1e7)
    told = rf"^model\.layers\.1\.mlp\.{part}_proj: codes .* apart; valid: float16 holds up to 65504"
    with pytest.raises(ValueError, match=told):
        run(AWQ(clip=clip), model, 0.7)


BAD = [
    ({"ratios": 0}, "method.ratios=0 is out of range; valid: a whole number >= 1"),
    ({"clip": 1}, "method.clip=1 is no switch; valid: true, false"),
    ({"group": 0}, "method.group=0 is out of range; valid: null, -1"),
]


@pytest.mark.parametrize(("knobs", "message"), BAD, ids=str)
def test_bad_knobs(knobs, message):
    with pytest.raises(ValueError, match=message):
        AWQ(**knobs)
