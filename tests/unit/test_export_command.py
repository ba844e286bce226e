"""The command that exports: what it writes, and the one line it says where something is wrong."""

import errno
import json

import pytest
from export_cases import codes_of, stored

from crunchmark import artifact, export


@pytest.fixture
def folder(tiny, tmp_path):
    return stored(tiny("llama_gqa"), tmp_path / "a", codes_of((4,), (8,), True))


def said(capsys, *argv):
    """Exit code and the one line of an error."""
    code = export.main([str(a) for a in argv])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (code != 0)
    return code, "".join(lines)


def test_the_command_writes_a_folder(folder, tmp_path, capsys):
    (tmp_path / "out").mkdir()  # an empty one will do
    assert said(capsys, folder, "--to", "hf", "--out", tmp_path / "out") == (0, "")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors", "README.md")
    }


def test_a_cell_of_the_store_names_its_artifact(folder, tmp_path, capsys):
    cell = tmp_path / "results" / "demo" / "0123"
    cell.mkdir(parents=True)
    (cell / "cell.json").write_text(json.dumps({"artifact": str(folder)}))
    assert said(capsys, cell, "--to", "hf", "--out", tmp_path / "out")[0] == 0
    (cell / "cell.json").write_text(json.dumps({"artifact": str(tmp_path / "gone")}))
    code, line = said(capsys, cell, "--to", "hf", "--out", tmp_path / "two")
    assert code == 2
    assert "is not there (the cache is bounded)" in line
    (cell / "cell.json").write_text(json.dumps({"state": "unreachable", "reason": "too small"}))
    code, line = said(capsys, cell, "--to", "hf", "--out", tmp_path / "two")
    assert code == 2
    assert "is a cell without one (too small)" in line


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("nowhere", "--to", "hf", "--out", "out"), "artifact='nowhere' is no folder"),
        ((".", "--to", "hf", "--out", "out"), "artifact='.' holds no manifest.json"),
        (("a", "--to", "gguf", "--out", "out"), "to='gguf' is unknown; valid: hf, compressed_tensors"),
        (("a", "--to", "hf", "--out", "a"), "out='a' is there already and not empty; valid: a new folder"),
        (("a", "--to", "hf", "--out", "out", "--dtype", "int8"), "dtype='int8' is unknown; valid: auto"),
        (
            ("a", "--to", "compressed_tensors", "--out", "out", "--dtype", "float32"),
            "dtype='float32' does not go with to=compressed_tensors",
        ),
    ],
)
def test_what_is_not_valid_is_one_line(folder, tmp_path, capsys, monkeypatch, options, line):
    monkeypatch.chdir(tmp_path)
    code, found = said(capsys, *options)
    assert code == 2
    assert found.startswith(f"error: {line}")
    assert {p.name for p in tmp_path.iterdir()} == {"a"}


def test_a_missing_library_is_named(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    code, line = said(capsys, folder, "--to", "compressed_tensors", "--out", tmp_path / "out")
    assert code == 2
    assert "pip install 'crunchmark-bench[export]'" in line


def test_a_damaged_artifact_is_named(folder, tmp_path, capsys):
    with (folder / artifact.WEIGHTS).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    code, line = said(capsys, folder, "--to", "hf", "--out", tmp_path / "out")
    assert code == 2
    assert "sha256 of weights.safetensors" in line


def test_a_full_disk_leaves_nothing_behind(folder, tmp_path, capsys, monkeypatch):
    def full(tensors, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(export, "save", full)
    out = tmp_path / "exports" / "out"
    code, line = said(capsys, folder, "--to", "hf", "--out", out)
    assert code == 1
    assert line == f"error: out='{out}' can not be written: No space left on device"
    assert list(out.parent.iterdir()) == []
