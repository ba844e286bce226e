"""A setting of several draws, of which one ended without scores; tasks that are called alike."""

import pytest
from scored_study import DENSE, GOOD, cell, right

from analysis import choose, collect, command, render, tables
from analysis.report import build


def asked(capsys, root, *words, study="s"):
    """Exit code, what was printed, and the complaint."""
    code = command.run(choose.main, [study, "--store", str(root), "--max-bytes", "9MB", *words])
    return code, *capsys.readouterr()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Draw 0 of wanda failed, and left an artifact larger than that of draw 1."""
    root = tmp_path_factory.mktemp("drawn")
    cell(root, "s", "dense", 0.0, DENSE, file_bytes=None)
    failed = {"state": "failed", "reason": "out of memory", "artifact": "/gone", "file_bytes": 8e6}
    cell(root, "s", "wanda", 0.2, {}, DENSE, key="a" * 24, **failed)
    cell(root, "s", "wanda", 0.2, GOOD, DENSE, key="b" * 24, calib_seed=1)
    return root


def test_the_draw_that_has_scores_is_the_answer_and_the_other_is_told(drawn, capsys):
    code, out, _ = asked(capsys, drawn, "--keep", "mcr=0.95")
    assert code == 0
    assert "kept, 1 of 2 draws failed" in out
    assert "wanda 0.2 (draw 1; 1 of 2 draws failed: out of memory): python run.py" in out
    assert " seed=1 " in out
    assert "3.20 MB" in out


def test_tables_say_below_a_match_that_a_draw_failed(drawn):
    (grid,) = tables.quality(collect.load("s", drawn))
    assert grid.notes() == [
        f"wanda at 0.2, {task}: 1 of 2 draws failed: out of memory" for task in ("mcr", "ppl")
    ]
    text = render.markdown(grid)
    assert "✓** <sup>1</sup>" in text
    assert r"\textsuperscript{2}" in render.latex(grid)


def test_the_report_shows_the_draw_that_has_scores(drawn):
    found = build.payload(collect.load("s", drawn), "s")["settings"]
    assert found["cell"][1] == "b" * 24
    assert (found["seeds"], found["file"][1], found["state"][1]) == ([1, 1], 3_200_000, "")
    assert found["reason"][1] == "failed: out of memory"


def test_a_draw_in_which_only_this_task_failed_is_told_of_this_task(drawn, tmp_path, capsys):
    cell(tmp_path, "s", "dense", 0.0, DENSE)
    part = {"state": "failed", "reason": "boom", "reasons": {"ppl": "boom"}}
    cell(tmp_path, "s", "wanda", 0.2, {"mcr": GOOD["mcr"]}, DENSE, key="a" * 24, **part)
    cell(tmp_path, "s", "wanda", 0.2, GOOD, DENSE, key="b" * 24, calib_seed=1)
    _, out, _ = asked(capsys, tmp_path, "--keep", "mcr=0.95")
    assert "wanda 0.2 (draw 0 of 2)" in out
    assert "failed" not in out
    _, out, _ = asked(capsys, tmp_path, "--keep", "mcr=0.95,ppl=0.95")
    assert "wanda 0.2 (draw 1; 1 of 2 draws failed: ppl: boom)" in out


def test_the_task_that_was_named_is_the_one_that_is_judged(tmp_path, capsys):
    parent = {"mcr": right(10), "nano_mcr": right(10)}
    cell(tmp_path, "s", "dense", 0.0, parent, file_bytes=None)
    cell(tmp_path, "s", "wanda", 0.2, {"mcr": right(200), "nano_mcr": right(10)}, parent)
    code, out, _ = asked(capsys, tmp_path, "--keep", "mcr=0.95")
    assert (code, "1 lost" in out) == (1, True)
    code, out, _ = asked(capsys, tmp_path, "--keep", "nano_mcr=0.95")
    assert (code, "1 kept" in out) == (0, True)
    chosen = collect.select(collect.load("s", tmp_path), (), ["mcr"])
    assert set(chosen["task"]) == {"mcr"}


def test_a_study_without_dense_has_no_other_share_to_judge_by(tmp_path, capsys):
    cell(tmp_path, "s", "wanda", 0.2, GOOD, DENSE)
    code, _, err = asked(capsys, tmp_path, "--keep", "mcr=0.9")
    assert code == 2
    assert err == "error: --keep=mcr=0.9: the study has no score of dense to compare with\n"


def test_a_share_is_asked_once_of_a_task_and_all_is_of_the_others(drawn, capsys):
    code, _, err = asked(capsys, drawn, "--keep", "mcr=0.95", "--keep", "mcr=0.5")
    assert code == 2
    assert err == "error: --keep='mcr': named twice, with 0.95 and 0.5\n"
    code, out, _ = asked(capsys, drawn, "--keep", "mcr=0.5", "--keep", "all=0.95")
    assert code == 0
    assert "mcr ≥ 50 %" in out
    assert "ppl ≤ 105 %" in out


def test_names_do_not_break_a_line(tmp_path, capsys):
    cell(tmp_path, "s", "dense", 0.0, DENSE, model="a\nb", file_bytes=None)
    cell(tmp_path, "s", "wanda", 0.2, GOOD, DENSE, model="a\nb")
    code, out, _ = asked(capsys, tmp_path, "--keep", "mcr=0.95")
    assert code == 0
    assert "PATH_OF_a\N{REPLACEMENT CHARACTER}b" in out.splitlines()[-1]
    assert "budget=0.2" in out.splitlines()[-1]


def test_a_half_written_study_names_the_command_that_shows_it(tmp_path, capsys):
    cell(tmp_path, "s", "dense", 0.0, {})
    code, _, err = asked(capsys, tmp_path, "--keep", "mcr=0.95")
    assert code == 2
    assert err.startswith("error: study='s': no task of it is finished yet; see python -m analysis.status s")
    assert err.count("\n") == 1
