import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tasks.nano import train
from tasks.nano.recipe import Recipe

MICRO = Recipe(hidden=64, layers=1, heads=2, kv_heads=1, inner=64, steps=6, tokens=512)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.mark.slow
def test_killed_and_rerun_ends_with_the_same_weights(tmp_path):
    whole = train.train(MICRO, tmp_path / "whole", "cpu", save_every=10)
    train.train(MICRO, tmp_path / "cut", "cpu", save_every=2, stop=3)  # dies between two saved states
    (tmp_path / "cut.tmp").write_bytes(b"half a file")
    again = train.train(MICRO, tmp_path / "cut", "cpu", save_every=2)
    for (name, a), (_, b) in zip(whole.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_export_is_a_plain_folder(tmp_path):
    model = train.train(MICRO, tmp_path / "state", "cpu", save_every=10, stop=1)
    train.export(model, MICRO, tmp_path / "model")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert Recipe(**json.loads((tmp_path / "model" / "recipe.json").read_text())) == MICRO
    assert not list((tmp_path / "model").glob("*.bin"))


def test_training_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    train.build(MICRO)
    assert torch.equal(before, torch.get_rng_state())


def test_the_shipped_checkpoint_was_made_by_the_shipped_recipe():
    recorded = json.loads((Path(train.__file__).parent / "model" / "recipe.json").read_text())
    assert Recipe(**recorded) == Recipe()
