import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import synthetic_study
from rich.console import Console

from analysis import brief, collect, finish

HOUSE = Path(__file__).parents[2]


def printed(thing, width=120):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(thing)
    return console.export_text()


def test_a_row_per_cell_dense_first(rows):
    lines = printed(finish.table(rows)).splitlines()
    assert lines[0].split() == ["method", "removed", "on", "disk", "factoid", "icra_open", "ppl", "time"]
    assert lines[2].startswith("dense")
    assert "0.970 ±.008" in lines[2]
    body = [line for line in lines[2:] if line.strip() and not line[0].isdigit()]
    assert len(body) == 10


def test_marks_follow_the_states(rows):
    text = printed(finish.table(rows))
    states = [row["state"] for row in rows]
    for state, mark in (("match", "✓"), ("fail", "✗"), ("undecided", "?")):
        assert text.count(mark) == states.count(state)


def test_what_a_row_does_not_say_was_removed_is_left_out(rows):
    old = [{k: v for k, v in row.items() if k != "achieved_bytes"} for row in rows]
    text = printed(finish.table(old))
    assert "nan" not in text
    assert "10%" in text
    assert "10→" not in text


def test_cells_without_scores_say_why(rows):
    text = printed(finish.table(rows))
    assert "unreachable 1" in text
    assert "1 nearest reachable budget 0.0625" in text
    assert "2 slicegpt covers compensate" in text


def test_a_failed_cell_with_some_scores_shows_both(rows):
    first = next(r for r in rows if r["method"] == "svd")
    gone = {**{k: v for k, v in first.items() if k not in ("task", "metric", "value")}, "state": "failed"}
    rest = [r for r in rows if r["cell"] != first["cell"] or r["task"] == "nano_factoid"]
    text = printed(finish.table([*rest, {**gone, "reason": "OutOfMemory: 3 GB"}]))
    (line,) = (line for line in text.splitlines() if line.startswith("svd") and "10→" in line)
    assert line.count("failed 3") == 2
    assert "3 OutOfMemory: 3 GB" in text


@pytest.mark.slow
@pytest.mark.parametrize("width", [120, 100])
def test_eight_methods_and_seven_tasks_fit(width):
    methods = tuple(list(synthetic_study.METHODS)[:8])
    lines = printed(finish.table(synthetic_study.rows(methods=methods), width), width).splitlines()
    assert len([line for line in lines if line.startswith("sparsegpt")]) == 7
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)


def test_simulated_cells_carry_a_star():
    rows = synthetic_study.rows(methods=("magnitude",), budgets=(0.3,), tasks=("nano_mcr",))
    assert "3.26 MB*" in printed(finish.table(rows))


@pytest.mark.slow
def test_show_prints_the_table_and_the_paths(root):
    console = Console(width=120, record=True, file=io.StringIO())
    finish.show("demo", root, console)
    text = console.export_text()
    assert str(root / "demo" / "tables" / "quality.md") in text.replace("\n", "")
    for name in ("pareto.png", "curves.png"):
        assert (root / "demo" / "figures" / name).stat().st_size > 5000


def test_quiet_writes_the_files_and_says_only_what_went_wrong(rows, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("disk full")

    synthetic_study.put(tmp_path, "demo", rows[:3])
    monkeypatch.setattr("analysis.tables.write", lambda data, folder: [folder])
    monkeypatch.setattr("analysis.pareto.write", full)
    console = Console(width=120, record=True, file=io.StringIO())
    finish.show("demo", tmp_path, console, quiet=True)
    assert console.export_text() == "plot: not written: disk full\n"


def test_show_survives_a_missing_study(root):
    console = Console(width=200, record=True, file=io.StringIO())
    finish.show("nope", root, console)
    assert "no table: study='nope'" in console.export_text()


@pytest.mark.slow
def test_show_says_what_it_could_not_write(root):
    (root / "demo" / "tables").write_text("in the way")
    console = Console(width=200, record=True, file=io.StringIO())
    finish.show("demo", root, console)
    assert "table: not written" in console.export_text()


def test_the_callback_shows_once_and_only_at_the_end(monkeypatch, tmp_path):
    calls, store = [], str(tmp_path)
    (tmp_path / "demo").mkdir()
    monkeypatch.setattr(finish, "show", lambda *names, quiet: calls.append((*names, quiet)))
    monkeypatch.setattr(finish.atexit, "register", lambda *_: None)
    config, callback = SimpleNamespace(study="demo", store=store), finish.Finish()
    callback.on_multirun_start(config=config, config_name="config")
    callback.on_job_start(config=config, task_function=None)
    callback.on_job_end(config=config, job_return=None)
    assert calls == []
    callback.on_multirun_end(config=config, config_name="config")
    callback._show(config)
    assert calls == [("demo", store, False)]


@pytest.mark.parametrize(("said", "shown"), [([False], 0), ([False, True], 1), ([True], 1), ([], 0)])
def test_a_config_that_is_no_cell_shows_no_table_of_earlier_ones(monkeypatch, tmp_path, said, shown):
    """The study is there from before; a job returns false where its config was no cell."""
    calls = []
    (tmp_path / "demo").mkdir()
    monkeypatch.setattr(finish, "show", lambda *names, quiet: calls.append((*names, quiet)))
    monkeypatch.setattr(finish.atexit, "register", lambda *_: None)
    config, callback = SimpleNamespace(study="demo", store=str(tmp_path)), finish.Finish()
    for value in said:
        callback.on_job_start(config=config, task_function=None)
        callback.on_job_end(config=config, job_return=SimpleNamespace(_return_value=value))
    callback.on_run_end(config=config)
    callback._show(config)
    assert len(calls) == shown


def test_nothing_is_said_where_nothing_was_stored(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(finish, "show", lambda *names, quiet: calls.append((*names, quiet)))
    finish.Finish().on_run_end(config=SimpleNamespace(study="none", store=str(tmp_path)))
    assert calls == []


RUN = """
import sys, warnings
import hydra
warnings.simplefilter("error")

@hydra.main(version_base="1.3", config_path=None, config_name=None)
def main(cfg):
    if cfg.x == 2:
        raise ValueError("x=2 is bad")

main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("bad", [False, True])
def test_hydra_calls_it_also_when_a_cell_failed(root, tmp_path, bad):
    (tmp_path / "app.py").write_text(RUN)
    options = [
        *("-m", f"+x={'1,2' if bad else '1,3'}", "+study=demo", f"+store={root}"),
        *("+hydra.callbacks.finish._target_=analysis.finish.Finish", f"hydra.sweep.dir={tmp_path}/out"),
    ]
    done = subprocess.run(
        [sys.executable, "app.py", *options],
        cwd=tmp_path,
        env={"PYTHONPATH": str(HOUSE), "PATH": "/usr/bin:/bin", "COLUMNS": "120"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode != 0) == bad, done.stderr
    assert done.stdout.count("on disk") == 1, done.stdout + done.stderr
    assert ("x=2 is bad" in done.stderr) == bad


@pytest.mark.slow
def test_errors_stand_below_their_values_in_a_narrow_terminal():
    methods = tuple(list(synthetic_study.METHODS)[:8])
    lines = printed(finish.table(synthetic_study.rows(methods=methods), 92), 92).splitlines()
    assert max(map(len, lines)) <= 92
    at = next(i for i, line in enumerate(lines) if line.startswith("dense"))
    assert "±" in lines[at + 1]
    assert not any("…" in line for line in lines)


def test_draws_of_one_setting_are_told_apart(rows):
    first = [r for r in rows if r["method"] == "svd" and r["budget"] == 0.1]
    again = [{**r, "cell": "another", "calib_seed": 1} for r in first]
    text = printed(finish.table([*rows, *again]))
    assert "svd #0" in text
    assert "svd #1" in text


def test_a_large_study_is_a_line_per_method(rows):
    many = [
        {**r, "cell": f"{r['cell']}{i}", "budget": r["budget"] + i / 100} for i in range(12) for r in rows
    ]
    data = collect.frame(many)
    assert brief.large(data)
    assert not brief.large(collect.frame(rows))
    text = printed(brief.table(data), 120)
    for method in set(data["label"]) - {"dense"}:
        assert [line for line in text.splitlines() if line.startswith(f"{method} ")]
    assert f"{data['cell'].nunique()} cells: the largest budget" in text


def test_a_large_study_on_a_narrow_terminal_says_what_it_left_out(rows):
    data = collect.frame(rows)
    assert "no room here for" not in printed(brief.table(data, 40), 120)
    text = printed(brief.table(data, 24), 120)
    assert "no room here for icra_open, ppl" in text
    assert "factoid" in text.splitlines()[0]


def test_every_failed_task_has_its_own_reason_and_none_is_left_out(rows):
    first = next(r for r in rows if r["method"] == "svd")
    gone = {k: v for k, v in first.items() if k not in ("task", "metric", "value")} | {"state": "failed"}
    told = {"kick_factoid": "kick_factoid: no file", "kick_mcr": "no data", "kick_mcr_k1": "no data"}
    more = [*rows, {**gone, "reason": "kick_factoid: no file", "reasons": told}]
    lines = printed(finish.table(more), 160).splitlines()
    (line,) = (line for line in lines if line.startswith("svd") and "10→" in line)
    assert [word for word in line.split() if word.isdigit()][-3:] == ["3", "4", "4"]
    assert lines[0].count("factoid") == 2
    assert "nano_factoid" in lines[0]
    assert "kick_factoid" in lines[0]
    assert any(text.startswith("3 kick_factoid: no file") for text in lines)
    assert any(text.startswith("4 kick_mcr, kick_mcr_k1: no data") for text in lines)


def test_a_cell_without_scores_names_the_reason_of_each_task(rows):
    dense = next(r for r in rows if r["method"] == "dense")
    gone = {k: v for k, v in dense.items() if k not in ("task", "metric", "value")} | {"state": "failed"}
    told = {"kick_factoid": "kick_factoid: no file", "kick_icra_open": "kick_icra_open: offline"}
    text = printed(finish.table([{**gone, "reason": told["kick_factoid"], "reasons": told}]))
    assert "failed 1,2" in text
    assert "1 kick_factoid: no file" in text
    assert "2 kick_icra_open: offline" in text


def test_flags_and_missing_scores_are_told_below_the_table(rows):
    for row in rows:
        row["coverage"] = 1.0
    svd = [r for r in rows if r["method"] == "svd" and r["task"] == "nano_factoid"]
    svd[0] |= {"flags": {"truncated": 3, "memory_bound": 9}, "coverage": 0.5}
    svd[1] |= {"flags": {"truncated": 7}}
    text = printed(finish.table(rows), 160)
    items = 2 * svd[0]["n"]
    assert f"flagged in nano_factoid: truncated 7, scores for 50% of {items} items" in text
