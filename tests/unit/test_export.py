"""Exports, read back by transformers and compressed-tensors: the same logits as the artifact's.

Tolerances: in float32 nothing is rounded; in 16 bit every weight is within half a step of its own.
"""

import errno
import json
import re

import pytest
import torch
from cells import HOUSE
from term_cases import quantised
from transformers import AutoModelForCausalLM, AutoTokenizer

from crunchmark import Layer, LowRank, Room, Shift, Sparse, Sum, artifact, export, pack_quantized
from crunchmark.dropped import drop
from crunchmark.heads import heads_of
from crunchmark.modular import install, record, weights_of
from crunchmark.plain import plain
from crunchmark.shrunk import keep_channels, keep_groups
from crunchmark.shrunk import record as record_shrunk
from crunchmark.sliced import cut, fuse
from crunchmark.terms import KINDS, Dense, unpack_bits
from crunchmark.view import View
from methods.hqq import HQQ

BF16 = torch.bfloat16
HALF_STEP = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}  # relative, of a rounding
EXACT = {"rtol": 0, "atol": 1e-5}  # of logits around 2: sums in another order


@pytest.fixture
def ct():
    return pytest.importorskip("compressed_tensors", reason="the extra `export` is not installed")


@torch.no_grad()
def logits(model, tokens):
    return model(tokens, use_cache=False).logits


def stored(model, path, term_of):
    """The artifact of a model whose sites, counted, get terms; None leaves the layer as it is."""
    view = View(model)
    found = {site.name: term_of(i, site) for i, site in enumerate(view.all_sites())}
    path.mkdir()
    artifact.write(path, view, {k: t for k, t in found.items() if t is not None}, BF16, {})
    return path


def several(i, site):
    """Terms of many kinds in turn."""
    w = site.weight()
    return [
        quantised(w, 4, 8, True)[0],
        Sparse.of(w, w.abs() > w.abs().median(), BF16),
        LowRank.of(w[:, :3], w[:3], BF16),
        Dense(w, BF16),
        None,
    ][i % 5]


def codes_of(bits, groups, sym):
    """Layers of such codes; the settings take turns."""

    def term(i, site):
        return quantised(site.weight(), bits[i % len(bits)], groups[i % len(groups)], sym)[0]

    return term


def shifted(i, site):
    """A quantised layer that adds a constant to every output."""
    w = site.weight()
    value = torch.linspace(-1, 1, len(w))
    return Sum([quantised(w, 8, -1, True)[0], Shift.of(value, w.shape[1], BF16)])


def same(folder, out, tokens, **tolerance):
    back = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    torch.testing.assert_close(
        logits(back, tokens), logits(artifact.load(folder, packed=False), tokens), **tolerance or EXACT
    )
    return back


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


@pytest.mark.parametrize(
    ("bits", "groups", "sym"),
    [((4,), (8,), True), ((8,), (-1,), True), ((4, 8), (8, -1, 16), True), ((4,), (8, 16, -1), False)],
    ids=["one", "rows", "mixed", "mixed_groups_with_zeros"],
)
@pytest.mark.parametrize("name", ["llama_gqa", "llama_tied", "qwen2", "opt"])
def test_compressed_tensors_reads_what_was_packed(ct, tiny, name, bits, groups, sym, tokens, tmp_path):
    """Zeros: transformers dequantises while it loads, and rounds codes times scale to float16."""
    folder = stored(tiny(name), tmp_path / "a", codes_of(bits, groups, sym))
    export.to_compressed_tensors(folder, tmp_path / "out")
    same(folder, tmp_path / "out", tokens, rtol=0, atol=2e-6 if sym else 4e-3)
    _codes_are_ours(folder, tmp_path / "out")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.float16


def _codes_are_ours(folder, out):
    """Codes and scales in the file, unpacked by the library; groups may be finer, of the same scale."""
    from compressed_tensors.compressors.pack_quantized import unpack_from_int32
    from safetensors.torch import load_file

    tensors = load_file(out / "model.safetensors")
    for name, term in artifact.terms_of(artifact.read_manifest(folder), load_file(folder / artifact.WEIGHTS)):
        codes = unpack_from_int32(tensors[f"{name}.weight_packed"], term.bits, torch.Size(term.shape))
        ours = unpack_bits(term.codes, term.bits, term.shape[1]).int() - 2 ** (term.bits - 1)
        assert torch.equal(codes.int(), ours)
        scale = tensors[f"{name}.weight_scale"]
        assert scale.dtype == torch.float16
        times = scale.shape[1] // term.scale.shape[1]
        assert torch.equal(scale, term.scale.repeat_interleave(times, 1))
        assert (f"{name}.weight_zero_point" in tensors) == (term.zero is not None)


def test_layers_of_as_many_bits_get_one_setting(ct, tiny, tmp_path):
    folder = stored(tiny("llama_gqa"), tmp_path / "a", codes_of((4,), (8, 16, -1), True))
    export.to_compressed_tensors(folder, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    (only,) = config["config_groups"].values()
    assert (only["targets"], only["weights"]["group_size"]) == (["Linear"], 8)
    assert config["ignore"] == ["lm_head"]


def test_dense_layers_stay_as_they_are(ct, tiny, tokens, tmp_path):
    def term(i, site):
        return Dense(site.weight(), BF16) if site.role == "down" else quantised(site.weight(), 8, 8, True)[0]

    folder = stored(tiny("llama_gqa"), tmp_path / "a", term)
    export.to_compressed_tensors(folder, tmp_path / "out")
    same(folder, tmp_path / "out", tokens)
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert config["ignore"] == [*(f"model.layers.{i}.mlp.down_proj" for i in range(2)), "lm_head"]


def test_mixed_bits_with_zeros_are_read_by_the_library_alone(ct, tiny, tokens, tmp_path):
    from compressed_tensors.entrypoints.convert import CompressedTensorsDequantizer, convert_checkpoint

    folder, out, back = (
        stored(tiny("llama_gqa"), tmp_path / "a", codes_of((4, 8), (8,), False)),
        "out",
        "back",
    )
    out, back = tmp_path / out, tmp_path / back
    export.to_compressed_tensors(folder, out)
    assert "transformers 5.23 does not read such" in (out / "README.md").read_text()
    convert_checkpoint(out, back, CompressedTensorsDequantizer(out, dtype=torch.float32), max_workers=1)
    same(folder, back, tokens, rtol=0, atol=4e-3)


def test_what_the_library_reads_otherwise_is_not_written(ct, tiny, tmp_path, monkeypatch):
    import compressed_tensors.compressors.pack_quantized as theirs

    pack = theirs.pack_to_int32
    monkeypatch.setattr(theirs, "pack_to_int32", lambda *a, **k: pack(*a, **k) + 1)
    folder = stored(tiny("llama_gqa"), tmp_path / "a", codes_of((4,), (8,), True))
    with pytest.raises(ValueError, match=r"down_proj: compressed-tensors reads other weights"):
        export.to_compressed_tensors(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def sparse(i, site):
    w = site.weight()
    return Sparse.of(w, w.abs() > w.abs().median(), BF16)


def real(i, site):
    return HQQ().compress(Layer(site.name, site.weight()), Room(2 * site.weight().numel() // 3))


@pytest.mark.parametrize(
    ("name", "term_of", "why"),
    [
        ("llama_gqa", real, r"down_proj has zeros that are no codes; valid: a method whose zeros are"),
        ("llama_gqa", sparse, r"model\.layers\.0\.mlp\.down_proj is of kind 'sparse'; valid: 'quantised'"),
        ("llama_gqa", shifted, r"down_proj is of kind 'sum'"),
        ("llama_gqa", codes_of((3,), (8,), True), r"down_proj has 3 bits; valid: 4 or 8"),
        ("llama_gqa", codes_of((4,), (12,), True), r"gate_proj has groups of 12 in rows of 32"),
        ("llama_gqa", lambda i, s: None, "every layer is dense"),
        ("gpt2", codes_of((4,), (8,), True), r"transformer\.h\.0\.attn\.c_attn is a Conv1D"),
    ],
    ids=["real", "sparse", "sum", "bits", "group", "dense", "conv1d"],
)
def test_what_compressed_tensors_can_not_hold(ct, tiny, name, term_of, why, tmp_path):
    folder = stored(tiny(name), tmp_path / "a", term_of)
    with pytest.raises(ValueError, match=rf"to=compressed_tensors: .*{why}.*to=hf"):
        export.to_compressed_tensors(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_table_of_the_docs_says_what_the_code_does():
    """Of the kinds there are, now and later, all but those of a row go by the last one."""
    page = (HOUSE / "docs" / "export.md").read_text()
    rows = re.findall(
        r"^\| (`\w+`|every other kind)[^|]*\| (\w+)[^|]*\| (\w+)[^|]*\| (\w+)", page, flags=re.M
    )
    said = {kind.strip("`"): (hf, packed, gguf) for kind, hf, packed, gguf in rows}
    assert said.pop("every other kind") == ("yes", "no", "no")
    assert said == {"quantised": ("yes", "yes", "no"), "dense": ("yes", "yes", "no")}
    w = torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    assert not pack_quantized.why_not(quantised(w, 4, 8, True)[0])
    for kind, cls in KINDS.items():
        if kind not in said:
            assert f"of kind {kind!r}" in pack_quantized.why_not(_blank(cls))
    for bits in range(2, 9):
        goes = not pack_quantized.why_not(quantised(w, bits, 8, True)[0])
        assert goes == (bits in pack_quantized.BITS)
    assert f"{' or '.join(map(str, pack_quantized.BITS))} bits" in page


def _blank(cls):
    """A term of that kind without tensors."""
    return cls.__new__(cls)


@pytest.fixture
def folder(tiny, tmp_path):
    return stored(tiny("llama_gqa"), tmp_path / "a", codes_of((4,), (8,), True))


def said(capsys, *argv):
    """Exit code and the one line of an error."""
    code = export.main([str(a) for a in argv])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (code != 0)
    return code, "".join(lines)


def test_the_command_writes_a_folder(folder, tmp_path, capsys):
    (tmp_path / "out").mkdir()  # an empty one will do
    assert said(capsys, folder, "--to", "hf", "--out", tmp_path / "out") == (0, "")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors", "README.md")
    }


def test_a_cell_of_the_store_names_its_artifact(folder, tmp_path, capsys):
    cell = tmp_path / "results" / "demo" / "0123"
    cell.mkdir(parents=True)
    (cell / "cell.json").write_text(json.dumps({"artifact": str(folder)}))
    assert said(capsys, cell, "--to", "hf", "--out", tmp_path / "out")[0] == 0
    (cell / "cell.json").write_text(json.dumps({"artifact": str(tmp_path / "gone")}))
    code, line = said(capsys, cell, "--to", "hf", "--out", tmp_path / "two")
    assert code == 2
    assert "is not there (the cache is bounded)" in line
    (cell / "cell.json").write_text(json.dumps({"state": "unreachable", "reason": "too small"}))
    code, line = said(capsys, cell, "--to", "hf", "--out", tmp_path / "two")
    assert code == 2
    assert "is a cell without one (too small)" in line


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("nowhere", "--to", "hf", "--out", "out"), "artifact='nowhere' is no folder"),
        ((".", "--to", "hf", "--out", "out"), "artifact='.' holds no manifest.json"),
        (("a", "--to", "gguf", "--out", "out"), "to='gguf' is unknown; valid: hf, compressed_tensors"),
        (("a", "--to", "hf", "--out", "a"), "out='a' is there already and not empty; valid: a new folder"),
        (("a", "--to", "hf", "--out", "out", "--dtype", "int8"), "dtype='int8' is unknown; valid: auto"),
        (
            ("a", "--to", "compressed_tensors", "--out", "out", "--dtype", "float32"),
            "dtype='float32' does not go with to=compressed_tensors",
        ),
    ],
)
def test_what_is_not_valid_is_one_line(folder, tmp_path, capsys, monkeypatch, options, line):
    monkeypatch.chdir(tmp_path)
    code, found = said(capsys, *options)
    assert code == 2
    assert found.startswith(f"error: {line}")
    assert {p.name for p in tmp_path.iterdir()} == {"a"}


def test_a_missing_library_is_named(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    code, line = said(capsys, folder, "--to", "compressed_tensors", "--out", tmp_path / "out")
    assert code == 2
    assert "pip install 'crunchmark-bench[export]'" in line


def test_a_damaged_artifact_is_named(folder, tmp_path, capsys):
    with (folder / artifact.WEIGHTS).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    code, line = said(capsys, folder, "--to", "hf", "--out", tmp_path / "out")
    assert code == 2
    assert "sha256 of weights.safetensors" in line


def test_a_full_disk_leaves_nothing_behind(folder, tmp_path, capsys, monkeypatch):
    def full(tensors, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(export, "save", full)
    out = tmp_path / "exports" / "out"
    code, line = said(capsys, folder, "--to", "hf", "--out", out)
    assert code == 1
    assert line == f"error: out='{out}' can not be written: No space left on device"
    assert list(out.parent.iterdir()) == []
