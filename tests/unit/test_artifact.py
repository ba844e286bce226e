"""What an artifact takes along besides weights."""

import json

import torch

from crunchmark import artifact
from crunchmark.view import View


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
