"""What an offline run of W&B holds, and what happens where it can not be written."""

import json
import subprocess
import sys

import pytest
import wandb
from cell_runs import CELL, CONFIG, LOST, ROWS, folders, read, records

from crunchmark import track
from crunchmark.machine import ROOT
from crunchmark.track import WandB


@pytest.mark.slow
def test_an_offline_run_holds_exactly_what_was_logged(tmp_path, capfd):
    rows = [row | {"versions": "x" * 40_000} for row in ROWS]  # longer than one block of the file
    WandB(dir=str(tmp_path), mode="offline", entity="me").log(CONFIG, rows)
    (folder,) = folders(tmp_path)
    run, config, summary = read(folder)
    assert (run.run_group, run.display_name, run.project, run.entity) == (
        "demo",
        "svd 0.3",
        "crunchmark",
        "me",
    )
    assert run.run_id == track.run_id(CELL)
    assert run.telemetry.feature.offline
    assert {key: value for key, value in config.items() if key != "_wandb"} == CONFIG
    assert json.loads(summary["rows"]) == rows
    assert summary["state"] == "finished"
    assert summary["nano_factoid/exact_match"] == 0.75
    assert summary["nano_factoid/exact_match_stderr"] == 0.02
    assert summary["nano_factoid/exact_match_state"] == "fail"
    assert (summary["nano_factoid/eval_seconds"], summary["ppl/eval_seconds"]) == (1.5, 0.5)
    assert (summary["ppl/perplexity"], summary["ppl/bits"]) == ("inf", None)
    assert [summary[name] for name in ("achieved_bytes", "file_bytes", "compress_seconds")] == [
        0.299,
        3.1e6,
        3.2,
    ]
    assert summary["reason"] is None
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_neither_code_nor_console_nor_machine_is_uploaded(tmp_path):
    WandB(dir=str(tmp_path), mode="offline").log(CONFIG, ROWS)
    (folder,) = folders(tmp_path)
    read(folder)
    assert not list((folder / "files").rglob("*"))
    kinds = {record.WhichOneof("record_type") for record in records(next(folder.glob("*.wandb")))}
    assert kinds <= {"header", "run", "telemetry", "summary", "exit"}
    assert read(folder)[0].host == ""


def test_a_cell_without_scores_tells_its_state_and_reason(tmp_path):
    WandB(dir=str(tmp_path), mode="offline").log(CONFIG, LOST)
    _, _, summary = read(folders(tmp_path)[0])
    assert json.loads(summary["rows"]) == LOST
    found = [summary[name] for name in ("state", "reason", "nearest_budget")]
    assert found == ["unreachable", "no rank fits", 0.4]


def test_the_run_id_is_that_of_the_cell_in_its_study():
    assert track.run_id(CELL) == track.run_id(dict(reversed(ROWS[0].items())))
    assert track.run_id(CELL).startswith(CELL["cell"][:24])
    others = [CELL | {"study": "other"}, CELL | {"cell": "5d" * 32}]
    assert len({track.run_id(row) for row in [CELL, *others]}) == 3


def test_the_same_rows_are_logged_once_and_new_ones_again(tmp_path):
    for _ in range(2):
        WandB(dir=str(tmp_path), mode="offline").log(CONFIG, ROWS)
    assert len(folders(tmp_path)) == 1
    WandB(dir=str(tmp_path), mode="offline").log(CONFIG, ROWS[:1])
    first, second = (read(folder)[0] for folder in folders(tmp_path))
    assert first.run_id == second.run_id


def test_without_the_package_a_cell_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    WandB(dir=str(tmp_path), mode="offline").log(CONFIG, ROWS)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cell {CELL['cell'][:24]} is not logged: ModuleNotFoundError" in line
    assert "mend: pip install wandb" in line


def test_whatever_init_raises_a_cell_goes_on_and_is_logged_next_time(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as broken:
        broken.setattr(wandb, "init", lambda **_: 1 / 0)
        WandB(dir=str(tmp_path), mode="offline").log(CONFIG, ROWS)
    (line,) = capsys.readouterr().err.splitlines()
    assert "is not logged: ZeroDivisionError: division by zero; mend: run the cell again" in line
    WandB(dir=str(tmp_path), mode="offline").log(CONFIG, ROWS)
    assert len(folders(tmp_path)) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    WandB(dir=str(tmp_path / "file"), mode="offline").log(CONFIG, ROWS)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"make track.dir={str(tmp_path / 'file')!r} a folder that can be written" in line


@pytest.mark.slow
def test_a_process_that_tracked_says_nothing_and_ends(tmp_path):
    code = (
        "import json, sys; from crunchmark.track import WandB;"
        "WandB(dir=sys.argv[1], mode='offline').log({}, json.loads(sys.argv[2]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), json.dumps(LOST)],
        **{"cwd": ROOT, "capture_output": True, "text": True, "timeout": 60, "check": True},
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert len(folders(tmp_path)) == 1
