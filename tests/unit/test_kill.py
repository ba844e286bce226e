"""kill -9 at many moments, and several processes on one store."""

import multiprocessing as mp
import os
import signal

import pytest
from cells import Probe, maker, runs, stable

from crunchmark import files
from crunchmark.bench import Bench
from crunchmark.cache import Cache
from crunchmark.maker import Maker
from crunchmark.pipeline import Runner
from crunchmark.store import Store
from methods.allocate.evopress import EvoPress
from methods.magnitude import Magnitude
from methods.svd_llm import SVDLLM

FORK = mp.get_context("fork")
GRID = [(SVDLLM(), 0.2), (SVDLLM(), 0.4), (Magnitude(), 0.3)]


@pytest.fixture(autouse=True)
def one_loader(monkeypatch):
    """A forked child must not start threads: a pool of torch that was in use does not survive the fork."""
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")


@pytest.fixture(scope="module")
def calm(spec, tmp_path_factory):
    """The rows of the grid when nothing disturbs it."""
    path = tmp_path_factory.mktemp("calm")
    rows = stable(sweep(maker(spec, path), path, "calm").rows("s"))
    assert len(rows) == 8
    return rows


def sweep(make, tmp_path, where, tasks=None):
    """The grid in this process, against the store and cache under `where`."""
    runner = Runner(Store(tmp_path / where / "store"), Cache(tmp_path / where / "cache"))
    for method, budget in GRID:
        runner.run(make(method, budget, **({"tasks": tasks} if tasks else {})))
    return runner.store


def child(work):
    """Run it in a forked process; its exit code."""
    process = FORK.Process(target=work)
    process.start()
    process.join(120)
    return process.exitcode


def kill_at(monkeypatch, name, count, after):
    """Kill this process at the count-th call of an os function, before or after it is carried out."""
    real, left = getattr(files.os, name), [count]

    def call(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    monkeypatch.setattr(files.os, name, call)


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("name", "count"), [("replace", n) for n in (1, 2, 3, 5, 8)] + [("fsync", 3), ("fsync", 11)]
)
def test_kill_9_then_again_gives_the_rows_of_an_undisturbed_run(
    make, calm, tmp_path, monkeypatch, name, count, after
):
    def killed():
        kill_at(monkeypatch, name, count, after)
        sweep(make, tmp_path, "stormy")

    assert child(killed) == -signal.SIGKILL
    store = sweep(make, tmp_path, "stormy")
    assert stable(store.rows("s")) == calm
    assert not list((tmp_path / "stormy").rglob(".tmp*"))


@pytest.mark.slow
@pytest.mark.parametrize("loss", [2, 7, 12])
def test_kill_9_in_a_search_then_again_is_the_plan_of_an_undisturbed_search(make, tmp_path, loss):
    """And no level is made twice."""
    lean = EvoPress(generations=3, offspring=4, samples=[1, 2])
    cell, made = make(SVDLLM(), 0.3, allocate=lean), tmp_path / "made"

    def search(where, die_at=-1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Maker, "term", noted(Maker.term, made))
            patch.setattr(Bench, "_loss", dying(Bench._loss, die_at))
            runner = Runner(Store(tmp_path / where / "store"), Cache(tmp_path / where / "cache"))
            runner.run(cell)
        return runner.store.get_cell(cell.study, cell.key)["plan"]

    assert child(lambda: search("stormy", loss)) == -signal.SIGKILL
    before = made.read_text().splitlines()
    assert before
    again = search("stormy")
    lines = made.read_text().splitlines()
    assert len(lines) == len(set(lines)) > len(before)
    assert again == search("calm")
    assert again["notes"]["allocator"] == "EvoPress"


def noted(whole, file):
    """Maker.term that writes down what it makes."""

    def term(self, layer, room):
        with file.open("a") as lines:
            lines.write(f"{layer.name} {room.nbytes}\n")
        return whole(self, layer, room)

    return term


def dying(whole, count):
    """Bench._loss that kills this process at its count-th call."""
    left = [count]

    def loss(self, *args):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(self, *args)

    return loss


@pytest.mark.slow
def test_kill_9_inside_a_task_then_again(make, calm, tmp_path):
    dying = {"probe": Probe(tmp_path / "log", die_at=3)}
    assert child(lambda: sweep(make, tmp_path, "stormy", dying)) == -signal.SIGKILL
    assert stable(sweep(make, tmp_path, "stormy").rows("s")) == calm


@pytest.mark.slow
def test_processes_on_one_store_lose_and_double_nothing(make, calm, tmp_path):
    processes = [FORK.Process(target=sweep, args=(make, tmp_path, "shared")) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [p.exitcode for p in processes] == [0, 0, 0]
    assert stable(Store(tmp_path / "shared" / "store").rows("s")) == calm
    assert len(runs(tmp_path)) == 4  # three cells and their parent, each once
