"""The store: whole files only, cells and tasks side by side, what failed keeps what was scored."""

import errno
import os

import pytest

from crunchmark import files
from crunchmark.store import Store

ROWS = [{"task": "t", "metric": "m", "value": 0.5, "state": "match"}]


def test_rows_carry_the_facts_of_their_cell(tmp_path):
    store = Store(tmp_path)
    store.put_cell("s", "k" * 64, {"cell": "k" * 64, "budget": 0.3})
    store.put_task("s", "k" * 64, "t", {"rows": ROWS, "about": {"eval_seconds": 2.0, "eval_peak_bytes": 7}})
    (row,) = store.rows("s")
    assert row == {"cell": "k" * 64, "budget": 0.3, "eval_seconds": 2.0, "eval_peak_bytes": 7} | ROWS[0]
    assert store.cell_rows("s", "k" * 64) == [row]
    assert store.cell_rows("s", "other") == []


def test_a_failed_cell_keeps_the_rows_it_has(tmp_path):
    store = Store(tmp_path)
    store.put_cell("s", "k", {"cell": "k", "state": "failed", "reason": "no", "file_bytes": 3})
    store.put_task("s", "k", "t", {"rows": ROWS})
    end, scored = store.rows("s")
    assert (end["state"], end["reason"]) == ("failed", "no")
    assert (scored["state"], scored["file_bytes"]) == ("match", 3)
    assert "reason" not in scored


def test_a_task_whose_name_holds_a_slash_is_there_again(tmp_path):
    store = Store(tmp_path)
    store.put_cell("s", "k", {"cell": "k"})
    store.put_task("s", "k", "group/t", {"rows": ROWS})
    assert store.get_task("s", "k", "group/t") == {"rows": ROWS}
    assert store.cell_rows("s", "k") == [{"cell": "k"} | ROWS[0]]


def test_an_unknown_study_is_named(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(ValueError, match=r"study 'x' is not in .*; there are: none yet"):
        store.rows("x")
    store.put_cell("mine", "k", {})
    with pytest.raises(ValueError, match="there are: mine"):
        store.rows("x")


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.put_cell("s", "k", {"cell": "k", "n": 1})

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with (
        pytest.raises(ValueError, match=r"store=.* can not be written: No space left on device"),
        files.writable("store", tmp_path),
    ):
        store.put_cell("s", "k", {"cell": "k", "n": 2})
    assert store.get_cell("s", "k") == {"cell": "k", "n": 1}
    assert not list(tmp_path.rglob(".tmp*"))


def test_other_errors_pass_through(tmp_path):
    with pytest.raises(FileNotFoundError), files.writable("store", tmp_path):
        (tmp_path / "no").read_text()
