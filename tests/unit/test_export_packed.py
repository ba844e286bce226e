"""Exports as compressed-tensors, read back by that library and by transformers: the same codes and logits."""

import json
import re

import pytest
import torch
from cells import HOUSE
from export_cases import BF16, codes_of, same, shifted, stored
from term_cases import quantised
from transformers import AutoModelForCausalLM

from crunchmark import Layer, Room, Sparse, artifact, export, pack_quantized
from crunchmark.terms import KINDS, Dense, unpack_bits
from methods.hqq import HQQ


@pytest.fixture
def ct():
    return pytest.importorskip("compressed_tensors", reason="the extra `export` is not installed")


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
    for name, term in artifact.terms_of(folder, artifact.read_manifest(folder)):
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
