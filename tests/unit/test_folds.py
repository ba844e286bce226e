"""Scales that move between modules leave the model as it was, and only where they do are they used."""

import pytest
import torch

from crunchmark.calib import Calibration
from crunchmark.edits import settle
from crunchmark.folds import Gain, foldable, sampled
from crunchmark.hooks import recording, watching
from crunchmark.stats import InputMean
from crunchmark.view import View

TOKENS = torch.randint(3, 64, (8, 16), generator=torch.Generator().manual_seed(2))
QKV = ("q", "k", "v")
READERS = {  # by family: the layers that can be scaled together
    "llama": [QKV, ("o",), ("gate", "up"), ("down",)],
    "llama_gqa": [QKV, ("gate", "up"), ("down",)],  # several query heads read one value
    "llama_tied": [QKV, ("o",), ("gate", "up"), ("down",)],
    "mistral": [QKV, ("gate", "up"), ("down",)],
    "qwen2": [QKV, ("gate", "up"), ("down",)],
    "qwen3": [QKV, ("gate", "up"), ("down",)],
    "gemma3_text": [QKV, ("gate", "up"), ("down",)],
    "opt": [QKV, ("o",), ("up",), ("down",)],  # ReLU lets a positive scale through
    "gpt2": [("qkv",), ("o",), ("up",)],  # GELU does not
    "gpt_neox": [("qkv",), ("o",), ("up",)],
    "gpt_neox_seq": [("qkv",), ("o",), ("up",)],
    "phi": [(*QKV, "up"), ("o",)],  # one norm for both branches
}


@torch.no_grad()
def logits(model):
    return model(TOKENS, use_cache=False).logits


def opened(model):
    view = View(model)
    return view, Calibration(TOKENS, batch=4).stream(view)


def roles(fold):
    return tuple(site.role for site in fold.readers)


PLAIN = [
    f for f in READERS if f not in ("opt", "gpt2", "gpt_neox", "gpt_neox_seq", "phi")
]  # no bias is folded
CASES = [(f, torch.float32) for f in READERS] + [(f, torch.bfloat16) for f in PLAIN]


@torch.no_grad()
@pytest.mark.parametrize(("family", "dtype"), CASES, ids=str)
def test_folding_changes_nothing(tiny, family, dtype):
    """Nor does storing the smaller gain in 16 bit: the scale is what is left of it."""
    model = tiny(family)
    settle(model, dtype)
    view, stream = opened(model)
    want, generator = logits(model), torch.Generator().manual_seed(4)
    for i in range(2):
        found = foldable(view, i, stream)
        assert [roles(fold) for fold in found] == READERS[family]
        for fold in found:
            before = fold.readers[0].weight()
            s = torch.exp(torch.randn(fold.readers[0].shape[1], generator=generator))
            fold.apply(fold.giver.exact(s, dtype), dtype)
            assert float((fold.readers[0].weight() / before - 1).abs().max()) > 1
            if isinstance(fold.giver, Gain):
                gain = fold.giver.module.weight
                assert torch.equal(gain, gain.to(dtype).float())
        stream.advance(stream.forward(i))
    assert float((logits(model) - want).norm() / want.norm()) < 1e-5


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2", "phi"])
def test_trying_leaves_no_trace(tiny, family):
    model = tiny(family)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    view, stream = opened(model)
    hidden = [h.clone() for h in stream.hidden]
    with torch.no_grad():
        foldable(view, 0, stream)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(stream.hidden, hidden, strict=True))
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_the_table_is_whole(family):
    assert family in READERS


@torch.no_grad()
def test_biases_are_stored_as_the_model_is(tiny):
    model = tiny("gpt2")
    settle(model, torch.bfloat16)
    view, stream = opened(model)
    for fold in foldable(view, 0, stream):
        fold.apply(torch.rand(fold.readers[0].shape[1]) + 0.5, torch.bfloat16)
        biases = [p for p in fold.giver.module.parameters() if p.ndim == 1]
        assert biases
        assert all(torch.equal(p, p.bfloat16().float()) for p in biases)


@torch.no_grad()
def test_a_gain_that_can_not_be_scaled_stays(tiny):
    """A dead channel, and scales beyond what float16 holds."""
    model = tiny("llama")
    norm = model.model.layers[0].input_layernorm
    norm.weight[3], norm.weight[5] = 0, 1.0
    s = torch.full((32,), 2.0)
    s[5] = 1e-9
    found = Gain(norm, 0.0).exact(s, torch.float16)
    assert found[3] == found[5] == 1
    others = [k for k in range(32) if k not in (3, 5)]
    torch.testing.assert_close(found[others], s[others], rtol=2e-3, atol=0)


@torch.no_grad()
def test_a_norm_that_feeds_something_else_is_no_fold(tiny):
    """As in a block that norms behind its branches."""
    model = tiny("llama")
    block = model.model.layers[0]
    plain = block.forward
    block.forward = lambda hidden, **kwargs: plain(hidden, **kwargs) + block.input_layernorm(hidden)
    view, stream = opened(model)
    assert [roles(fold) for fold in foldable(view, 0, stream)] == READERS["llama"][1:]


@torch.no_grad()
@pytest.mark.parametrize("advance", [False, True])
@pytest.mark.parametrize("count", [1, 20, 64, 10**6])
def test_sampled_inputs_are_every_so_many_th(tiny, count, advance):
    view, stream = opened(tiny("llama_gqa"))
    sites = view.sites(0)
    up = next(site for site in sites if site.role == "up")
    with recording(up.module) as calls, watching([up], (InputMean,)) as stats:
        outputs = list(stream.forward(0))
    whole = torch.cat([args[0].flatten(0, 1) for args, _ in calls])  # (tokens, in)
    before = [h.clone() for h in stream.hidden]
    found = sampled(stream, 0, sites, count, advance)
    every = max(1, len(whole) // count)
    assert set(found) == {"attn_in", "o_in", "mlp_in", "down_in"}
    assert torch.equal(found["mlp_in"], whole[::every])
    assert all(torch.equal(a, b) for a, b in zip(stream.hidden, outputs if advance else before, strict=True))
    torch.testing.assert_close(stats[up.name][InputMean].absolute, whole.abs().mean(0))
