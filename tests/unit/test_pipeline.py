"""Cells end to end on a tiny model: identity, resume, failure, what is full or damaged."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from cells import HOUSE, Probe, runs, stable
from safetensors import SafetensorError

from crunchmark import cell as cell_module
from crunchmark import files, pipeline, scene, tensorfile
from crunchmark import maker as maker_module
from crunchmark.cache import Cache
from crunchmark.calib import Source
from crunchmark.cell import Draw
from crunchmark.interface import Skip
from crunchmark.pipeline import Runner
from crunchmark.projected import directions
from crunchmark.store import Store
from crunchmark.task import Item, Metric, PairedTask
from crunchmark.view import TermLinear
from methods import svd_llm
from methods.magnitude import Magnitude
from methods.svd import SVD
from methods.svd_llm import SVDLLM


def test_a_cell_brings_its_dense_parent(runner, make, tmp_path):
    rows = runner.run(make(SVDLLM(), 0.3))
    assert [r["metric"] for r in rows] == ["logp", "hit"]
    assert rows[0]["method"] == "svdllm"
    assert 0.3 <= rows[0]["achieved_bytes"] < 0.35
    assert rows[0]["file_bytes"] > rows[0]["model_bytes"] > rows[0]["scope_bytes"]
    dense = [r for r in runner.store.rows("s") if r["method"] == "dense"]
    assert [r["state"] for r in dense] == ["dense", "dense"]
    assert rows[0]["dense"] == dense[0]["value"] != rows[0]["value"]
    assert len(runs(tmp_path)) == 2


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


def test_a_failed_parent_is_raised_and_tried_again_whatever_the_child(runner, make, tmp_path):
    class Never(SVD):
        def compress(self, layer, room):
            raise Skip("can not work")

    class Broken(Probe):
        broken = True

        def run(self, model, tokenizer):
            if Broken.broken:
                raise RuntimeError("boom")
            yield from super().run(model, tokenizer)

    cell = make(Never(), 0.3, tasks={"probe": Broken(tmp_path / "log")})
    for _ in range(2):
        with pytest.raises(RuntimeError, match="boom"):
            runner.run(cell)
        assert [r["state"] for r in runner.store.cell_rows("s", cell.key)] == ["skipped"]
    Broken.broken = False
    assert runner.run(cell)[0]["state"] == "skipped"
    assert {r["state"] for r in runner.store.cell_rows("s", cell.dense().key)} == {"dense"}


def test_damaged_scores_name_the_folder_to_delete(runner, make):
    cell = make(SVD(), 0.3)
    rows = runner.run(cell)
    again = replace(cell, study="again")
    (items, *_) = (runner.cache.root / "scores").glob("*/items.json")
    for path in (runner.cache.root / "scores").glob("*/items.json"):
        path.write_text("{")
    with pytest.raises(ValueError, match=r"items\.json is damaged .* delete .*: it is made again"):
        runner.run(again)
    for path in (runner.cache.root / "scores").glob("*/items.json"):
        path.unlink()
    with pytest.raises(ValueError, match=r"items\.json is damaged .* delete "):
        runner.run(again)
    for path in list((runner.cache.root / "scores").glob("*/")):
        path.rmdir()
    assert stable([r | {"study": "s"} for r in runner.run(again)]) == stable(rows)
    assert items.is_file()


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


def test_an_unreachable_budget_names_the_nearest(runner, make):
    (row,) = runner.run(make(SVD(), 0.999))
    assert row["state"] == "unreachable"
    assert row["nearest_budget"] == runner.run(make(SVD(), 0.999))[0]["nearest_budget"]
    near = runner.run(make(SVD(), row["nearest_budget"]))
    assert near[0]["achieved_bytes"] >= row["nearest_budget"]


def test_a_skip_is_a_row(runner, make):
    class Never(SVD):
        def compress(self, layer, room):
            raise Skip("can not work")

    (row,) = runner.run(make(Never(), 0.3))
    assert (row["state"], row["reason"]) == ("skipped", "can not work")


def test_a_failure_is_written_raised_and_tried_again(runner, make, monkeypatch):
    cell = make(SVD(), 0.3)
    with monkeypatch.context() as patch:
        patch.setattr(SVD, "compress", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            runner.run(cell)
    (row,) = runner.store.cell_rows("s", cell.key)
    assert (row["state"], row["reason"]) == ("failed", "ZeroDivisionError: division by zero")
    assert {r["state"] for r in runner.run(cell)} <= {"match", "fail", "undecided"}


def test_a_failing_task_does_not_take_the_others_with_it(runner, make, tmp_path):
    class Broken(Probe):
        def run(self, model, tokenizer):
            raise RuntimeError("no data")
            yield

    tasks = {"bad": Broken(tmp_path / "log", "bad"), "probe": Probe(tmp_path / "log")}
    cell = make(SVD(), 0.3, tasks=tasks)
    with pytest.raises(RuntimeError):
        runner.run(cell)
    dense = runner.store.cell_rows("s", cell.dense().key)
    assert [r.get("task") for r in dense] == [None, "probe", "probe"]
    assert dense[0]["reason"] == "RuntimeError: no data"
    assert dense[0]["reasons"] == {"bad": "RuntimeError: no data"}
    assert dense[1]["state"] == "dense"
    assert [r.get("task") for r in runner.store.cell_rows("s", cell.key)] == [None, "probe", "probe"]
    with pytest.raises(RuntimeError):
        runner.run(cell)
    assert runs(tmp_path) == ["probe", "probe"]  # dense and svd, once each


def test_a_budget_out_of_range_is_refused_before_anything_is_written(runner, make, tmp_path):
    for budget in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"budget=.* is out of range; valid: 0 <= budget < 1"):
            runner.run(make(SVD(), budget))
    assert not (tmp_path / "store").exists()


def test_a_full_cache_is_named(runner, make, monkeypatch):
    def full(*args, **kwargs):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(tensorfile, "save_file", full)
    with pytest.raises(ValueError, match=r"cache\.dir=.* can not be written: No space left on device"):
        runner.run(make(SVD(), 0.3))
    assert not list(runner.cache.root.rglob("*.safetensors"))


def test_a_read_only_store_is_named(make, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system", str(tmp_path / "store"))

    monkeypatch.setattr(files.tempfile, "mkstemp", refuse)
    with pytest.raises(ValueError, match=r"store=.* can not be written: Read-only file system"):
        Runner(Store(tmp_path / "store"), Cache(tmp_path / "cache")).run(make(SVD(), 0.3))


class Echo(PairedTask):
    """Scores the sum of the weights against what the parent wrote down."""

    name = "echo"

    def __init__(self, log):
        self.log = log

    def protocol(self):
        return "echo-1"

    def metrics(self):
        return {"gap": Metric("gap", higher_is_better=False, margin=None)}

    def remember(self, model, tokenizer, folder):
        with self.log.open("a") as file:
            file.write("x")
        (folder / "sum").write_text(repr(total(model)))

    def beside(self, model, tokenizer, folder):
        yield Item("all", "gap", abs(total(model) - float((folder / "sum").read_text())))


def total(model):
    return float(sum(p.detach().abs().sum() for p in model.parameters()))


def test_a_paired_task_sees_what_the_parent_wrote_once(runner, make, tmp_path):
    echo = {"echo": Echo(tmp_path / "log")}
    rows = [runner.run(make(SVD(), budget, tasks=echo))[0] for budget in (0.3, 0.5)]
    assert 0 < rows[0]["value"] < rows[1]["value"]
    assert [(row["dense"], row["state"]) for row in rows] == [(0.0, "measured")] * 2
    assert (tmp_path / "log").read_text() == "x"


class Sizes(Probe):
    """Scores the bytes of the artifact, and how many layers of the packed model run a term."""

    def ask(self, scene):
        terms = [sum(isinstance(m, TermLinear) for m in model.modules()) for model in (
            scene.model(packed=True), scene.dense(packed=True))]  # fmt: skip
        yield Item("bytes", "logp", scene.sizes()["file_bytes"], extra={"terms": terms})
        yield Item("bytes", "hit", 1.0)


class Alone(Probe):
    """Scores whether the packed model has the memory for itself."""

    def ask(self, scene):
        scene.model(packed=True)
        yield Item("alone", "hit", float(scene.exam._loaded is None))
        yield Item("alone", "logp", 0.0)


def test_a_packed_model_does_not_share_memory_with_what_a_task_before_it_left(runner, make, tmp_path):
    tasks = {"probe": Probe(tmp_path / "log"), "alone": Alone(tmp_path / "log", "alone")}
    rows = runner.run(make(SVD(), 0.3, tasks=tasks))
    assert [row["value"] for row in rows if (row["task"], row["metric"]) == ("alone", "hit")] == [1.0]


class Ends(Probe):
    """Scores how many tokens end an answer."""

    def run(self, model, tokenizer):
        ends = model.generation_config.eos_token_id
        yield Item("ends", "logp", float(len(ends) if isinstance(ends, list) else 1))
        yield Item("ends", "hit", 1.0)


def test_answers_end_where_the_checkpoints_generation_settings_say(runner, make, spec, tmp_path):
    """A chat model's config.json names one end token; that its turns end with another stands only there."""
    folder = tmp_path / "net"
    shutil.copytree(spec.folder, folder)
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 5]}')
    tasks = {"ends": Ends(tmp_path / "log", "ends")}
    row = runner.run(make(SVD(), 0.3, tasks=tasks, model=replace(spec, path=str(folder))))[0]
    assert (row["value"], row["dense"]) == (2, 2)


def test_a_task_sees_the_bytes_and_the_packed_form(runner, make, tmp_path):
    cell = make(SVD(), 0.3, tasks={"sizes": Sizes(tmp_path / "log")})
    row = runner.run(cell)[0]
    assert row["value"] == row["file_bytes"]
    assert row["gpu_seconds"] == 0.0
    (item, _) = runner.exam.answers(cell, "sizes", cell.tasks["sizes"])["items"]
    assert item[4]["terms"][0] > 0 == item[4]["terms"][1]  # a dense weight runs as a linear layer


def test_every_failed_task_keeps_its_own_reason(runner, make, tmp_path):
    class Lost(Probe):
        def protocol(self):
            raise FileNotFoundError(f"{self.name}: no data")

    tasks = {name: Lost(tmp_path / "log", name) for name in ("one", "two")}
    cell = make(SVD(), 0.3, tasks=tasks | {"probe": Probe(tmp_path / "log")})
    with pytest.raises(FileNotFoundError, match="one: no data"):
        runner.run(cell)
    for each in (cell, cell.dense()):
        (row, *scored) = runner.store.cell_rows("s", each.key)
        assert row["reason"] == "one: no data"
        assert row["reasons"] == {"one": "one: no data", "two": "two: no data"}
        assert {r["task"] for r in scored} == {"probe"}
        assert not any("reasons" in r for r in scored)
