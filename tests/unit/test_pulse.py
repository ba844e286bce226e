"""The file that says what a process is doing."""

import json
import os
import time
from dataclasses import replace
from subprocess import Popen
from sys import executable

import pytest

from crunchmark import pulse
from crunchmark.progress import Event
from crunchmark.pulse import Pulse, clean, signs

AT = Event("s", "key", "nano", "svd", ("greedy",), 0.3, "compress", 3, 42, "layer")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "s").mkdir()
    return tmp_path / "s"


@pytest.fixture
def beating(folder, monkeypatch):
    """A pulse that writes when it is told to, and the seconds its clock shows."""
    clock = [1e9]
    monkeypatch.setattr(pulse.time, "time", lambda: clock[0])
    return Pulse(folder.parent, "s", {"svd greedy": 2}), clock


def there(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_told_is_read_again(folder, beating):
    writer, clock = beating
    writer(replace(AT, stage=""))
    clock[0] += 5
    writer(AT)
    clock[0] += 3
    writer._write()
    ((path, sign),) = signs(folder)[0].items()
    assert path.name == sign.name == f".running-{sign.host}-{os.getpid()}.json"
    assert sign == replace(writer.sign, beat=1e9 + 8)
    assert (sign.event, sign.kind, sign.plan) == (AT, "svd greedy", {"svd greedy": 2})
    assert (sign.cell_started, sign.stage_started) == (1e9, 1e9 + 5)
    assert there(folder) == [path.name]
    writer._remove()
    assert there(folder) == []


def test_a_parent_does_not_start_the_clock_of_its_cell_again(beating):
    writer, clock = beating
    writer(replace(AT, stage="pack"))
    clock[0] += 7
    writer(Event("s", "parent", method="dense", stage="task t"))
    assert (writer.sign.kind, writer.sign.cell_started, writer.sign.stage_started) == (
        "svd greedy",
        1e9,
        1e9 + 7,
    )
    writer(replace(AT, stage="pack"))
    assert writer.sign.stage_started == 1e9
    writer(replace(AT, outcome="done"))
    writer(Event())
    assert writer.sign.ended == {"svd greedy": {"done": 1}}
    assert writer.sign.kind == ""


def test_nothing_new_is_written_seldom(folder, beating, monkeypatch):
    writer, clock = beating
    writes = []
    monkeypatch.setattr(pulse.os, "replace", lambda *paths, real=os.replace: writes.append(real(*paths)))
    for second in range(21):
        clock[0] = 1e9 + second
        writer._write()
    assert len(writes) == 3  # at 0, 10 and 20
    writer(AT)
    writer._write()
    assert len(writes) == 4


def test_only_a_cell_makes_the_studys_folder(tmp_path):
    writer = Pulse(tmp_path, "none")
    writer._write()
    assert there(tmp_path) == []


def test_the_file_follows_the_process_into_another_study(folder, beating):
    writer, _ = beating
    (folder.parent / "other").mkdir()
    writer._write()
    writer(replace(AT, study="other"))
    writer._write()
    assert there(folder) == []
    assert len(there(folder.parent / "other")) == 1


def test_a_killed_process_is_known_to_be_gone_and_the_next_run_cleans_up(folder):
    child = Popen([executable, "-c", "import time; time.sleep(60)"])
    ghost = Pulse(folder.parent, "s")
    ghost.sign = replace(ghost.sign, pid=child.pid, host="here")
    ghost._write()
    assert not signs(folder)[0][folder / f".running-here-{child.pid}.json"].gone
    child.kill()
    child.wait()
    (sign,) = signs(folder)[0].values()
    assert sign.gone
    assert sign.silent(sign.beat)
    (folder / f".tmp-.running-here-{child.pid}.json").write_text("{")  # killed while it wrote
    mine = Pulse(folder.parent, "s")
    mine._write()
    assert there(folder) == [mine.sign.name]


def test_of_another_machine_only_silence_is_known(folder):
    there_ = Pulse(folder.parent, "s")
    there_.sign = replace(there_.sign, space="another boot", pid=2**22 + 1)
    there_._write()
    (sign,) = signs(folder)[0].values()
    assert not sign.gone
    assert not sign.silent(sign.beat + pulse.SILENT - 1)
    assert not sign.silent(sign.beat - 100)  # its clock is ahead of ours
    assert sign.silent(sign.beat + pulse.SILENT + 1)
    clean(folder)
    assert len(there(folder)) == 1
    old = replace(sign, beat=time.time() - pulse.LOST - 1)
    (folder / sign.name).write_text(json.dumps(pulse.asdict(old)))
    clean(folder)
    assert there(folder) == []


@pytest.fixture
def pair(folder):
    """Who started a sweep, and another process of it; both have written."""
    owner = Pulse(folder.parent, "s", {"svd": 2})
    worker = Pulse(folder.parent, "s", sweep=owner.sign.sweep)
    worker.sign = replace(worker.sign, host="worker")
    owner._write()
    worker._write()
    assert len(there(folder)) == 2
    return owner, worker


def test_who_started_a_sweep_removes_the_files_of_its_processes(folder, pair):
    pair[0]._remove()
    assert there(folder) == []


def test_an_idle_process_of_a_sweep_that_is_over_leaves_no_sign(folder, pair, monkeypatch):
    monkeypatch.setattr(pulse, "CALM", 0.0)
    owner, worker = pair
    owner._remove()
    worker._write()
    assert there(folder) == []
    worker(AT)  # one that is not idle does: the owner was killed, and its work goes on
    worker._write()
    assert there(folder) == [worker.sign.name]


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", '{"pid": 1}', '{"event": {}, "ended": 3}'),
    ],
)
def test_what_can_not_be_read_is_named(folder, text):
    (folder / ".running-x-1.json").write_text(text)
    assert signs(folder) == ({}, [folder / ".running-x-1.json"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("beat", float("nan")),
        ("beat", 1e300),
        ("started", -1),
        ("pid", "x"),
        ("plan", {"a": "b"}),
        ("event", []),
    ],
)
def test_nor_is_what_no_process_writes(folder, field, value):
    told = pulse.asdict(Pulse(folder.parent, "s").sign) | {field: value}
    (folder / ".running-x-1.json").write_text(json.dumps(told))
    assert len(signs(folder)[1]) == 1


def test_a_file_can_not_name_another_one_to_be_deleted(folder):
    (folder / "precious.json").write_text("{}")
    told = pulse.asdict(Pulse(folder.parent, "s").sign) | {"host": "../s/precious", "beat": 1.0, "space": ""}
    (folder / ".running-x-1.json").write_text(json.dumps(told))
    clean(folder)
    assert there(folder) == ["precious.json"]


@pytest.mark.parametrize("number", [28, 30])  # no space, read-only file system
def test_a_disk_that_refuses_is_one_warning_and_no_end(folder, monkeypatch, capsys, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number), "there")

    with monkeypatch.context() as patch:
        patch.setattr(pulse.os, "replace", refuse)
        patch.setattr(pulse, "BEAT", 0.01)
        writer = Pulse(folder.parent, "s")
        writer.start()
        for _ in range(10):
            writer(AT)
            time.sleep(0.01)
        writer.stop()
    said = capsys.readouterr().err
    assert said.count("warning") == 1
    assert f"no progress for `analysis.status` ({os.strerror(number)}: there)" in said
    assert there(folder) == []


def test_a_thread_writes_and_ends_with_its_file(folder):
    writer = Pulse(folder.parent, "s")
    writer(AT)
    writer.start()
    deadline = time.time() + 5
    while not there(folder) and time.time() < deadline:
        time.sleep(0.005)
    assert there(folder) == [writer.sign.name]
    writer.stop()
    assert there(folder) == []
    assert not writer._thread.is_alive()
