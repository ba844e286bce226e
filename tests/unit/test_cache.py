"""The cache: made once, whole or not there, bounded, never dropped while in use."""

import inspect
import multiprocessing as mp
import os
import signal
import time

import pytest

from crunchmark.cache import Cache, _source, source_of
from crunchmark.interface import Method
from crunchmark.keys import key_of
from crunchmark.terms import Dense
from methods.svd import SVD

FORK = mp.get_context("fork")


def fill(size=1000, name="data"):
    def make(temp):
        (temp / name).write_bytes(b"x" * size)

    return make


def test_keys_do_not_depend_on_order_but_on_every_value():
    assert key_of(a=1, b=2) == key_of(b=2, a=1)
    assert len({key_of(a=1, b=2), key_of(a=2, b=1), key_of(a="1", b=2), key_of(a=1)}) == 4


@pytest.mark.parametrize(
    ("module", "moves"),
    [("crunchmark.projected", True), ("methods.svd", True), ("crunchmark.interface", False)],
)
def test_a_source_is_that_of_the_bases_too(monkeypatch, module, moves):
    before, real = source_of(SVD()), inspect.getsource
    monkeypatch.setattr(inspect, "getsource", lambda m: real(m) + "# edited" * (m.__name__ == module))
    _source.cache_clear()
    assert (source_of(SVD()) != before) is moves
    _source.cache_clear()


def test_a_method_that_is_no_dataclass_has_its_knobs_for_a_key():
    class Plain(Method):
        def __init__(self, rank):
            self.rank, self._seen = rank, []

        def compress(self, layer, room):
            return Dense.of(layer.weight, room)

    assert repr(Plain(3)) == repr(Plain(3))
    assert repr(Plain(3)) != repr(Plain(4))
    assert repr(SVD(align=4)) != repr(SVD())


def test_made_once_and_found_again(tmp_path):
    calls = []
    for _ in range(3):
        with Cache(tmp_path).folder("kind", "k", lambda t: calls.append(t) or fill()(t)) as folder:
            assert (folder / "data").read_bytes() == b"x" * 1000
    assert len(calls) == 1


def test_a_failing_maker_leaves_nothing(tmp_path):
    def broken(temp):
        (temp / "half").write_bytes(b"x")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError), Cache(tmp_path).folder("kind", "k", broken):
        pass
    assert not (tmp_path / "kind" / "k").exists()
    assert not list(tmp_path.glob("kind/.tmp*"))


def test_a_killed_maker_leaves_nothing_that_counts(tmp_path):
    def die(temp):
        (temp / "half").write_bytes(b"x")
        os.kill(os.getpid(), signal.SIGKILL)

    def child():
        with Cache(tmp_path).folder("kind", "k", die):
            pass

    process = FORK.Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert list(tmp_path.glob("kind/.tmp*"))
    with Cache(tmp_path).folder("kind", "k", fill()) as folder:
        assert sorted(p.name for p in folder.iterdir()) == ["data"]
    assert not list(tmp_path.glob("kind/.tmp*"))


def test_the_oldest_goes_first_and_orphans_go_too(tmp_path):
    cache = Cache(tmp_path, max_gb=2500e-9)
    for k, age in (("old", 30), ("young", 10)):
        with cache.folder("kind", k, fill()) as folder:
            pass
        os.utime(folder, (time.time() - age, time.time() - age))
    (tmp_path / "kind" / ".tmp-gone").mkdir()
    with cache.folder("other", "new", fill()):
        pass
    assert sorted(p.name for p in tmp_path.glob("*/*") if p.is_dir()) == ["new", "young"]


def test_what_is_in_use_stays(tmp_path):
    cache = Cache(tmp_path, max_gb=1500e-9)
    with cache.folder("kind", "held", fill()) as held:
        os.utime(held, (0, 0))
        with cache.folder("kind", "new", fill()):
            assert (held / "data").is_file()
    with cache.folder("kind", "third", fill()):
        assert not held.exists()


def test_two_processes_make_it_once(tmp_path):
    log = tmp_path / "log"

    def make(temp):
        with log.open("a") as file:
            file.write("made\n")
        time.sleep(0.3)
        fill()(temp)

    def child():
        with Cache(tmp_path / "c").folder("kind", "k", make) as folder:
            assert (folder / "data").is_file()

    processes = [FORK.Process(target=child) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0] * 4
    assert log.read_text() == "made\n"


@pytest.mark.parametrize("size", [0, -1, float("nan")])
def test_a_bound_must_be_positive(tmp_path, size):
    with pytest.raises(ValueError, match=r"cache\.max_gb=.*valid: a positive"):
        Cache(tmp_path, size)


def test_small_additions_do_not_look_at_every_folder_again(tmp_path, monkeypatch):
    looked, whole = [], Cache._trim
    monkeypatch.setattr(Cache, "_trim", lambda self, keep: looked.append(keep) or whole(self, keep))
    cache = Cache(tmp_path, max_gb=1e-6)  # 1000 bytes, looked at every 15
    for k in range(12):
        with cache.folder("small", f"{k}", lambda temp: (temp / "x").write_bytes(b"12345")):
            pass
    assert len(looked) == 3
    assert looked[0].name == "0"
