"""A model, texts and data sets nobody made for this project go the same way as the built-in world."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml

from crunchmark.calib import Calibration, Source, draw
from crunchmark.evaluate import aggregate
from crunchmark.machine import ROOT
from crunchmark.stats import Gram
from crunchmark.view import View
from crunchmark.walk import statistics
from tasks.lm import LmEval
from tasks.ppl import Perplexity


def perplexity(task, llama):
    return aggregate(list(task.run(*llama)), task.metrics())["perplexity"].value


def source_of(file, **changes):
    spec = yaml.safe_load((ROOT / "conf" / "calib" / f"{file}.yaml").read_text()) | changes
    how = {k: spec.pop(k) for k in ("n", "length", "seed", "inputs", "batch", "spill")}
    return Source(**spec), how


def test_the_view_finds_every_linear_layer_of_a_real_llama(llama):
    view = View(llama[0])
    assert len(view.blocks) == 5
    assert {site.role for site in view.all_sites()} == {"q", "k", "v", "o", "gate", "up", "down"}
    assert view.layers()["model.layers.0.self_attn.k_proj"] == (32, 64)
    blocks = sum(p.numel() for b in view.blocks for n, p in b.named_parameters() if p.ndim > 1)
    assert view.scope_bytes("blocks") == 2 * blocks


@pytest.mark.slow
def test_perplexity_of_the_stories_is_what_its_card_says(llama, tales):
    task = Perplexity(path=str(tales), window=512, bos=True, join="<s>")
    assert perplexity(task, llama) == pytest.approx(4.48, rel=0.03)  # over all 917


@pytest.mark.slow
def test_text_it_was_not_trained_on_is_much_harder(llama, real):
    raw = Perplexity(path=str(real / "wikitext2" / "raw_test.txt"), window=512, limit=6)
    assert perplexity(raw, llama) > 50


@pytest.mark.slow
def test_a_text_file_and_the_same_rows_of_a_data_set_agree(llama, hub):
    rows = Perplexity(dataset="Salesforce/wikitext", config="wikitext-2-raw-v1", window=256, limit=3)
    assert len(rows.text.split()) > 200_000
    assert perplexity(rows, llama) > 20


def test_calibration_from_jsonl_reaches_the_walker(llama, tales):
    source, _ = source_of("jsonl", path=str(tales))
    drawn = draw(source, llama[1], 4, 64, 0)
    again = draw(source, llama[1], 4, 64, 0)
    assert drawn.fingerprint == again.fingerprint
    grams = statistics(View(llama[0]), Calibration(drawn.ids, batch=2), [Gram])
    assert len(grams) == 35
    assert all(torch.isfinite(g[Gram].value).all() for g in grams.values())


def test_calibration_from_ids_is_the_same_as_from_text(llama, tales, tmp_path):
    text, _ = source_of("jsonl", path=str(tales))
    ids = draw(text, llama[1], 4, 64, 0).ids
    np.save(tmp_path / "ids.npy", ids.numpy().astype(np.uint16))
    source, _ = source_of("npy", path=str(tmp_path / "ids.npy"))
    assert torch.equal(draw(source, llama[1], 4, 64, 0).ids, ids)


@pytest.mark.slow
def test_calibration_from_a_hub_data_set_is_found_below_the_data_folder(llama, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source, _ = source_of("wikitext2", split="validation")
    assert draw(source, llama[1], 2, 128, 0).ids.shape == (2, 128)
    part, _ = source_of("wikitext2", name=None, files="wikitext-2-raw-v1/test-*.parquet")
    assert draw(part, llama[1], 2, 128, 0).ids.shape == (2, 128)


def test_a_data_set_that_is_not_below_the_data_folder_is_named(llama, hub):
    source, _ = source_of("c4")
    with pytest.raises(
        ValueError, match=r"^data set 'allenai/c4' split 'train' revision '1588ec.*offline"
    ) as e:
        draw(source, llama[1], 2, 128, 0)
    assert "\n" not in str(e.value)


def test_a_data_folder_that_is_none_is_refused(llama, monkeypatch, tmp_path):
    monkeypatch.setenv("CRUNCHMARK_DATA", str(tmp_path / "absent"))
    with pytest.raises(ValueError, match=r"CRUNCHMARK_DATA=.*absent' is no folder"):
        LmEval("arc_easy").protocol()


def test_sequences_beyond_the_models_context_name_the_longest(llama):
    calib = Calibration(torch.zeros(1, 513, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"calib\.length=513 is beyond the model's context; valid: 1 to 512"):
        calib.stream(View(llama[0]))


def test_weights_of_another_family_do_not_load(stories, real, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(stories.folder, folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 6}))
    with pytest.raises(ValueError, match=r"lacks the weights model\.layers\.5\..* and 5 more"):
        type(stories)(str(folder)).load()
