"""Squared gradients: against autograd's own, made once, of the dense model whatever the inputs."""

from dataclasses import dataclass

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from crunchmark import Fisher, Method
from crunchmark.allocation import equal_shares
from crunchmark.cache import Cache
from crunchmark.calib import Calibration
from crunchmark.compress import compress
from crunchmark.fisher import gather
from crunchmark.shared import Shared
from crunchmark.terms import Zero
from crunchmark.view import View


def fishers(view, calib):
    found = {}
    gather(view, calib, lambda i, some: found.update(some))
    return found


def expected(view, tokens):
    """Mean over sequences of the squared gradients that autograd gives for the model's own loss."""
    totals = {}
    for ids in tokens:
        view.model.zero_grad()
        view.model(ids[None], labels=ids[None]).loss.backward()
        for site in view.all_sites():
            grad = site.module.weight.grad
            grad = grad.T if isinstance(site.module, Conv1D) else grad
            totals[site.name] = totals.get(site.name, 0) + grad.square()
    return {name: total / len(tokens) for name, total in totals.items()}


@pytest.mark.parametrize("spill", [False, True])
def test_is_the_mean_of_squared_gradients(tiny, family, tokens, spill):
    view = View(tiny(family))
    before = {n: p.clone() for n, p in view.model.named_parameters()}
    found = fishers(view, Calibration(tokens, batch=2, spill=spill))
    want = expected(view, tokens)
    assert found.keys() == want.keys()
    for name, value in want.items():
        scale = float(value.max())
        assert scale > 0
        torch.testing.assert_close(found[name].value, value, rtol=2**-8, atol=1e-5 * scale)
    assert all(torch.equal(p, before[n]) for n, p in view.model.named_parameters())
    assert not any(m._forward_hooks for m in view.model.modules())


def test_batches_make_no_difference(tiny, tokens):
    view = View(tiny("llama_gqa"))
    one, all_ = (fishers(view, Calibration(tokens, batch=b)) for b in (1, len(tokens)))
    for name, fisher in one.items():
        torch.testing.assert_close(fisher.value, all_[name].value, rtol=2**-7, atol=0)


def test_float16_says_the_same_of_long_sequences(tiny):
    """Gradients of a mean over a thousand tokens would lie below float16's normal numbers."""
    tokens = torch.randint(64, (2, 1024), generator=torch.Generator().manual_seed(0))
    found = []
    for dtype in (torch.float32, torch.float16):
        model = tiny("llama_gqa", max_position_embeddings=1024)
        model.lm_head.weight.data.mul_(0.03)
        found.append(fishers(View(model.to(dtype)), Calibration(tokens, batch=1)))
    exact, half = found
    for name, fisher in exact.items():
        pair = torch.stack([fisher.value.flatten(), half[name].value.flatten()])
        assert torch.corrcoef(pair)[0, 1] > 0.999, name
        assert half[name].value.sum() / fisher.value.sum() == pytest.approx(1, abs=0.01)


def test_one_token_has_no_next_one(tiny, tokens):
    with pytest.raises(ValueError, match=r"calib\.length=1 has no next token to take gradients for; valid"):
        fishers(View(tiny("llama_gqa")), Calibration(tokens[:, :1]))


def test_overflow_names_the_layer(tiny, tokens):
    view = View(tiny("llama_gqa"))
    view.sites(1)[-1].module.weight.data[0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"model\.layers\.1\..*: gradients hold nan or inf; valid: "):
        fishers(view, Calibration(tokens))


@dataclass(frozen=True)
class Watcher(Method):
    """Remembers what it was shown."""

    seen: dict
    needs = (Fisher,)

    def compress(self, layer, room):
        self.seen[layer.name] = layer[Fisher].value
        return Zero(layer.shape)


@pytest.mark.parametrize("inputs", ["dense", "compressed"])
def test_methods_see_those_of_the_dense_model(tiny, tokens, inputs):
    view, seen = View(tiny("llama_gqa")), {}
    want = fishers(view, Calibration(tokens))
    plan = equal_shares(view, 0.3, "bytes", "blocks", torch.bfloat16)
    compress(Watcher(seen), view, plan, Calibration(tokens, inputs), "tiny")
    assert seen.keys() == want.keys()
    assert all(torch.equal(value, want[name].value) for name, value in seen.items())


def test_one_backward_pass_for_all(tiny, tokens, tmp_path, monkeypatch):
    passes, view, calib = [], View(tiny("llama_gqa")), Calibration(tokens)

    def counted(*args):
        passes.append(1)
        gather(*args)

    monkeypatch.setattr("crunchmark.shared.gather", counted)
    for _ in range(2):  # two processes: nothing is in memory the second time
        with Shared(Cache(tmp_path)).gradients(view, calib, "tiny") as slopes:
            assert slopes(0).keys() == {site.name for site in view.sites(0)}
            assert slopes(1).keys() == {site.name for site in view.sites(1)}
    assert len(passes) == 1


def test_a_small_cache_keeps_no_gradients(tiny, tokens, tmp_path):
    view = View(tiny("llama_gqa"))
    cache = Cache(tmp_path, max_gb=3 * view.scope_bytes("blocks") / 1e9)
    with Shared(cache).gradients(view, Calibration(tokens), "tiny") as slopes:
        assert slopes(1)
    assert not (tmp_path / "gradients").exists()
