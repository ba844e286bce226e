"""SliceGPT: fusing and turning are exact, cutting loses the trailing eigenvalues and nothing else."""

import pytest
import torch

from crunchmark import artifact
from crunchmark.allocation import equal_shares
from crunchmark.budget import Unreachable
from crunchmark.calib import Calibration
from crunchmark.edits import RMSN, matrix, settle
from crunchmark.interface import Skip
from crunchmark.sliced import check_sliceable, cut, fuse, rebuild, sliced_size, steps
from crunchmark.view import View
from methods.slicegpt import SliceGPT

SLICEABLE = ["llama", "llama_gqa", "llama_tied", "mistral", "qwen2", "qwen3", "opt", "gpt2"]
SLICEABLE += ["gpt_neox", "gpt_neox_seq", "phi"]
families = pytest.mark.parametrize("name", SLICEABLE)
BF16 = torch.bfloat16
PLAIN = SliceGPT(align=1)


@torch.no_grad()
def logits(model, tokens):
    return model(tokens, use_cache=False).logits


def in_double(model):
    """The model in float64, its RMS norms too: the library's go through float32."""
    for m in model.double().modules():
        if hasattr(m, "variance_epsilon"):
            m.forward = lambda x, m=m: (
                m.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + m.variance_epsilon)
            )
    return model


def sliced(model, tokens, width, inputs="dense", method=PLAIN):
    """The model cut to that width, with the steps of the method and nothing else."""
    view = View(model)
    with torch.no_grad():
        fuse(view)
        method.slice(view, Calibration(tokens, inputs, batch=2), 32, width)
    return view


def planned(view, budget, accounting="bytes", scope="blocks", dtype=BF16):
    return equal_shares(view, budget, accounting, scope, dtype)


@families
def test_fusing_is_exact(tiny, tokens, name):
    model = in_double(tiny(name))
    want = logits(model, tokens)
    with torch.no_grad():
        fuse(View(model))
    torch.testing.assert_close(logits(model, tokens), want, rtol=0, atol=1e-11)
    norms = [m for m in model.modules() if isinstance(m, RMSN)]
    assert len(norms) == (3 if name == "phi" else 5)  # phi's branches share one norm
    assert {m.width for m in norms} == {32}


@families
@pytest.mark.parametrize("orientation", ["pca", "random"])
@pytest.mark.parametrize("inputs", ["dense", "compressed"])
def test_turning_is_exact(tiny, tokens, name, orientation, inputs):
    model = in_double(tiny(name))
    want = logits(model, tokens)
    view = sliced(model, tokens, 32, inputs, SliceGPT(1, orientation))
    torch.testing.assert_close(logits(model, tokens), want, rtol=0, atol=1e-10)
    for step in steps(view):
        eye = torch.eye(32, dtype=torch.float64)
        torch.testing.assert_close(step.shortcut.T @ step.shortcut, eye, rtol=0, atol=1e-12)


@families
@pytest.mark.parametrize("inputs", ["dense", "compressed"])
def test_orientation_does_not_matter(tiny, tokens, name, inputs):
    pca, random = tiny(name).double(), tiny(name).double()
    sliced(pca, tokens, 20, inputs, SliceGPT(1, "pca"))
    sliced(random, tokens, 20, inputs, SliceGPT(1, "random"))
    head = View(pca).head.weight
    torch.testing.assert_close(logits(random, tokens), logits(pca, tokens), rtol=0, atol=1e-9)
    assert not torch.allclose(View(random).embeddings[0].weight, View(pca).embeddings[0].weight)
    assert head.shape == (64, 32)


class Recorded(SliceGPT):
    """Notes the stream (tokens, D) at every basis."""

    def basis(self, hidden, calib, n, width):
        q = super().basis(hidden, calib, n, width)
        rows = torch.cat([x.flatten(0, 1) for x in hidden]).double()
        SEEN.append((rows, q[:, :width]))
        return q


SEEN = []


def test_the_seed_decides_the_random_orientation(tiny, tokens):
    found = []
    for seed in (0, 0, 1):
        model = tiny("llama")
        calib = Calibration(tokens, "compressed", seed=seed)
        SliceGPT(1, "random").compress(View(model), planned(View(model), 0.3), calib)
        found.append(model.model.embed_tokens.weight)
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2], atol=1e-2)


def dropped(tiny, tokens, name, width, inputs="dense"):
    """Per basis: energy outside the kept space, the trailing eigenvalues, the whole energy."""
    SEEN.clear()
    sliced(tiny(name).double(), tokens, width, inputs, Recorded(align=1))
    found = []
    for rows, kept in SEEN:
        tail = torch.linalg.eigvalsh(rows.T @ rows)[: 32 - width].sum()
        found.append(((rows - rows @ kept @ kept.T).square().sum(), tail, rows.square().sum()))
    return found


@families
@pytest.mark.parametrize("width", [8, 20, 31])
def test_energy_dropped_is_the_trailing_eigenvalues(tiny, tokens, name, width):
    found = dropped(tiny, tokens, name, width)
    assert len(found) == (3 if name in ("phi", "gpt_neox") else 5)  # one before and one after every step
    for lost, tail, whole in found:
        torch.testing.assert_close(lost, tail, rtol=1e-8, atol=1e-10 * float(whole))


@families
def test_dense_bases_are_those_of_the_whole_model(tiny, tokens, name):
    """With dense inputs the stream calibration sees is the uncut one, whatever the width."""
    narrow = dropped(tiny, tokens, name, 8)
    wide = dropped(tiny, tokens, name, 31)
    for (_, _, a), (_, _, b) in zip(narrow, wide, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=0)
    cut_stream = dropped(tiny, tokens, name, 8, "compressed")
    assert any(abs(float(a[2] - b[2])) > 1e-3 for a, b in zip(narrow, cut_stream, strict=True))


@families
@pytest.mark.parametrize("inputs", ["dense", "compressed"])
def test_less_is_dropped_in_a_wider_stream(tiny, tokens, name, inputs):
    shares = []
    for width in (8, 16, 24, 32):
        found = dropped(tiny, tokens, name, width, inputs)
        shares.append(sum(float(lost / whole) for lost, _, whole in found) / len(found))
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 1e-12 < shares[0]


@families
@pytest.mark.parametrize("scope", ["blocks", "model"])
def test_predicted_size_is_what_is_written(tiny, tokens, tmp_path, name, scope):
    for width in (8, 16, 30, 32):
        model = tiny(name)
        predicted = sliced_size(View(model), width, scope)
        view = sliced(model, tokens, width)
        folder = tmp_path / str(width)
        folder.mkdir()
        artifact.write(folder, view, {}, BF16, {})
        key = {"blocks": "scope_bytes", "model": "model_bytes"}[scope]
        assert predicted * 2 == artifact.sizes(folder)[key]


@families
def test_shapes_after_cutting(tiny, tokens, name):
    view = sliced(tiny(name), tokens, 12)
    last = list(steps(view))[-1]
    for step in steps(view):
        out = 32 if step.last else 12
        assert step.shortcut.shape == (12, out)
        assert {matrix(s.module).shape[1] for s in step.readers} == {12}
        assert {matrix(s.module).shape[0] for s in step.writers} == {out}
        assert all(s.bias is None or len(s.bias) == out for s in step.writers)
    assert last.last
    assert view.head.weight.shape == (64, 32)
    assert {e.weight.shape[1] for e in view.embeddings} == {12}
    assert {m.width for m in view.model.modules() if isinstance(m, RMSN)} == {32}


def test_a_tied_head_is_a_copy(tiny, tokens):
    model = tiny("llama_tied")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    sliced(model, tokens, 16)
    assert model.config.tie_word_embeddings is False
    assert model.lm_head.weight.shape == (64, 32)
    assert model.model.embed_tokens.weight.shape == (64, 16)


@families
def test_rebuilt_from_its_edit(tiny, tokens, name):
    view = sliced(tiny(name), tokens, 16)
    (edit,) = view.model.crunchmark_edits
    assert edit == {"kind": "sliced", "width": 16, "nominal": 0.5}
    fresh = tiny(name)
    rebuild(fresh, edit)
    assert fresh.crunchmark_edits == view.model.crunchmark_edits
    fresh.load_state_dict(view.model.state_dict())
    assert torch.equal(logits(fresh, tokens), logits(view.model, tokens))


@families
def test_cached_generation_is_uncached_generation(tiny, tokens, name):
    view = sliced(tiny(name), tokens, 14)
    how = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    cached = view.model.generate(tokens, use_cache=True, **how)
    assert torch.equal(cached, view.model.generate(tokens, use_cache=False, **how))
    assert cached.shape == (5, 18)


def test_a_norm_without_its_own_width_would_show(tiny, tokens):
    """Dividing by the cut width is another model."""
    view = sliced(tiny("llama").double(), tokens, 16)
    want = logits(view.model, tokens)
    for norm in view.model.modules():
        if isinstance(norm, RMSN):
            norm.width = 16
    assert not torch.allclose(logits(view.model, tokens), want, rtol=1e-2)


def test_gemma_is_skipped(tiny):
    view = View(tiny("gemma3_text"))
    for call in (check_sliceable, fuse):
        with pytest.raises(Skip, match="gemma3_text norms a branch's output before adding it"):
            call(view)


def test_width_is_the_largest_that_fits(tiny):
    view = View(tiny("llama"))
    for budget in (0.1, 0.3, 0.5):
        for scope in ("blocks", "model"):
            plan = planned(view, budget, scope=scope)
            room = int((1 - budget) * view.scope_bytes(scope))
            width = SliceGPT(align=1).width(view, plan)
            assert sliced_size(view, width, scope) * 2 <= room < sliced_size(view, width + 1, scope) * 2
            assert SliceGPT(align=8).width(view, plan) == width // 8 * 8
    assert SliceGPT(align=8).width(view, planned(view, 0.3, "nominal")) == 16  # 22.4
    assert SliceGPT(align=1).width(view, planned(view, 0.25, "nominal")) == 24


@pytest.mark.parametrize("accounting", ["bytes", "nominal"])
@families
def test_nearest_width_within_reach(tiny, name, accounting):
    view = View(tiny(name))
    with pytest.raises(Unreachable) as caught:
        SliceGPT().width(view, planned(view, 0.9, accounting))
    assert SliceGPT().width(view, planned(view, caught.value.nearest, accounting)) == 8


def test_budget_zero_is_the_original(tiny, tokens):
    model = tiny("gpt2")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    SliceGPT().compress(View(model), planned(View(model), 0.0), Calibration(tokens))
    after = model.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[k], before[k]) for k in before)


def test_what_is_in_memory_is_what_is_stored(tiny, tokens):
    model = tiny("qwen2")
    SliceGPT().compress(View(model), planned(View(model), 0.3), Calibration(tokens, "compressed"))
    assert all(torch.equal(t, t.to(BF16).to(t)) for t in model.state_dict().values())
    free = tiny("qwen2")
    rotary = {k: v.clone() for k, v in free.named_buffers()}
    settle(free, BF16)
    assert all(torch.equal(v, rotary[k]) for k, v in free.named_buffers())  # no artifact stores them


@pytest.mark.parametrize(
    ("knobs", "match"),
    [
        ({"align": 0}, r"method\.align=0 is out of range; valid: a whole number >= 1"),
        ({"align": 2.5}, r"method\.align=2\.5 is out of range"),
        ({"orientation": "up"}, r"method\.orientation='up' is unknown; valid: pca, random"),
    ],
)
def test_bad_knobs(knobs, match):
    with pytest.raises(ValueError, match=match):
        SliceGPT(**knobs)


def test_align_beyond_the_width(tiny):
    view = View(tiny("llama"))
    with pytest.raises(ValueError, match=r"method\.align=64 is wider than the stream; valid: 1 to 32"):
        SliceGPT(align=64).width(view, planned(view, 0.3))


def test_cutting_without_turning_keeps_the_first_coordinates(tiny):
    view = View(tiny("llama"))
    with torch.no_grad():
        fuse(view)
        want = matrix(view.embeddings[0])[:, :10]
        cut(view, 10)
    assert torch.equal(matrix(view.embeddings[0]), want)
    assert torch.equal(next(steps(view)).shortcut, torch.eye(32)[:10, :10])
