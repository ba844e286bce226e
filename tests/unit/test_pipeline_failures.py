"""Cells that fail, skip, do not fit, or meet what is full or damaged: each says why and is tried again."""

from dataclasses import replace

import pytest
from cells import Probe, runs, stable
from safetensors import SafetensorError

from crunchmark import files, tensorfile
from crunchmark.cache import Cache
from crunchmark.interface import Skip
from crunchmark.pipeline import Runner
from crunchmark.store import Store
from methods.svd import SVD


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
