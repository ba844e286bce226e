"""Exports as plain folders, read back by transformers: the same logits as the artifact's.

Tolerances: in float32 nothing is rounded; in 16 bit every weight is within half a step of its own.
"""

import pytest
import torch
from cells import HOUSE
from export_cases import BF16, HALF_STEP, same, several, shifted, stored
from transformers import AutoModelForCausalLM, AutoTokenizer

from crunchmark import Sparse, artifact, export
from crunchmark.dropped import drop
from crunchmark.heads import heads_of
from crunchmark.modular import install, record, weights_of
from crunchmark.plain import plain
from crunchmark.shrunk import keep_channels, keep_groups
from crunchmark.shrunk import record as record_shrunk
from crunchmark.sliced import cut, fuse
from crunchmark.view import View


def test_every_family_as_a_plain_folder(tiny, family, tokens, tmp_path):
    folder = stored(tiny(family), tmp_path / "a", several)
    export.to_hf(folder, tmp_path / "out", "float32")
    same(folder, tmp_path / "out", tokens)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_rounds_each_weight_once(tiny, dtype, tmp_path):
    folder = stored(tiny("llama_gqa"), tmp_path / "a", several)
    name = "auto" if dtype == BF16 else "float16"
    export.to_hf(folder, tmp_path / "out", name)
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert back.dtype == dtype
    whole = artifact.load(folder, packed=False).state_dict()
    for key, weight in back.state_dict().items():
        error = (weight.float() - whole[key]).abs()
        assert (error <= HALF_STEP[dtype] * whole[key].abs() + 2**-25).all(), key
    assert f"rounded to {str(dtype)[6:]}" in (tmp_path / "out" / "README.md").read_text()


def test_zeros_and_stored_numbers_stay_exact(tiny, tokens, tmp_path):
    def term(i, site):
        w = site.weight()
        return Sparse.of(w, w.abs() > w.abs().median(), BF16)

    folder = stored(tiny("llama_gqa"), tmp_path / "a", term)
    export.to_hf(folder, tmp_path / "out")
    same(folder, tmp_path / "out", tokens)
    assert "exactly those of the artifact" in (tmp_path / "out" / "README.md").read_text()


def test_a_tied_head_is_written_once(tiny, tokens, tmp_path):
    folder = stored(tiny("llama_gqa", tie_word_embeddings=True), tmp_path / "a", several)
    export.to_hf(folder, tmp_path / "out", "float32")
    back = same(folder, tmp_path / "out", tokens)
    assert back.lm_head.weight.data_ptr() == back.model.embed_tokens.weight.data_ptr()
    note = (tmp_path / "out" / "README.md").read_text()
    assert f"{4 * sum(p.numel() for p in back.parameters()):,} bytes" in note


def test_constants_that_terms_add_become_biases(tiny, tokens, tmp_path):
    folder = stored(
        tiny("llama_gqa"), tmp_path / "a", lambda i, s: shifted(i, s) if s.role in ("o", "down") else None
    )
    export.to_hf(folder, tmp_path / "out", "float32")
    back = same(folder, tmp_path / "out", tokens)
    assert back.config.attention_bias
    assert back.config.mlp_bias
    assert not back.model.layers[0].self_attn.q_proj.bias.any()
    assert back.model.layers[0].self_attn.o_proj.bias.any()


def test_own_biases_stay(tiny, tokens, tmp_path):
    folder = stored(tiny("qwen2"), tmp_path / "a", lambda i, s: shifted(i, s) if s.role == "q" else None)
    export.to_hf(folder, tmp_path / "out", "float32")
    same(folder, tmp_path / "out", tokens)


@pytest.mark.parametrize(("name", "layer"), [("mistral", "self_attn.q_proj"), ("qwen2", "self_attn.o_proj")])
def test_biases_no_config_knows_are_refused(tiny, name, layer, tmp_path):
    role = layer.rpartition(".")[2][0]
    folder = stored(tiny(name), tmp_path / "a", lambda i, s: shifted(i, s) if s.role == role else None)
    with pytest.raises(ValueError, match=rf"no {name} config describes model.layers.0.{layer}.bias"):
        export.to_hf(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tokenizer_and_how_to_generate_go_along(tiny, tmp_path):
    model = tiny("llama_gqa")
    model.generation_config.update(eos_token_id=[2, 7], temperature=0.6, do_sample=True)
    folder = stored(model, tmp_path / "a", several)
    AutoTokenizer.from_pretrained(HOUSE / "tasks/nano/model").save_pretrained(folder)
    export.to_hf(folder, tmp_path / "out")
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "out").generation_config
    assert (read.eos_token_id, read.temperature, read.do_sample) == ([2, 7], 0.6, True)
    words = "People say the harbour was once little."
    ours, theirs = (AutoTokenizer.from_pretrained(p)(words).input_ids for p in (folder, tmp_path / "out"))
    assert ours == theirs
    assert not {artifact.WEIGHTS, artifact.MANIFEST} & {p.name for p in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize("name", ["llama_gqa", "gpt2", "opt", "gemma3_text"])
def test_fewer_blocks_are_an_ordinary_model(tiny, name, tokens, tmp_path):
    changes = {"n_layer" if name == "gpt2" else "num_hidden_layers": 4}
    if name == "gemma3_text":
        changes["layer_types"] = ["sliding_attention", "full_attention"] * 2
    model = tiny(name, **changes)
    drop(View(model), [(1, "attn"), (1, "mlp")], 0.75)
    folder = stored(model, tmp_path / "a", several)
    export.to_hf(folder, tmp_path / "out", "float32")
    assert len(View(same(folder, tmp_path / "out", tokens)).blocks) == 3


def test_blocks_without_a_branch_are_refused(tiny, tmp_path):
    model = tiny("llama_gqa")
    drop(View(model), [(1, "attn")], 0.75)
    folder = stored(model, tmp_path / "a", several)
    with pytest.raises(ValueError, match=r"no llama config describes a model without model\.layers\.1\."):
        export.to_hf(folder, tmp_path / "out")


def shrink(view, kept):
    """Keep the last groups of heads and the first channels, as many as `kept` says of every block."""
    dense = view.scope_bytes("blocks")
    with torch.no_grad():
        for i, (groups, channels) in enumerate(kept):
            keep_groups(view, i, torch.arange(heads_of(view, i).groups)[-groups:])
            keep_channels(view, i, torch.arange(channels))
    record_shrunk(view, dense)


@pytest.mark.parametrize("name", ["llama_gqa", "mistral", "qwen2", "qwen3", "gemma3_text", "phi"])
@pytest.mark.parametrize("kept", [[(1, 20), (1, 20)], [(1, 31), (2, 20)]], ids=["even", "uneven"])
def test_narrower_blocks_are_an_ordinary_model_as_wide_as_the_widest(tiny, name, kept, tokens, tmp_path):
    model = tiny(name)
    shrink(View(model), kept)
    folder = stored(model, tmp_path / "a", several)
    export.to_hf(folder, tmp_path / "out", "float32")
    config = same(folder, tmp_path / "out", tokens).config
    groups, channels = (max(column) for column in zip(*kept, strict=True))
    queries = 1 if name == "phi" else 2
    assert (config.num_key_value_heads, config.num_attention_heads) == (groups, queries * groups)
    assert config.intermediate_size == channels


@pytest.mark.parametrize("name", ["opt", "gpt2", "gpt_neox"])
def test_where_configs_divide_by_heads_their_number_stays(tiny, name, tokens, tmp_path):
    model = tiny(name)
    shrink(View(model), [(2 if name == "opt" else 4, 31), (4, 20)])
    folder = stored(model, tmp_path / "a", several)
    export.to_hf(folder, tmp_path / "out", "float32")
    assert same(folder, tmp_path / "out", tokens).config.num_attention_heads == 4


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox"])
def test_deleted_heads_of_a_fused_layer_are_refused(tiny, name, tmp_path):
    model = tiny(name)
    shrink(View(model), [(2, 20), (4, 20)])
    folder = stored(model, tmp_path / "a", several)
    with pytest.raises(
        ValueError, match=rf"no {name} config describes \w+\.\w+\.0\.att\w+\.\w+\.weight of shape"
    ):
        export.to_hf(folder, tmp_path / "out")


def sliced(model):
    fuse(View(model))
    cut(View(model), 24)


def modular(model):
    view = View(model)
    dense = view.scope_bytes("blocks")
    for i in range(2):
        w = weights_of(view, i)
        install(view, i, w, torch.arange(w.q.shape[2] // 2).expand(len(w.q), -1))
    record(view, dense)


@pytest.mark.parametrize("edit", [sliced, modular])
def test_other_graphs_are_refused(tiny, edit, tmp_path):
    model = tiny("llama_gqa")
    with torch.no_grad():
        edit(model)
    folder = stored(model, tmp_path / "a", lambda i, s: None)
    with pytest.raises(
        ValueError, match=rf"its model is {edit.__name__}: no llama config .*crunchmark\.load"
    ):
        export.to_hf(folder, tmp_path / "out")


def test_a_model_that_computes_otherwise_is_refused(tiny):
    """Same tensors, another function: what no shape shows."""
    model = tiny("llama_gqa")
    model.model.layers[0].self_attn.scaling *= 2
    with pytest.raises(ValueError, match="no llama config describes its logits"):
        plain(model, [])


def test_numbers_too_large_for_a_dtype_are_refused(tiny, tmp_path):
    model = tiny("llama_gqa")
    with torch.no_grad():
        model.model.norm.weight[0] = 1e5
    folder = stored(model, tmp_path / "a", lambda i, s: None)
    with pytest.raises(ValueError, match=r"model\.norm\.weight holds numbers too large for float16"):
        export.to_hf(folder, tmp_path / "out", "float16")
    export.to_hf(folder, tmp_path / "out")
