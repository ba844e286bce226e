from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from crunchmark.families import FAMILIES, GROUPS, family_of
from crunchmark.terms import Term
from crunchmark.view import TermLinear, View


class Plain(Term):
    """A dense weight as a term; no kind, so it is not registered."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(w, requires_grad=False)

    @property
    def shape(self):
        return tuple(self.w.shape)

    def forward(self, x):
        return x @ self.w.T.to(x.dtype)

    def dense(self):
        return self.w.data

    def pack(self):
        return {"w": self.w.data}, {}

    @classmethod
    def unpack(cls, tensors, meta):
        return cls(tensors["w"])


def logits(model, tokens):
    with torch.no_grad():
        return model(tokens, use_cache=False).logits


def test_every_row_is_built_somewhere(tiny):
    from tests.conftest import FAMILIES_TINY

    assert {tiny(name).config.model_type for name in FAMILIES_TINY} == set(FAMILIES)


def test_sites_by_role(tiny, family):
    view = View(tiny(family))
    assert len(view.blocks) == 2
    modules = dict(view.model.named_modules())
    linear = [n for n, m in modules.items() if isinstance(m, nn.Linear | Conv1D) and n != view.family.head]
    assert sorted(view.layers()) == sorted(linear)
    for site in view.all_sites():
        assert modules[site.name] is site.module
        assert site.group == GROUPS[site.role]
        assert site.weight().shape == site.shape == view.layers()[site.name]
    roles = [s.role for s in view.sites(0)]
    assert roles in (
        ["q", "k", "v", "o", "gate", "up", "down"],
        ["q", "k", "v", "o", "up", "down"],
        ["qkv", "o", "up", "down"],
    )


def test_weights_multiply_inputs(tiny, family):
    view = View(tiny(family))
    for site in view.sites(1):
        out, width = site.shape
        x = torch.randn(3, width)
        y = x @ site.weight().T + (0 if site.bias is None else site.bias)
        torch.testing.assert_close(site.module(x), y)
        assert y.shape == (3, out)


def test_weight_is_a_copy(tiny, family):
    view = View(tiny(family))
    for site in view.sites(0):
        before = site.weight()
        site.weight().zero_()
        assert torch.equal(site.weight(), before)
        assert before.is_contiguous()


@pytest.mark.parametrize("packed", [False, True])
def test_installing_the_same_weights_changes_nothing(tiny, family, tokens, packed):
    view = View(tiny(family))
    want = logits(view.model, tokens)
    for site in view.all_sites():
        shape = site.shape
        site.install(Plain(site.weight()), packed)
        assert site.shape == shape
        assert isinstance(site.module, TermLinear) == packed
    torch.testing.assert_close(logits(view.model, tokens), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("packed", [False, True])
def test_install_another_weight(tiny, family, packed):
    view = View(tiny(family))
    for site in view.all_sites():
        w = torch.randn(site.shape)
        bias = None if site.bias is None else site.bias.clone()
        site.install(Plain(w), packed)
        assert torch.equal(site.weight(), w)
        site.install(Plain(2 * w), packed)
        assert torch.equal(site.weight(), 2 * w)
        assert bias is None or torch.equal(site.bias, bias)


def test_install_keeps_dtype_and_checks_shape(tiny):
    view = View(tiny("gpt2").bfloat16())
    site = view.sites(0)[0]
    w = torch.randn(site.shape)
    site.install(Plain(w))
    assert site.module.weight.dtype == torch.bfloat16
    assert torch.equal(site.weight(), w.bfloat16().float())
    with pytest.raises(ValueError, match=r"transformer\.h\.0\.attn\.c_attn: the term stands for \(32, 96\)"):
        site.install(Plain(w.T.contiguous()))


def test_parts(tiny, family, tokens):
    view = View(tiny(family))
    assert set(view.norms(0)) == {"attn", "mlp"}
    shared = view.norms(0)["attn"] is view.norms(0)["mlp"]
    assert shared == (family == "phi")
    assert view.family.parallel == (family in ("phi", "gpt_neox"))
    assert view.embeddings[0] is view.model.get_input_embeddings()
    assert view.head is view.model.get_output_embeddings()
    assert len(view.embeddings) == (2 if family in ("opt", "gpt2") else 1)
    with torch.no_grad():
        hidden = view.backbone(tokens, use_cache=False).last_hidden_state
        torch.testing.assert_close(view.head(hidden), logits(view.model, tokens))
    is_layer = isinstance(view.final_norm, nn.LayerNorm)
    assert is_layer == (view.family.norm == "layer")


def test_norm_gain_convention(tiny, family):
    """Scaling what the row says is the gain scales the norm's output."""
    view = View(tiny(family))
    norm, x = view.norms(0)["attn"], torch.randn(4, 32)
    w = norm.weight.data
    bias = norm.bias.data if view.family.norm == "layer" else 0
    before = norm(x) - bias
    norm.weight.data = 2 * w + 1 if view.family.norm == "rms1p" else 2 * w
    torch.testing.assert_close(norm(x) - bias, 2 * before)


def test_scope_bytes(tiny):
    untied, tied = View(tiny("llama")), View(tiny("llama_tied"))
    per_block = 4 * 32 * 32 + 3 * 32 * 48
    assert untied.scope_bytes("blocks") == tied.scope_bytes("blocks") == 2 * 2 * per_block
    norms = 5 * 32
    assert tied.scope_bytes("model") == 2 * (2 * per_block + norms + 64 * 32)
    assert untied.scope_bytes("model") == tied.scope_bytes("model") + 2 * 64 * 32
    with pytest.raises(ValueError, match="scope='all' is unknown; valid: blocks, model"):
        tied.scope_bytes("all")


def test_unknown_model_type():
    with pytest.raises(
        ValueError, match=r"model type 'bloom' is not supported; valid: gemma3_text, .*phi.*"
    ) as e:
        family_of(SimpleNamespace(model_type="bloom"))
    assert "A new row in crunchmark/families.py must say: blocks, embeddings" in str(e.value)


def test_missing_path_is_named(tiny):
    model = tiny("llama")
    del model.model.norm
    with pytest.raises(ValueError, match=r"llama model has no module 'model\.norm'"):
        View(model)
    model = tiny("llama")
    del model.model.layers[1].mlp.up_proj
    with pytest.raises(ValueError, match=r"no module 'model\.layers\.1\.mlp\.up_proj'"):
        View(model)


def test_overlooked_weights_are_refused(tiny):
    model = tiny("llama")
    model.model.layers[1].mlp.router = nn.Linear(32, 4)
    with pytest.raises(
        ValueError, match=r"model\.layers\.1 holds weights that no role names: mlp\.router\.weight"
    ):
        View(model)
    model = tiny("llama")
    model.model.layers[0].mlp.experts = nn.Parameter(torch.zeros(4, 32, 8))
    with pytest.raises(ValueError, match=r"mlp\.experts"):
        View(model)


def test_post_norm_opt_is_refused(tiny):
    with pytest.raises(ValueError, match="not supported"):
        View(tiny("opt", do_layer_norm_before=False))


def test_blocks_follow_removal(tiny):
    view = View(tiny("llama"))
    del view.model.model.layers[0]
    assert len(view.blocks) == 1
    assert all(name.startswith("model.layers.0.") for name in view.layers())
