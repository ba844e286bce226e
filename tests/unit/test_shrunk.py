"""Deleted heads and channels: what is left is what masking leaves, and counts what is written."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crunchmark import artifact
from crunchmark.allocation import equal_shares
from crunchmark.budget import Room, Unreachable
from crunchmark.calib import Calibration
from crunchmark.heads import by_role, channels_of, heads_of
from crunchmark.interface import Layer, Skip
from crunchmark.parts import Pool, fill
from crunchmark.shrunk import Shrinker, keep_channels, keep_groups, rebuild
from crunchmark.stats import InputMean, InputNorm
from crunchmark.view import View
from methods.flap import FLAP
from methods.wanda_sp import WandaSP

BF16, F32 = torch.bfloat16, torch.float32
SCORES = ("WIFN", "UL-UM")


@torch.no_grad()
def logits(model, tokens):
    return model(tokens, use_cache=False).logits


def planned(view, budget, accounting="bytes", scope="blocks", dtype=BF16):
    return equal_shares(view, budget, accounting, scope, dtype)


def mask(site, columns):
    """Inputs that the layer no longer sees."""
    weight = site.module.weight
    rows = weight.shape == (site.shape[1], site.shape[0]) and "Conv1D" in type(site.module).__name__
    with torch.no_grad():
        (weight if rows else weight.T)[columns] = 0


def test_deleting_groups_is_masking_them(tiny, tokens, family):
    masked, shrunk = tiny(family).double(), tiny(family).double()
    for i, kept in enumerate(([1], [0])):
        heads = heads_of(View(masked), i)
        gone = torch.tensor([g for g in range(heads.groups) if g not in kept])
        mask(by_role(View(masked), i)["o"], heads.kept("o", gone))
        keep_groups(View(shrunk), i, torch.tensor(kept))
        assert heads_of(View(shrunk), i).groups == 1
    torch.testing.assert_close(logits(shrunk, tokens), logits(masked, tokens), rtol=0, atol=1e-6)


def test_deleting_channels_is_masking_them(tiny, tokens, family):
    masked, shrunk = tiny(family).double(), tiny(family).double()
    gone, kept = torch.arange(5, 20), torch.tensor([*range(5), *range(20, channels_of(View(masked), 0))])
    mask(by_role(View(masked), 0)["down"], gone)
    keep_channels(View(shrunk), 0, kept)
    torch.testing.assert_close(logits(shrunk, tokens), logits(masked, tokens), rtol=0, atol=1e-6)


@pytest.mark.parametrize("scope", ["blocks", "model"])
@pytest.mark.parametrize("method", [WandaSP(), FLAP()], ids=["wanda_sp", "flap"])
def test_the_budget_is_met_to_one_channel(tiny, tokens, tmp_path, family, method, scope):
    for k, budget in enumerate((0.13, 0.37, 0.5)):
        view = View(tiny(family))
        whole = view.scope_bytes(scope)
        channel = max(p.cost for p in Shrinker(view, planned(view, budget, scope=scope), "").pools[1::2])
        method.compress(view, planned(view, budget, scope=scope), Calibration(tokens))
        folder = tmp_path / str(k)
        folder.mkdir()
        artifact.write(folder, view, {}, BF16, {})
        size = artifact.sizes(folder)[{"blocks": "scope_bytes", "model": "model_bytes"}[scope]]
        assert 0 <= int((1 - budget) * whole) - size < channel


def test_rebuilt_from_its_edit(tiny, tokens, family):
    view, fresh = View(tiny(family)), tiny(family)
    FLAP().compress(view, planned(view, 0.4), Calibration(tokens))
    rebuild(fresh, view.model.crunchmark_edits[0])
    assert fresh.crunchmark_edits == view.model.crunchmark_edits
    assert View(fresh).added() == view.added()
    fresh.load_state_dict(view.model.state_dict())
    assert torch.equal(logits(fresh, tokens), logits(view.model, tokens))


def constant(tiny):
    """An OPT whose MLPs have eight channels that are always one."""
    model = tiny("opt")
    with torch.no_grad():
        for block in View(model).blocks:
            block.fc1.weight[4:12], block.fc1.bias[4:12] = 0, 1
    return model


def test_a_constant_channel_is_free_in_flap(tiny, tokens):
    """Budget: eight channels of every block."""
    want, lost = logits(constant(tiny), tokens), {}
    for compensate in (True, False):
        view = View(constant(tiny))
        plan = planned(view, 0.07, "nominal", dtype=F32)
        FLAP(structure="UL-UM", compensate=compensate).compress(view, plan, Calibration(tokens))
        assert [channels_of(view, i) for i in (0, 1)] == [40, 40]
        lost[compensate] = float((logits(view.model, tokens) - want).abs().max())
    assert lost[True] < 1e-5 < 1e-2 < lost[False]


def test_a_channel_nobody_reads_is_free_in_wanda_sp(tiny, tokens):
    model = tiny("opt")
    with torch.no_grad():
        for block in View(model).blocks:
            block.fc2.weight[:, 7:15] = 0
    want, view = logits(model, tokens), View(model)
    WandaSP().compress(view, planned(view, 0.07, "nominal", dtype=F32), Calibration(tokens, "compressed"))
    assert [channels_of(view, i) for i in (0, 1)] == [40, 40]
    torch.testing.assert_close(logits(model, tokens), want, rtol=0, atol=1e-5)


@torch.no_grad()
def ends(view, tokens):
    """Inputs (tokens, in) of o and down of every block."""
    found, hooks = {}, []
    for i in range(len(view.blocks)):
        for role in ("o", "down"):
            note = lambda m, args, key=(i, role): found.update({key: args[0].flatten(0, -2)})  # noqa: E731
            hooks.append(by_role(view, i)[role].module.register_forward_pre_hook(note))
    logits(view.model, tokens)
    for hook in hooks:
        hook.remove()
    return found


def test_means_in_the_bias_never_hurt_a_layer(tiny, tokens, family):
    """Of all that are compensated, on what they saw in the dense model."""
    dense, view = View(tiny(family)), View(tiny(family))
    plan = planned(view, 0.5, "nominal", dtype=F32)
    FLAP(structure="UL-MM", heads=0.5).compress(view, plan, Calibration(tokens))
    seen = ends(dense, tokens)
    assert len(seen) == 4
    for (i, role), x in seen.items():
        old, new = by_role(dense, i)[role], by_role(view, i)[role]
        w = old.weight()
        same = (new.weight().T[:, None] == w.T).all(-1)  # (kept, in)
        assert same.sum(1).tolist() == [1] * new.shape[1]
        assert new.shape[1] < old.shape[1]
        bias = new.bias if old.bias is None else new.bias - old.bias
        gone = x[:, ~same.any(0)] @ w[:, ~same.any(0)].T
        assert (gone - bias).square().sum() < gone.square().sum()


def test_flap_without_its_ideas_is_wanda_sp(tiny, tokens, family):
    found = []
    for method in (FLAP(*SCORES, compensate=False), WandaSP()):
        view = View(tiny(family))
        method.compress(view, planned(view, 0.4), Calibration(tokens))
        found.append(view.model.state_dict())
    assert set(found[0]) == set(found[1])
    assert all(torch.equal(found[0][k], found[1][k]) for k in found[0])


def test_shares_of_a_plan_are_obeyed(tiny, tokens):
    view = View(tiny("llama"))
    plan, shapes = planned(view, 0.4), view.layers()
    given = {n: Room(int((0.9, 0.3)["layers.1" in n] * 2 * a * b)) for n, (a, b) in shapes.items()}
    plan = type(plan)(given, 0.4, total=plan.total, notes={"allocator": "Mine"})
    before = [sum(a * b for n, (a, b) in shapes.items() if f"layers.{i}" in n) for i in (0, 1)]
    WandaSP().compress(view, plan, Calibration(tokens))
    after = [sum(a * b for n, (a, b) in view.layers().items() if f"layers.{i}" in n) for i in (0, 1)]
    assert [a / b for a, b in zip(after, before, strict=True)] == pytest.approx([0.9, 0.3], abs=0.1)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 30)), min_size=1, max_size=6), st.data())
def test_fill_leaves_less_than_the_smallest_part_left_out(sizes, data):
    pools = [Pool(i, "channels", size, cost) for i, (size, cost) in enumerate(sizes)]
    least = sum(p.cost for p in pools)
    limit = data.draw(st.integers(least, 2 * least + 50))
    seed = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    order = [torch.rand(p.size, generator=seed).sort().values for p in pools]
    counts = fill(pools, order, limit)
    left = limit - sum(n * p.cost for n, p in zip(counts, pools, strict=True))
    assert all(1 <= n <= p.size for n, p in zip(counts, pools, strict=True))
    assert left >= 0
    assert all(p.cost > left for n, p in zip(counts, pools, strict=True) if n < p.size)


@pytest.mark.parametrize("accounting", ["bytes", "nominal"])
def test_out_of_reach(tiny, tokens, accounting):
    view = View(tiny("llama"))
    with pytest.raises(Unreachable) as caught:
        FLAP().compress(view, planned(view, 0.95, accounting), Calibration(tokens))
    assert torch.equal(logits(view.model, tokens), logits(tiny("llama"), tokens))  # nothing was done yet
    FLAP().compress(view, planned(view, caught.value.nearest, accounting), Calibration(tokens))
    assert {channels_of(view, i) for i in (0, 1)} <= {1, 2}


def test_flap_wants_the_dense_model(tiny, tokens):
    view = View(tiny("llama"))
    with pytest.raises(Skip, match=r"calib\.inputs=compressed; valid: dense"):
        FLAP().compress(view, planned(view, 0.2), Calibration(tokens, "compressed"))
    assert FLAP().covers == ("allocate", "compensate")
    assert FLAP(structure="UL-UM").covers == ("compensate",)


def test_calibration_that_changes_nothing_changes_nothing(tiny, tokens):
    """Batches, and sequences in another order, are the same calibration."""
    found = []
    for ids, batch in ((tokens, 2), (tokens, 5), (tokens.flip(0), 2)):
        view = View(copy.deepcopy(tiny("qwen2")))
        FLAP().compress(view, planned(view, 0.4), Calibration(ids, batch=batch))
        found.append(view.model.crunchmark_edits)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("knobs", "match"),
    [
        ({"metric": "up"}, r"method\.metric='up' is unknown; valid: WIFV, IFV, WIFN"),
        ({"structure": "up"}, r"method\.structure='up' is unknown; valid: AL-AM, AL-MM, UL-UM, UL-MM"),
        ({"heads": 2}, r"method\.heads=2 is out of range; valid: 0 <= share <= 1"),
        ({"compensate": 1}, r"method\.compensate=1 is no switch"),
    ],
)
def test_bad_knobs(knobs, match):
    with pytest.raises(ValueError, match=match):
        FLAP(**knobs)


@pytest.mark.parametrize("ratio", [1, 100, 1000])
def test_fluctuation_survives_a_large_mean(ratio):
    """Var = E x^2 - (E x)^2 is a difference of numbers a million times as large."""
    x = torch.randn(4000, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + ratio
    energy, mean = InputNorm(x.square().sum(0), len(x)), InputMean(x.sum(0), x.abs().sum(0), len(x))
    found = FLAP(metric="IFV").score(Layer("x", torch.ones(3, 6), {InputNorm: energy, InputMean: mean}))
    torch.testing.assert_close(found.double(), x.var(0), rtol=1e-5, atol=0)
