"""Cells end to end on a tiny model: identity and resume."""

from dataclasses import replace
from pathlib import Path

import pytest
from cells import HOUSE, Probe, runs, stable

from crunchmark import cell as cell_module
from crunchmark import maker as maker_module
from crunchmark import pipeline, scene
from crunchmark.cache import Cache
from crunchmark.calib import Source
from crunchmark.cell import Draw
from crunchmark.pipeline import Runner
from crunchmark.projected import directions
from crunchmark.store import SCHEMA, Store
from methods import svd_llm
from methods.magnitude import Magnitude
from methods.svd import SVD
from methods.svd_llm import SVDLLM


def test_a_cell_brings_its_dense_parent(runner, make, tmp_path):
    rows = runner.run(make(SVDLLM(), 0.3))
    assert [r["metric"] for r in rows] == ["logp", "hit"]
    assert rows[0]["method"] == "svdllm"
    assert {r["schema"] for r in rows} == {SCHEMA}
    assert 0.3 <= rows[0]["achieved_bytes"] < 0.35
    assert rows[0]["file_bytes"] > rows[0]["model_bytes"] > rows[0]["scope_bytes"]
    dense = [r for r in runner.store.rows("s") if r["method"] == "dense"]
    assert [r["state"] for r in dense] == ["dense", "dense"]
    assert rows[0]["dense"] == dense[0]["value"] != rows[0]["value"]
    assert len(runs(tmp_path)) == 2
    spent = runner.store.get_cell("s", rows[0]["cell"])["spent"]
    assert {part for parts in spent.values() for part in parts} == {"a", "b"}
    assert sum(size for parts in spent.values() for size in parts.values()) == rows[0]["scope_bytes"]
    assert "spent" not in rows[0]
    told = [runner.store.get_task("s", r["cell"], "probe")["items"][0][4] for r in (dense[0], rows[0])]
    assert told == [{"question": "0?", "target": 0}, {"target": 0}]  # questions are kept once


def test_nothing_is_computed_twice(runner, make, tmp_path, monkeypatch):
    cell = make(SVD(), 0.3)
    first = runner.run(cell)
    monkeypatch.setattr(pipeline, "compress", None)
    again = Runner(runner.store, runner.cache)
    assert again.run(cell) == first
    assert len(runs(tmp_path)) == 2


def test_a_task_added_later_recompresses_nothing(runner, make, tmp_path, monkeypatch):
    runner.run(make(SVD(), 0.3))
    monkeypatch.setattr(pipeline, "compress", None)
    both = {"probe": Probe(tmp_path / "log"), "more": Probe(tmp_path / "log", "more")}
    rows = Runner(runner.store, runner.cache).run(make(SVD(), 0.3, tasks=both))
    assert {r["task"] for r in rows} == {"probe", "more"}
    assert sorted(runs(tmp_path)) == ["more", "more", "probe", "probe"]


def test_another_study_asks_no_model(runner, make, tmp_path, monkeypatch):
    rows = runner.run(make(SVD(), 0.3))
    monkeypatch.setattr(pipeline.artifact, "load", None)
    again = runner.run(make(SVD(), 0.3, study="other"))
    assert stable([r | {"study": "s"} for r in again]) == stable(rows)
    assert len(runs(tmp_path)) == 2


def test_another_protocol_is_scored_anew(runner, make, tmp_path):
    runner.run(make(SVD(), 0.3))
    rows = runner.run(make(SVD(), 0.3, tasks={"probe": Probe(tmp_path / "log", version=2)}))
    assert {r["protocol"] for r in rows} == {"probe-probe-2"}
    assert len(runs(tmp_path)) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"budget": 0.4},
        {"accounting": "nominal"},
        {"scope": "model", "budget": 0.2},
        {"knobs": {"align": 2}},
        {"draw": Draw(Source(path=str(HOUSE / "tasks/nano/data/calib.txt")), n=4, length=16, seed=1)},
        {"draw": Draw(Source(path=str(HOUSE / "tasks/nano/data/ppl.txt")), n=4, length=16)},
    ],
)
def test_what_changes_the_weights_changes_the_key(make, change):
    cell = make(SVDLLM(), 0.3)
    assert cell.key != replace(cell, **change).key


def test_what_does_not_change_the_weights_keeps_the_key(make):
    cell = make(SVD(), 0.3)
    other = Draw(Source(path=str(HOUSE / "tasks/nano/data/ppl.txt")), n=2, length=8, seed=3)
    assert cell.key == replace(cell, study="other", tasks={}, label="x", draw=other).key  # data-free
    assert cell.key != replace(cell, model=replace(cell.model, compute="bfloat16")).key
    assert cell.weights_key == replace(cell, model=replace(cell.model, compute="bfloat16")).weights_key
    assert make(SVD(), 0.0).key == make(Magnitude(), 0.0).key == cell.dense().key


def test_an_edited_method_finds_nothing_of_the_old_one(make, tmp_path, monkeypatch):
    """Also where it keeps the name of what it derives."""

    def bytes_of(where, edited):
        with monkeypatch.context() as patch:
            if edited:
                patch.setattr(maker_module, "source_of", lambda _: "edited")
                patch.setattr(cell_module, "source_of", lambda _: "edited")
                patch.setattr(svd_llm, "directions", lambda layer, _: directions(layer, "identity"))
            runner = Runner(Store(tmp_path / where / "store"), Cache(tmp_path / where / "cache"))
            (row, *_) = runner.run(make(SVDLLM(), 0.3))
        return (Path(row["artifact"]) / "weights.safetensors").read_bytes()

    before = bytes_of("warm", edited=False)
    assert bytes_of("warm", edited=True) == bytes_of("cold", edited=True) != before


def test_the_parent_answers_the_same_questions(runner, make, tmp_path):
    """Another process may have asked the dense model something else in the same study."""
    first = runner.run(make(SVD(), 0.3))
    other = {"probe": Probe(tmp_path / "log", version=2)}
    runner.run(make(Magnitude(), 0.3, tasks=other))
    dense = make(SVD(), 0.3).dense()
    assert runner.store.get_task("s", dense.key, "probe")["protocol"] == "probe-probe-2"
    assert runner.run(make(SVD(), 0.3)) == first
    assert runner.store.get_task("s", dense.key, "probe")["protocol"] == "probe-probe-1"
    assert len(runs(tmp_path)) == 4  # both models, both protocols, each once


def test_rows_say_where_they_were_scored(runner, make, tmp_path, monkeypatch):
    runner.run(make(SVD(), 0.3))
    monkeypatch.setattr(scene, "facts", lambda: {"git": "later"})
    both = {"probe": Probe(tmp_path / "log"), "more": Probe(tmp_path / "log", "more")}
    rows = runner.run(make(SVD(), 0.3, tasks=both))
    assert {r["task"]: r["git"] for r in rows}["more"] == "later"
    assert {r["task"]: r["git"] for r in rows}["probe"] != "later"


def test_a_seed_is_another_cell_only_for_methods_that_draw(make):
    class Drawing(SVD):
        random = True

    other = make(SVD(), 0.3).draw
    other = replace(other, seed=3)
    assert make(SVD(), 0.3).key == make(SVD(), 0.3, draw=other).key
    assert make(Drawing(), 0.3).key != make(Drawing(), 0.3, draw=other).key
