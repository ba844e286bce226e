"""What an artifact takes along besides weights, and what loading it takes."""

import hashlib
import json
import math
import os

import pytest
import torch

from benchmarks.common import cost
from crunchmark import Quantised, artifact
from crunchmark.budget import Room
from crunchmark.interface import Layer
from crunchmark.tensorfile import load, save
from crunchmark.view import View
from methods.svd import SVD


def made(path):
    (path / "a").mkdir()
    return path / "a"


def test_how_to_generate_goes_along(tiny, tmp_path):
    """Chat models stop at tokens that only their generation config names."""
    model = tiny("llama")
    model.generation_config.update(eos_token_id=[2, 7], temperature=0.6, do_sample=True)
    artifact.write(made(tmp_path), View(model), {}, torch.float32, {})
    read = artifact.load(tmp_path / "a").generation_config
    assert (read.eos_token_id, read.temperature, read.do_sample) == ([2, 7], 0.6, True)


def test_what_16_bits_can_not_hold_is_named(tiny, tmp_path):
    model = tiny("llama")
    with torch.no_grad():
        model.model.norm.weight[0] = 1e5
    artifact.write(made(tmp_path), View(model), {}, torch.bfloat16, {})
    with pytest.raises(
        ValueError, match=r"inf in model.norm.weight \(float16\); valid: model.dtype=bfloat16"
    ):
        artifact.write(tmp_path / "a", View(model), {}, torch.float16, {})


def test_what_the_config_says_is_not_said_again(tiny, tmp_path):
    artifact.write(made(tmp_path), View(tiny("llama")), {}, torch.float32, {})
    assert "generation" not in json.loads((tmp_path / "a" / artifact.MANIFEST).read_text())


def test_generates_from_packed_terms(tiny, tokens, tmp_path):
    """Prefill and cached steps run the terms; greedy tokens are those of the weights laid out."""
    model = tiny("llama_gqa")
    view = View(model)
    terms = {}
    for site in view.all_sites():
        terms[site.name] = SVD().compress(Layer(site.name, site.weight()), Room(0, 0.7, torch.float32))
        site.install(terms[site.name])
    artifact.write(made(tmp_path), view, terms, torch.float32, {})
    how = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    said = [artifact.load(tmp_path / "a", packed=p).generate(tokens[:2, :5], **how) for p in (True, False)]
    assert said[0].shape == (2, 11)
    assert torch.equal(*said)


def changed(folder, change):
    """Change tensors and the manifest; the hash is right again."""
    manifest = json.loads((folder / artifact.MANIFEST).read_text())
    tensors = {name: t.clone() for name, t in load(folder / artifact.WEIGHTS).items()}
    change(tensors, manifest)
    save(tensors, folder / artifact.WEIGHTS)
    manifest["sha256"] = hashlib.sha256((folder / artifact.WEIGHTS).read_bytes()).hexdigest()
    (folder / artifact.MANIFEST).write_text(json.dumps(manifest))


def lost(tensors, manifest):
    del tensors["model.norm.weight"]


def forgotten(tensors, manifest):
    for name in ("model.norm.weight", "model.layers.1.mlp.up_proj.weight"):
        del tensors[name], manifest["tensors"][name]


def left_over(tensors, manifest):
    tensors["more"] = torch.zeros(2)


def resized(tensors, manifest):
    manifest["tensors"]["model.norm.weight"] = [[31], "float32"]


WRONG = {
    lost: r"tensors\.model\.norm\.weight is None; the manifest says \[\[32\], 'float32'\]",
    forgotten: r"missing \['model.layers.1.mlp.up_proj.weight', 'model.norm.weight'\], unexpected \[\]",
    left_over: r"tensors do not fit the model; missing \[\], unexpected \['more'\]",
    resized: r"model\.norm\.weight is \[\[32\], 'float32'\]; the manifest says \[\[31\], 'float32'\]",
}


@pytest.mark.parametrize("change", WRONG)
@pytest.mark.parametrize("name", ["llama", "llama_tied"])
def test_tensors_that_do_not_fit_are_named(tiny, tmp_path, name, change):
    folder = made(tmp_path)
    artifact.write(folder, View(tiny(name)), {}, torch.float32, {})
    changed(folder, change)
    with pytest.raises(ValueError, match=WRONG[change]):
        artifact.load(folder)


def test_a_tied_head_stays_tied(tiny, tmp_path):
    model, folder = tiny("llama_tied"), made(tmp_path)
    artifact.write(folder, View(model), {}, torch.bfloat16, {})
    assert "lm_head.weight" not in json.loads((folder / artifact.MANIFEST).read_text())["tensors"]
    back = artifact.load(folder)
    assert back.lm_head.weight is back.model.embed_tokens.weight
    assert torch.equal(back.lm_head.weight, model.lm_head.weight.bfloat16().float())
    assert all(p.requires_grad and p.dtype == torch.float32 for p in back.parameters())


@pytest.fixture(scope="module")
def large(tiny, tmp_path_factory):
    """The artifact of a Llama of 27.5 million parameters, 4 bit; and the numbers of its largest layer."""
    sizes = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 3, "vocab_size": 4096}
    view = View(tiny("llama", **sizes, num_attention_heads=12, num_key_value_heads=12))
    draw, terms = torch.Generator().manual_seed(0), {}
    for name, (out, wide) in view.layers().items():
        codes = torch.randint(16, (out, wide), generator=draw, dtype=torch.uint8)
        scale = torch.full((out, wide // 128), 0.01).half()
        terms[name] = Quantised.of(codes, scale, codes[:, ::128], 4, 128)
    folder = made(tmp_path_factory.mktemp("large"))
    artifact.write(folder, view, terms, torch.bfloat16, {})
    return folder, max(out * wide for out, wide in view.layers().values())


@pytest.mark.slow
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the system tells no peak")
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_loading_needs_the_packed_bytes_and_one_layer(large, packed, dtype):
    """One layer: its weight in float32, its codes packed and not, and its kernel's; 4 MB are for Python."""
    folder, layer = large
    manifest, held = json.loads((folder / artifact.MANIFEST).read_text()), []
    for name, (shape, stored) in manifest["tensors"].items():
        told = dtype if "::" not in name else getattr(torch, stored) if packed else None
        held.append(math.prod(shape) * told.itemsize if told else 0)
    if not packed:
        held += [math.prod(entry["meta"]["shape"]) * dtype.itemsize for entry in manifest["layers"].values()]
    artifact.load(folder, packed, dtype)  # modules that are imported at first use
    kept = []
    rise = cost(lambda: kept.append(artifact.load(folder, packed, dtype))).rise
    assert 0.9 * sum(held) < rise < sum(held) + 6 * layer + 4e6
