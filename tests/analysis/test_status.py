"""How far a sweep is: the picture of signs of life and stored cells, and what it can not be fooled by."""

import io
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import synthetic_study
from rich.console import Console

from analysis import collect, status
from analysis.pace import Pace
from crunchmark.progress import Event
from crunchmark.pulse import SILENT, Sign, space
from crunchmark.store import Store

NOW = 1_800_000_000.0
AT = Event("s", "key", "nano", "svd", (), 0.5, "compress", 12, 42, "layer")
SIGN = Sign(
    "lab",
    7,
    "elsewhere",
    "one",
    NOW - 100,
    NOW - 1,
    {"svd": 4},
    {"svd": {"done": 1}},
    AT,
    "svd",
    NOW - 10,
    NOW - 4,
)
TOOK = {"load_seconds": 1.0, "allocate_seconds": 0.0, "compress_seconds": 8.0, "pack_seconds": 1.0}
BYTES = {"dense_model_bytes": 4_000_000, "model_bytes": 3_000_000}


def put(root, key, method="svd", scored=True, task_seconds=10.0, **facts):
    """A stored cell that took 20 seconds."""
    store = Store(root)
    store.put_cell("s", key, {"method": method, "budget": 0.3, "config": {}, **TOOK, **BYTES, **facts})
    if scored:
        store.put_task("s", key, "t", {"about": {"eval_seconds": task_seconds}, "items": [], "rows": []})


def beat(root, *signs):
    (root / "s").mkdir(exist_ok=True)
    for sign in signs:
        (root / "s" / sign.name).write_text(json.dumps(asdict(sign)))


def drawn(board, width=100, now=NOW, **looks):
    console = Console(width=width, record=True, file=io.StringIO(), force_terminal=True, **looks)
    console.print(board.draw(now))
    return console.file.getvalue() if looks else console.export_text()


def shown(root, **how):
    return drawn(status.Board(root, "s"), **how)


def test_cells_stage_layer_bytes_and_the_time_that_such_cells_took(tmp_path):
    put(tmp_path, "a")
    put(tmp_path, "b", "dense", model_bytes=4_000_000)
    put(tmp_path, "c", "gptq", scored=False, state="failed", reason="RuntimeError: no\n memory")
    beat(tmp_path, SIGN)
    lines = [line.rstrip() for line in shown(tmp_path).splitlines()]
    assert lines == [
        "s: 3 cells stored  2 done  1 failed  ·  2.00 MB of 8.00 MB saved (25%)",
        "  failed gptq 0.3: RuntimeError: no memory",
        "sweep  ━━━━━━━───────────────────────  1 of 4 cells",
        "  1 done  ·  about 50 s left",  # three cells of 20 s, of one of which 10 s have passed
        "  svd 0.5  compress  ━━━─────────  layer 12 of 42  4 s, usually 8 s  (lab, process 7)",
    ]


def test_the_live_picture_counts_a_process_of_the_same_number_elsewhere(tmp_path):
    other = replace(SIGN, host="other", plan={}, ended={"svd": {"done": 2}})
    beat(tmp_path, SIGN, other)
    board = status.Board(tmp_path, "s", lambda: SIGN)
    assert "3 of 4 cells" in drawn(board)


def test_the_live_picture_is_of_its_own_sweep(tmp_path):
    beat(tmp_path, SIGN, replace(SIGN, sweep="two", pid=8))
    text = drawn(status.Board(tmp_path, "s", lambda: replace(SIGN, event=replace(AT, step=13))))
    assert [line.rstrip() for line in text.splitlines()] == [
        "s  ━━━━━━━───────────────────────  1 of 4 cells",
        "  1 done  ·  time left unknown: no such cell measured yet",
        "  svd 0.5  compress  ━━━─────────  layer 13 of 42  4 s",
    ]


def test_processes_of_one_sweep_share_its_cells_and_its_time(tmp_path):
    put(tmp_path, "a")
    other = replace(SIGN, pid=8, plan={}, ended={"svd": {"cached": 1, "failed": 1}}, cell_started=NOW)
    beat(tmp_path, replace(SIGN, plan={"svd": 6, "gptq": 1}), other)
    text = shown(tmp_path)
    assert "3 of 7 cells" in text
    assert "1 done  1 cached  1 failed  ·  about 25 s left, and 1 cell of unknown time" in text
    assert text.count("svd 0.5") == 2


@pytest.mark.parametrize(
    ("event", "kind", "told"),
    [
        (Event("s", "k", method="dense", stage="task t"), "svd", "dense, the parent  task t  4 s"),
        (replace(AT, stage=""), "svd", "svd 0.5  starting"),
        (Event(), "", "between cells"),
        (
            replace(AT, stages=("greedy", "eora"), step=0),
            "svd greedy eora",
            "svd greedy eora 0.5  compress  4 s",
        ),
    ],
)
def test_what_else_a_process_may_be_at(tmp_path, event, kind, told):
    beat(tmp_path, replace(SIGN, event=event, kind=kind))
    assert f"  {told}  (lab, process 7)" in shown(tmp_path)


def test_a_cell_that_waits_says_so(tmp_path):
    beat(tmp_path, replace(SIGN, event=replace(AT, stage=""), stage_started=NOW - 60))
    assert "svd 0.5  waiting for another process" in shown(tmp_path)


def test_silence_is_told_with_what_is_known_of_it(tmp_path):
    silent = replace(SIGN, beat=NOW - SILENT - 120)
    beat(tmp_path, silent, replace(silent, pid=2**22 + 1, space=space()))
    text = " ".join(shown(tmp_path, width=300).split())
    assert text.count("(3 min ago)") == 2
    assert "lab, process 4194305 it is gone; it was at svd 0.5, compress; 1 of 4 cells were over; the" in text
    assert (
        "lab, process 7 it or its machine is stopped, or busy with something long; it was at svd 0.5" in text
    )
    assert "nothing runs" not in text
    assert "left" not in text


def test_a_study_is_read_again_only_where_it_changed(tmp_path, monkeypatch):
    put(tmp_path, "a")
    pace, reads = Pace(tmp_path, "s").refresh(), []
    monkeypatch.setattr(
        Pace, "_read", lambda self, name, real=Pace._read: reads.append(name) or real(self, name)
    )
    put(tmp_path, "b", task_seconds=30.0)
    pace.refresh().refresh()
    assert reads == ["b"]
    assert pace.cell("svd") == 30.0  # 10 of the stages, and 10 or 30 of the task
    assert pace.stage("svd", "compress") == 8.0
    assert pace.cell("gptq") is None


def test_half_a_cell_and_old_rows_are_no_measure(tmp_path):
    put(tmp_path, "a", scored=False)
    store = Store(tmp_path)
    store.put_cell("s", "old", {"method": "rtn", "budget": None, "compress_seconds": "fast", "config": None})
    store.put_task("s", "old", "t", {"rows": []})
    (tmp_path / "s" / "broken").mkdir()
    (tmp_path / "s" / "broken" / "cell.json").write_text("{")
    pace = Pace(tmp_path, "s").refresh()
    assert pace.states() == {"begun": 1, "done": 1}
    assert (pace.cell("svd"), pace.cell("rtn")) == (None, None)
    assert pace.saved() == (1_000_000, 4_000_000)


def test_stages_around_a_method_make_another_kind(tmp_path):
    around = {
        "allocate": {"_target_": "methods.allocate.owl.OWL"},
        "compensate": {"_target_": "methods.compensate.eora.EoRA"},
    }
    put(tmp_path, "a", config=around)
    pace = Pace(tmp_path, "s").refresh()
    assert pace.cell("svd owl eora") == 20.0
    assert pace.cell("svd") is None


def test_names_from_files_are_no_orders_to_a_terminal(tmp_path):
    evil = "\x1b]0;x\x07[red]svd\r\n"
    put(tmp_path, "a", evil, state="failed", reason="\x1b[2J[link=http://x]", scored=False)
    sign = replace(SIGN, host=evil, kind=evil, event=replace(AT, method=evil), ended={"a": {evil: 1}})
    beat(tmp_path, replace(sign, host="x"))
    text = shown(tmp_path, width=200)
    assert "\N{REPLACEMENT CHARACTER}]0;x\N{REPLACEMENT CHARACTER}[red]svd\N{REPLACEMENT CHARACTER}" in text
    assert not set("\x1b\x07\r") & set(text)


def test_no_color_is_followed_and_the_bar_can_still_be_read(tmp_path, monkeypatch):
    beat(tmp_path, SIGN)
    assert "\x1b[32m" in shown(tmp_path, color_system="standard", no_color=False)
    monkeypatch.setenv("NO_COLOR", "1")
    text = shown(tmp_path, color_system="standard")
    assert not [code for code in range(30, 48) if f"\x1b[{code}m" in text or f";{code}m" in text]
    assert "━━━━━━━" in text
    assert "───────" in text


@pytest.mark.parametrize("width", [30, 60])
def test_a_narrow_terminal_cuts_lines_and_loses_no_count(tmp_path, width):
    put(tmp_path, "a")
    beat(tmp_path, SIGN)
    lines = shown(tmp_path, width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert any("about 50 s left" in line for line in lines)


def test_damaged_files_are_named(tmp_path):
    put(tmp_path, "a")
    (tmp_path / "s" / ".running-x-1.json").write_text("{")
    (tmp_path / "s" / "b").mkdir()
    (tmp_path / "s" / "b" / "cell.json").write_text('{"method": "svd",')
    told = " ".join(shown(tmp_path, width=300).split())
    assert ".running-x-1.json can not be read; delete it" in told
    assert "/s/b can not be read; delete it" in told
    (tmp_path / "s" / "b" / "cell.json").unlink()
    assert "/s/b" not in shown(tmp_path, width=300)


def test_the_command_prints_a_study_that_is_over(tmp_path, capsys):
    some = synthetic_study.rows(methods=("gptq", "slicegpt"), budgets=(0.1, 0.7), tasks=("nano_mcr",))
    synthetic_study.put(tmp_path, "demo", some)
    assert status.main(["demo", "--store", str(tmp_path)]) == []
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("demo: 5 cells stored  3 done  1 skipped  1 unreachable")
    assert told[1:] == ["nothing runs"]


def test_the_first_cell_of_a_study_can_be_watched(tmp_path, capsys):
    beat(tmp_path, replace(SIGN, beat=2e9))
    status.main(["s", "--store", str(tmp_path)])
    assert "s: no cells stored" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["demo"], "study='demo': no rows in"),
        (["../x"], "study='../x': no rows in"),
        (["s", "--store", "nowhere"], "store='nowhere': no such folder"),
        (["s", "--watch"], "--watch wants a terminal"),
    ],
)
def test_what_can_not_be_shown_is_one_line(tmp_path, words, told):
    put(tmp_path, "a")
    with pytest.raises(collect.AnalysisError, match=told):
        status.main(["--store", str(tmp_path), *words])


def test_watching_ends_with_the_sweep(tmp_path, monkeypatch):
    beat(tmp_path, SIGN)
    clock = [NOW]
    monkeypatch.setattr(status.time, "time", lambda: clock[0])
    monkeypatch.setattr(status.time, "sleep", lambda _: clock.append(clock.pop() + SILENT / 2))
    console = Console(width=100, file=io.StringIO(), force_terminal=True)
    board = status.Board(tmp_path, "s")
    board.look(NOW)
    status.watch(board, console)
    assert clock[0] > NOW + SILENT - 10
    assert "1 of 4 cells" in console.file.getvalue()


@pytest.mark.slow
def test_it_needs_no_torch():
    code = "import sys, analysis.status; sys.exit(bool({'torch', 'hydra'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
