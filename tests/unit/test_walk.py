import pytest
import torch

from crunchmark.calib import Calibration
from crunchmark.stats import Gram, InputNorm
from crunchmark.view import View
from crunchmark.walk import Stream, statistics, walk


def final_norm_input(view, tokens):
    """What the whole model feeds its final norm, by its own forward."""
    seen = []
    hook = view.final_norm.register_forward_pre_hook(lambda m, args: seen.append(args[0].clone()))
    with torch.no_grad():
        view.model(tokens, use_cache=False)
    hook.remove()
    return seen[0]


def hooks(model):
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())


def patched(model):
    return [n for n, m in model.named_modules() if "forward" in m.__dict__]


@pytest.mark.parametrize("inputs", ["dense", "compressed"])
def test_identity_walk_is_the_model(tiny, family, tokens, inputs):
    view = View(tiny(family))
    want = final_norm_input(view, tokens)
    before = {n: p.clone() for n, p in view.model.named_parameters()}
    stream = walk(
        view, Calibration(tokens, inputs, batch=2), (InputNorm,), lambda i, sites, stats: None, tail=True
    )
    torch.testing.assert_close(torch.cat(stream.hidden), want, rtol=0, atol=1e-6)
    assert all(torch.equal(p, before[n]) for n, p in view.model.named_parameters())
    assert hooks(view.model) == 0
    assert patched(view.model) == []


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_replay_with_masks(tiny, tokens, attention):
    view = View(tiny("gemma3_text", attn_implementation=attention))
    stream = walk(view, Calibration(tokens, batch=3), (InputNorm,), lambda i, sites, stats: None, tail=True)
    torch.testing.assert_close(torch.cat(stream.hidden), final_norm_input(view, tokens), rtol=0, atol=1e-6)


def test_gemma_blocks_differ_in_arguments(tiny, tokens):
    stream = Stream.capture(View(tiny("gemma3_text", attn_implementation="eager")), tokens, 5)
    local, glob = (call[1]["attention_mask"] for call in stream.calls[0])
    assert not torch.equal(local, glob)


def test_gram_is_the_manual_product(tiny, family, tokens):
    view = View(tiny(family))
    inputs = {}
    handles = [
        s.module.register_forward_pre_hook(lambda m, a, n=s.name: inputs.__setitem__(n, a[0].clone()))
        for s in view.all_sites()
    ]
    with torch.no_grad():
        view.model(tokens, use_cache=False)
    for handle in handles:
        handle.remove()
    stats = statistics(view, Calibration(tokens, batch=2), (Gram,))
    assert set(stats) == set(inputs) == set(view.layers())
    for name, x in inputs.items():
        flat = x.reshape(-1, x.shape[-1]).double()
        torch.testing.assert_close(stats[name][Gram].value, flat.T @ flat, rtol=1e-5, atol=1e-4)
        assert stats[name][Gram].tokens == tokens.numel()


def test_groups_share_one_statistic_and_norms_come_from_the_gram(tiny, tokens):
    view = View(tiny("llama"))
    stats = statistics(view, Calibration(tokens), (InputNorm, Gram))
    at = {s.role: stats[s.name] for s in view.sites(0)}
    assert at["q"][Gram] is at["k"][Gram] is at["v"][Gram]
    assert at["gate"][Gram] is at["up"][Gram] is not at["q"][Gram]
    alone = statistics(view, Calibration(tokens), (InputNorm,))
    for name, found in stats.items():
        torch.testing.assert_close(found[InputNorm].value, alone[name][InputNorm].value)
        assert Gram not in alone[name]


def halve_first(view):
    def visit(i, sites, stats):
        if i == 0:
            for site in sites:
                site.module.weight.data.mul_(0.5)

    return visit


def test_dense_and_compressed_inputs(tiny, tokens):
    got = {}
    for inputs in ("dense", "compressed"):
        view, seen = View(tiny("llama")), {}
        change = halve_first(view)

        def visit(i, sites, stats, seen=seen, change=change):
            seen[i] = {s.role: stats[s.name][InputNorm].value for s in sites}
            change(i, sites, stats)

        stream = walk(view, Calibration(tokens, inputs), (InputNorm,), visit, tail=True)
        got[inputs] = seen, stream, view
    (dense, dense_end, _), (comp, comp_end, changed) = got["dense"], got["compressed"]
    assert torch.equal(dense[0]["q"], comp[0]["q"])
    assert not torch.allclose(dense[1]["q"], comp[1]["q"], rtol=1e-2)
    original = View(tiny("llama"))
    torch.testing.assert_close(torch.cat(dense_end.hidden), final_norm_input(original, tokens))
    torch.testing.assert_close(torch.cat(comp_end.hidden), final_norm_input(changed, tokens))
    untouched = statistics(original, Calibration(tokens), (InputNorm,))
    assert torch.equal(dense[1]["q"], untouched["model.layers.1.self_attn.q_proj"][InputNorm].value)


def test_no_needs_runs_no_forward(tiny):
    view, seen = View(tiny("gpt2")), []
    view.model.forward = view.backbone.forward = None
    assert walk(view, None, (), lambda i, sites, stats: seen.append((i, stats[sites[0].name]))) is None
    assert seen == [(0, {}), (1, {})]
    with pytest.raises(ValueError, match="Gram need calibration"):
        walk(view, None, (Gram,), lambda *a: None)


def test_error_leaves_no_hook_and_no_stub(tiny, tokens):
    view = View(tiny("llama"))

    def boom(*args):
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        walk(view, Calibration(tokens), (Gram,), boom)
    view.model.model.norm.register_forward_pre_hook(boom)
    with pytest.raises(RuntimeError, match="boom"):
        Stream.capture(view, tokens, 2)
    view.model.model.norm._forward_pre_hooks.clear()
    view.model.model.layers[0].mlp.forward = boom
    with pytest.raises(RuntimeError, match="boom"):
        statistics(view, Calibration(tokens), (Gram,))
    del view.model.model.layers[0].mlp.forward
    assert hooks(view.model) == 0
    assert patched(view.model) == []


def test_nan_names_the_layer(tiny, tokens):
    view = View(tiny("llama"))
    view.model.model.layers[1].self_attn.v_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"layers\.1\.self_attn\.o_proj: calibration inputs hold nan"):
        statistics(view, Calibration(tokens), (Gram,))


def test_spill_equals_memory(tiny, tokens):
    ends = []
    for spill in (False, True):
        view = View(tiny("llama").bfloat16())
        end = walk(
            view,
            Calibration(tokens, "compressed", batch=2, spill=spill),
            (Gram,),
            halve_first(view),
            tail=True,
        )
        ends.append(torch.cat(end.hidden))
    assert ends[0].dtype == torch.bfloat16
    assert torch.equal(*ends)


def test_forward_with_own_function(tiny, tokens):
    stream = Calibration(tokens, batch=2).stream(View(tiny("llama")))
    plain = torch.cat(list(stream.forward(0)))
    own = torch.cat(list(stream.forward(0, lambda block, h, args, kwargs: (block(h, *args, **kwargs),))))
    assert torch.equal(plain, own)
    assert plain.shape == (5, 12, 32)
    doubled = torch.cat(list(stream.forward(0, lambda block, h, args, kwargs: 2 * h)))
    assert torch.equal(doubled, 2 * torch.cat(stream.hidden))


def test_mode_and_gradients_are_restored(tiny, tokens):
    view, seen = View(tiny("gpt2").train()), []
    walk(view, Calibration(tokens), (Gram,), lambda *a: seen.append(torch.is_grad_enabled()))
    assert view.model.training
    assert seen == [True, True]


def test_tokens_the_model_can_not_take(tiny, tokens):
    view = View(tiny("gpt2"))
    with pytest.raises(ValueError, match="token id 64 is outside the model's vocabulary of 64"):
        Stream.capture(view, tokens.clamp(min=64), 2)
    with pytest.raises(ValueError, match="sequences of 65 tokens; the model has 64 positions"):
        Stream.capture(view, torch.zeros(1, 65, dtype=torch.int64), 2)
    with pytest.raises(ValueError, match="batch 0"):
        Stream.capture(view, tokens, 0)


@pytest.mark.parametrize("inputs", ["dense", "compressed"])
def test_nothing_runs_behind_the_last_layer_that_is_watched(tiny, tokens, inputs):
    """Compressed inputs: of two passes only the one onward; dense inputs: all but the last block's."""
    view, seen, calls = View(tiny("llama")), {}, [[], []]
    for i, block in enumerate(view.blocks):
        block.mlp.down_proj.register_forward_hook(lambda m, a, out, i=i: calls[i].append(len(out)))
    walk(view, Calibration(tokens, inputs, batch=2), (InputNorm,), lambda i, s, stats: seen.update(stats))
    batches = -(-len(tokens) // 2)
    assert [len(c) for c in calls] == [batches, 0]
    assert all(stats[InputNorm].tokens == tokens.numel() for stats in seen.values())
    whole = statistics(View(tiny("llama")), Calibration(tokens, batch=2), (InputNorm,))
    for name, stats in whole.items():
        assert torch.equal(stats[InputNorm].sums, seen[name][InputNorm].sums)


def test_only_the_roles_asked_for_have_statistics(tiny, tokens):
    view = View(tiny("llama_gqa"))
    every = statistics(view, Calibration(tokens), (InputNorm,))
    some = statistics(view, Calibration(tokens), (InputNorm,), roles=("o", "down"))
    assert set(some) == set(every)
    roles = {site.name: site.role for site in view.all_sites()}
    for name, stats in some.items():
        assert list(stats) == ([InputNorm] if roles[name] in ("o", "down") else [])
        for stat in stats.values():
            assert torch.equal(stat.sums, every[name][InputNorm].sums)
