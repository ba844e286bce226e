"""The benchmarks run: what they print is no test, but that they still fit the code is."""

import argparse

import pytest
from forked import Run

from benchmarks import compress, decode, grid, lowrank, sharing, study, walker
from benchmarks.common import Cost, medians
from benchmarks.peers import PEERS


@pytest.mark.slow
def test_sharing_counts_one_compression_per_budget(tmp_path):
    assert sharing.spent(tmp_path, sharing.BUDGETS[:2]) > 0


@pytest.mark.slow
def test_our_side_of_a_method_and_of_a_sweep_is_measured():
    size = {"hidden": 128, "layers": 1, "heads": 2, "inner": 128, "n": 2, "length": 16}
    found = compress.measure(argparse.Namespace(**size, repeats=1, only="^svd_llm|^rtn", reference=None))
    assert set(found) == {"rtn 4 bit", "svd_llm 20 %", "svd_llm 10, 20, 30, 40, 50 %"}
    assert all(costs["ours"].seconds > 0 for costs in found.values())


@pytest.mark.slow
def test_low_rank_is_measured_with_and_without_sharing(monkeypatch):
    monkeypatch.setattr(lowrank, "BUDGETS", (0.2, 0.4))
    size = {"hidden": 32, "layers": 1, "heads": 2, "inner": 48, "n": 2, "length": 16}
    found = medians(lowrank.work(argparse.Namespace(**size, only="^svd$", reference=None)), repeats=1)
    assert set(found) == {"svd", lowrank.TOGETHER}
    assert set(found["svd"]) == {"one", "shared", "alone"}
    assert all(cost.cpu > 0 for row in found.values() for cost in row.values())
    assert lowrank.show(found).row_count == 2


@pytest.mark.slow
def test_six_methods_are_measured_alone_and_together():
    size = {"hidden": 64, "layers": 1, "heads": 2, "inner": 128, "n": 4, "length": 16}
    todo = grid.work(argparse.Namespace(**size, only="dense"))
    assert list(todo) == ["six, dense", "eora, dense"]
    assert [len(row) for row in todo.values()] == [7, 7]
    assert todo["eora, dense"]["rtn"]().cpu > 0
    assert todo["six, dense"]["shared"]().cpu > todo["six, dense"]["wanda"]().cpu


def test_speeds_are_told_beside_dense():
    cell = {"model": "m", "file_bytes": 2e6, "setting": "8 bit", "executed_by": "int8 kernel", "cell": "a"}
    small = [cell | {"method": "rtn", "metric": m, "value": 6.0, "dense": 4.0} for m in decode.POINTS]
    parent = cell | {"method": "dense", "file_bytes": 4e6, "executed_by": "dense", "cell": "b", "setting": ""}
    dense = [parent | {"metric": m, "value": 4.0, "dense": None} for m in decode.POINTS]
    cut = {"method": "flap", "file_bytes": 3e6, "cell": "c", "achieved_bytes": 0.25}
    parts = [parent | cut | {"metric": m, "value": 5.0, "dense": 4.0} for m in decode.POINTS]
    assert list(decode.lines(small + dense + parts)) == [
        ["m", "dense", "dense", "4 MB", *["4.0 (1.00)"] * 3],
        ["m", "flap, 25% removed", "dense", "3 MB", *["5.0 (1.25)"] * 3],
        ["m", "8 bit", "int8 kernel", "2 MB", *["6.0 (1.50)"] * 3],
    ]


def test_every_peer_of_the_low_rank_benchmark_is_a_method():
    assert set(lowrank.PEER) <= set(lowrank.family()) & set(PEERS)


def test_a_missed_goal_is_named():
    row = {name: Cost(0.0, cpu, 0) for name, cpu in {"one": 2, "shared": 3, "alone": 9}.items()}
    assert lowrank.missed({"afm": row}) == []
    fine = row | {"peer one": Cost(0.0, 2.0, 0), "peer five": Cost(0.0, 6.0, 0)}
    slow = row | {"peer one": Cost(0.0, 1.9, 0), "peer five": Cost(0.0, 5.9, 0)}
    assert lowrank.missed({"svd": fine}) == []
    assert [words.split(":")[0] for words in lowrank.missed({"svd": slow})] == ["svd, one", "svd, five"]


def test_the_walk_is_measured():
    size = argparse.Namespace(hidden=64, inner=96, n=2, length=16, batch=2)
    found = walker.one(1, size)
    assert found["hidden"] == 2 * 16 * 64 * 4
    assert found["statistics"] == 8 * (3 * 64**2 + 96**2)


def test_the_study_counts_a_score_once_and_whole_cells_only():
    cell = {"cell": "a", "method": "svd", "budget": 0.5, "load_seconds": 1.0, "compress_seconds": 2.0}
    rows = [cell | {"task": task, "metric": m, "eval_seconds": 10.0} for task in study.SUITE for m in "xy"]
    part = cell | {"cell": "b", "task": "nano_mcr", "eval_seconds": 5.0, "pack_seconds": None}
    assert study.shared([*rows, part]) == 3 + 10 * len(study.SUITE) + 3 + 5
    assert study.whole([*rows, part, {"cell": "d", "method": "dense", "budget": 0, "task": "ppl_nano"}]) == {
        "svd": 1
    }


@pytest.mark.slow
def test_a_cell_alone_takes_time(monkeypatch):
    codes = []

    def forked(command, **_):
        codes.append(Run(*command[2:]).done()[0])

    monkeypatch.setattr(study.subprocess, "run", forked)
    assert study.alone("svd", limit=1) > 0
    assert codes == [0]
