"""MoDeGPT's three kinds of modules: each is the optimum it is said to be, and full size is exact."""

import pytest
import torch

from crunchmark import artifact
from crunchmark.allocation import equal_shares
from crunchmark.calib import Calibration
from crunchmark.heads import by_role, heads_of
from crunchmark.interface import Layer, Skip
from crunchmark.ladders import entropic
from crunchmark.modular import Weights, fold_values, install, rebuild, rotary, weights_of
from crunchmark.modules import Narrower
from crunchmark.stats import Gram, InputMean
from crunchmark.view import View
from crunchmark.walk import statistics
from methods.modegpt import MoDeGPT, energies, nystroem, selected, values

BF16 = torch.bfloat16
WORKING = ["llama", "llama_gqa", "mistral", "qwen2", "opt", "gpt2", "gpt_neox", "gpt_neox_seq", "phi"]
families = pytest.mark.parametrize("name", WORKING)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.no_grad()
def logits(model, tokens):
    return model(tokens, use_cache=False).logits


def planned(view, budget, scope="blocks"):
    return equal_shares(view, budget, "bytes", scope, BF16)


def seen(x, weight):
    """A layer that saw the rows of x."""
    gram, mean = Gram.zero(x.shape[1]), InputMean.zero(x.shape[1])
    gram.sums, gram.tokens = x.T @ x, len(x)
    mean.sums, mean.tokens = x.sum(0), len(x)
    return Layer("x", weight.float(), {Gram: gram, InputMean: mean})


def test_nystroem_is_least_squares():
    z, w = normal(200, 12) @ normal(12, 12, seed=1), normal(5, 12, seed=2).float().double()
    kept, down = nystroem(seen(z, w), 7, 1e-10)
    best = torch.linalg.lstsq(z[:, kept], z @ w.T).solution.T
    torch.testing.assert_close(down, best, rtol=0, atol=1e-6)
    error = (z @ w.T - z[:, kept] @ down.T).square().sum()
    assert error <= (z @ w.T - z[:, kept] @ w[:, kept].T).square().sum()
    for k in range(60):
        other = down + 10.0 ** -(k % 5 + 1) * down.std() * normal(5, 7, seed=k + 10)
        assert error < (z @ w.T - z[:, kept] @ other.T).square().sum()
    assert torch.equal(nystroem(seen(z, w), 12, 0.01)[1], w)


def test_the_ridge_of_nystroem_pulls_to_the_old_weight():
    z, w = normal(200, 12) @ normal(12, 12, seed=1), normal(5, 12, seed=2).float().double()
    kept, down = nystroem(seen(z, w), 7, 0.01)
    pull = (0.01 * (z.T @ z).diagonal().mean()).sqrt() * torch.eye(7, dtype=torch.float64)
    left, right = torch.cat([z[:, kept], pull]), torch.cat([z @ w.T, pull @ w[:, kept].T])
    torch.testing.assert_close(down, torch.linalg.lstsq(left, right).solution.T, rtol=0, atol=1e-8)


def test_few_tokens_do_not_blow_nystroem_up():
    mix, w = normal(16, 64) * 2, normal(8, 64, seed=2).float().double()
    few, held = (normal(n, 16, seed=n) @ mix + normal(n, 64, seed=n + 1) for n in (24, 500))
    layer = seen(few, w)
    layer[Gram].sums = (few.float().T @ few.float()).double()  # as the walker has it
    kept, down = nystroem(layer, 48, 0.01)
    errors = [(held @ w.T - held[:, kept] @ d.T).square().sum() for d in (down, w[:, kept])]
    assert errors[0] < 1.1 * errors[1]


def test_a_dead_channel_and_few_tokens():
    z = normal(4, 12)
    z[:, 3] = 0
    kept, down = nystroem(seen(z, normal(5, 12, seed=2)), 7, 0.01)
    assert 3 not in kept
    assert torch.isfinite(down).all()


def one_group(d, width, queries):
    v, o = normal(1, d, width, seed=3), normal(1, d, queries, width, seed=4)
    empty = torch.zeros(1, d, dtype=torch.float64)
    return Weights(v[:, None], v, v, o, empty[:, None], empty, empty)


@pytest.mark.parametrize("queries", [1, 3])
def test_the_error_of_values_is_the_tail(queries):
    x = normal(300, 10) @ normal(10, 10, seed=1)
    old, c = one_group(6, 10, queries), x.T @ x / 300
    whole = old.v[0].T @ old.o[0].flatten(1)  # (D, g D)
    root = torch.linalg.cholesky(c).T
    tail = torch.linalg.svdvals(root @ whole)
    for count in (1, 3, 5, 6):
        v, o = values(old, c, count)
        error = (root @ (whole - v[0].T @ o[0].flatten(1))).square().sum()
        torch.testing.assert_close(error, tail[count:].square().sum(), rtol=1e-7, atol=1e-9)


def test_energies_are_those_of_the_outputs():
    x, w, b = normal(50, 8) + 1, normal(3, 8, seed=1), normal(3, seed=2)
    want = (x @ w.T + b).square().mean(0)
    torch.testing.assert_close(energies(w, b, seen(x, w)), want, rtol=1e-6, atol=0)


@families
def test_full_size_is_exact(tiny, tokens, name):
    """Values' bias folded, every dimension there: the model computes what it did."""
    model = tiny(name).double()
    want, view = logits(model, tokens), View(model)
    for i in (0, 1):
        half = rotary(view, i) // 2
        pairs = torch.arange(half).expand(heads_of(view, i).groups, half)
        fold_values(view, i)
        install(view, i, weights_of(view, i), pairs)
    torch.testing.assert_close(logits(model, tokens), want, rtol=0, atol=1e-6)
    assert by_role(view, 0)["o"].bias is not None or name in ("llama", "llama_gqa", "mistral")


@families
def test_selected_dimensions_are_masked_dimensions(tiny, tokens, name):
    masked, narrow = tiny(name).double(), tiny(name).double()
    for i in (0, 1):
        view, other = View(masked), View(narrow)
        heads, old, turned = heads_of(view, i), weights_of(view, i), rotary(view, i)
        half, rest = turned // 2, heads.width - turned
        reader = seen(normal(60, 32, seed=i), normal(1, 32))
        pairs, dims = selected(old, reader, max(1, half // 2) if half else 0, rest // 2, turned)
        install(other, i, cut(old, dims), pairs)
        gone = [[d for d in range(heads.width) if d not in kept] for kept in dims.tolist()]
        for g, lost in enumerate(gone):
            old.q[g][:, lost], old.q_bias[g][:, lost] = 0, 0
        install(view, i, old, torch.arange(half).expand(heads.groups, half))
    torch.testing.assert_close(logits(narrow, tokens), logits(masked, tokens), rtol=0, atol=1e-6)


def cut(old, dims):
    """Queries and keys at some dimensions only."""
    q, q_bias = (torch.stack([w[:, d] for w, d in zip(x, dims, strict=True)]) for x in (old.q, old.q_bias))
    k, k_bias = (torch.stack([w[d] for w, d in zip(x, dims, strict=True)]) for x in (old.k, old.k_bias))
    return Weights(q, k, old.v, old.o, q_bias, k_bias, old.v_bias)


def test_pairs_score_the_same_however_turned():
    old, x = one_group(6, 10, 1), normal(80, 10)
    a, b = torch.tensor(0.6), torch.tensor(0.8)
    turn = torch.eye(6, dtype=torch.float64)
    for p in range(3):
        turn[p, p], turn[p, p + 3], turn[p + 3, p], turn[p + 3, p + 3] = a, -b, b, a
    other = Weights(turn @ old.q, turn @ old.k, old.v, old.o, old.q_bias, old.k_bias, old.v_bias)
    want = selected(old, seen(x, old.v[0]), 2, 0, 6)
    assert torch.equal(selected(other, seen(x, old.v[0]), 2, 0, 6)[0], want[0])


def test_a_group_counts_all_its_query_heads():
    """Pair 0 is the first head's, pair 1 the second's, and together pair 1 has more energy."""
    d, wide = 4, 8
    x, q = normal(200, wide), torch.zeros(1, 2, d, wide, dtype=torch.float64)
    q[0, 0, 0, 0], q[0, 1, 1, 0] = 2.0, 3.0
    k = torch.zeros(1, d, wide, dtype=torch.float64)
    k[0, :, 0] = 1.0
    none = torch.zeros(1, d, dtype=torch.float64)
    old = Weights(q, k, k, q.transpose(1, 2), torch.zeros(1, 2, d, dtype=torch.float64), none, none)
    assert selected(old, seen(x, k[0]), 1, 0, d)[0].tolist() == [[1]]
    first = Weights(q[:, :1], k, k, q[:, :1].transpose(1, 2), none[:, None], none, none)
    assert selected(first, seen(x, k[0]), 1, 0, d)[0].tolist() == [[0]]


def test_the_allocation_keeps_its_mean():
    lost = entropic([0.1, 0.2, 0.4], 0.3, 0.1, 1.0)
    assert sum(lost) / 3 == pytest.approx(0.3)
    assert lost == sorted(lost, reverse=True)
    assert entropic([0.1, 0.2, 0.4], 0.3, 1e9, 1.0) == pytest.approx([0.3] * 3)
    capped = entropic([0.0, 0.5, 0.6], 0.4, 0.05, 0.8)
    assert max(capped) == pytest.approx(0.8)
    assert sum(capped) / 3 == pytest.approx(0.4)
    assert entropic([0.0, 9.0], 0.9, 0.05, 0.8) == pytest.approx([0.9, 0.9])


@families
@pytest.mark.parametrize("scope", ["blocks", "model"])
def test_the_budget_is_met_to_one_step(tiny, tokens, tmp_path, name, scope):
    view = View(tiny(name))
    plan, whole = planned(view, 0.35, scope), view.scope_bytes(scope)
    step = max(pool.cost for pool in Narrower(view, plan, "").pools)
    MoDeGPT().compress(view, plan, Calibration(tokens))
    artifact.write(tmp_path, view, {}, BF16, {})
    size = artifact.sizes(tmp_path)[{"blocks": "scope_bytes", "model": "model_bytes"}[scope]]
    assert 0 <= int(0.65 * whole) - size < step


@families
def test_at_full_size_everything_is_counted_once(tiny, name):
    """Biases that a layer has, and no others; that of v goes into that of o."""
    view = View(tiny(name))
    narrower = Narrower(view, planned(view, 0.35, "model"), "")
    have = {id(p): p.numel() for block in view.blocks for p in block.parameters()}
    for i in range(len(view.blocks)):
        sites = by_role(view, i)
        if "v" in sites and sites["v"].bias is not None:
            have.pop(id(sites["v"].bias))
    pairs = sum(
        pool.size * heads_of(view, pool.block).groups for pool in narrower.pools if pool.kind == "pairs"
    )
    new = sum(by_role(view, i)["o"].shape[0] for i in range(2) if name == "qwen2")
    counted = narrower.fixed + sum(pool.size * pool.cost for pool in narrower.pools)
    assert counted == 2 * (sum(have.values()) + new) + pairs


@families
@torch.no_grad()
def test_rebuilt_from_its_edit(tiny, tokens, name):
    view, fresh = View(tiny(name)), tiny(name)
    MoDeGPT().compress(view, planned(view, 0.4), Calibration(tokens, "compressed"))
    rebuild(fresh, view.model.crunchmark_edits[0])
    assert fresh.crunchmark_edits == view.model.crunchmark_edits
    assert View(fresh).added() == view.added()
    fresh.load_state_dict(view.model.state_dict())
    assert torch.equal(logits(fresh, tokens), logits(view.model, tokens))
    how = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    cached = fresh.generate(tokens, use_cache=True, **how)
    assert torch.equal(cached, fresh.generate(tokens, use_cache=False, **how))


@pytest.mark.parametrize("name", ["llama_gqa", "gpt2"])
@torch.no_grad()
def test_with_compressed_inputs_a_block_is_fitted_to_what_it_will_see(tiny, tokens, monkeypatch, name):
    """Block 1 is shown the outputs of the narrowed block 0, and its down is least squares on these."""
    found, narrow = {}, Narrower.narrow

    def noted(self, i, channels, down, attention, pairs):
        layers = {s.role: s for s in self.view.sites(i)}
        found[i] = channels, down, layers["down"].weight().double()
        narrow(self, i, channels, down, attention, pairs)

    monkeypatch.setattr(Narrower, "narrow", noted)
    models = {inputs: tiny(name) for inputs in ("dense", "compressed")}
    for inputs, model in models.items():
        view = View(model)
        plan = equal_shares(view, 0.4, "bytes", "blocks", torch.float32)
        MoDeGPT().compress(view, plan, Calibration(tokens, inputs))
        models[inputs] = model, dict(found)
    (_, dense), (model, found) = models["dense"], models["compressed"]
    assert torch.equal(dense[0][1], found[0][1])  # nothing is compressed before it
    assert dense[1][1].shape != found[1][1].shape or not torch.equal(dense[1][1], found[1][1])
    half, whole = View(model), View(tiny(name))
    half.model.get_submodule(half.family.blocks)[1] = whole.blocks[1]  # behind the narrowed one
    stats = statistics(half, Calibration(tokens), (Gram,))
    (gram,) = [stats[s.name][Gram].value for s in half.sites(1) if s.role == "down"]
    channels, down, weight = found[1]
    pull = MoDeGPT().ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)[channels]
    left, right = gram[channels][:, channels] + pull[:, channels], (gram[channels] + pull) @ weight.T
    torch.testing.assert_close(down, torch.linalg.solve(left, right).T, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("wide", "values"), [(4, 8), (8, 6)])
@torch.no_grad()
def test_unequal_widths_meet_the_fused_kernel(tiny, tokens, monkeypatch, wide, values):
    """Queries and keys, or values, get zeros behind: the answers of plain attention, from one kernel."""
    model = tiny("llama_gqa").double()
    view, half = View(model), wide // 2
    for i in (0, 1):
        old, pairs = weights_of(view, i), torch.arange(half).expand(heads_of(view, i).groups, half)
        new = cut(old, torch.cat([pairs, pairs + 4], 1))
        new.v, new.o = old.v[:, :values], old.o[:, :values]
        install(view, i, new, pairs)
    got, sdpa = logits(model, tokens), torch.nn.functional.scaled_dot_product_attention
    model.config._attn_implementation = "eager"
    torch.testing.assert_close(got, logits(model, tokens), rtol=0, atol=1e-6)  # eager: softmax in float32
    model.config._attn_implementation = "sdpa"
    seen_widths = []

    def watched(q, k, v, *args, **kwargs):
        seen_widths.append((q.shape[-1], k.shape[-1], v.shape[-1]))
        return sdpa(q, k, v, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    logits(model, tokens)
    assert seen_widths == [(8, 8, 8)] * 2


@pytest.mark.parametrize("name", ["qwen3", "gemma3_text"])
def test_norms_of_queries_and_keys_are_refused(tiny, tokens, name):
    view = View(tiny(name))
    with pytest.raises(Skip, match=f"{name} norms queries and keys per head"):
        MoDeGPT().compress(view, planned(view, 0.2), Calibration(tokens))


def test_bad_knobs():
    for knob in ("eps", "ridge", "cap"):
        with pytest.raises(ValueError, match=rf"method\.{knob}=-1 is out of range"):
            MoDeGPT(**{knob: -1})
