"""What an artifact takes along besides weights."""

import json

import torch

from crunchmark import artifact
from crunchmark.budget import Room
from crunchmark.interface import Layer
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
