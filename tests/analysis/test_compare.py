"""Two studies or two cells: what is a regression, and what is only another setting."""

import csv
import io
import json
import math
import shutil
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console
from scipy.stats import binomtest
from scored_study import DENSE, GOOD, cell, compared, right

from analysis import command
from analysis.collect import AnalysisError
from analysis.compare import __main__ as compare
from analysis.compare.show import show


def verdicts(found):
    return {(row.title, row.task): row.verdict for row in found.lines.itertuples()}


def asked(capsys, root, *words):
    """Exit code, what was printed, and the complaint."""
    code = command.run(compare.main, [*words, "--store", str(root)])
    return code, *capsys.readouterr()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Studies old and new: dense, and svd and wanda at 0.3."""
    folder = tmp_path_factory.mktemp("made")
    for study in ("old", "new"):
        cell(folder, study, "dense", 0.0, DENSE)
        for method in ("svd", "wanda"):
            cell(folder, study, method, 0.3, GOOD, DENSE)
    return folder


@pytest.fixture
def root(made, tmp_path):
    return shutil.copytree(made, tmp_path / "store")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Two studies whose cells differ in every way; a cell each that the other has not."""
    folder = tmp_path_factory.mktemp("many")
    nats, fewer = GOOD["ppl"], DENSE | {"mcr": right(10, n=399)}
    later = {
        "svd": {"mcr": right(72)},
        "wanda": {"mcr": right(24)},
        "rtn": {"mcr": right(14)},
        "lord": {"mcr": right(0)},
        "gptq": {"ppl": [s + 0.1 for s in nats[:-1]] + [1.2]},
        "hqq": {"ppl": [math.inf] * len(nats)},
        "awq": {"mcr": right(12, n=399)},
        "afm": {},
    }
    for study in ("old", "new"):
        cell(folder, study, "dense", 0.0, DENSE)
    for method, scores in later.items():
        ended = {"state": "failed", "reason": "no memory"} if method == "afm" else {}
        before = {task: GOOD[task] for task in scores or ("mcr",)}
        cell(folder, "old", method, 0.3, before, DENSE)
        cell(folder, "new", method, 0.3, scores, fewer if method == "awq" else DENSE, **ended)
    cell(folder, "old", "vq", 0.5, {"mcr": GOOD["mcr"]}, DENSE)
    cell(folder, "new", "lrt", 0.5, {"mcr": GOOD["mcr"]}, DENSE)
    return folder


@pytest.fixture(scope="module")
def found(many):
    return compared(many, "old", "new")


def test_what_each_line_amounts_to(found):
    assert verdicts(found) == {
        ("dense", "mcr"): "identical",
        ("dense", "ppl"): "identical",
        ("svd 0.3", "mcr"): "regression",
        ("wanda 0.3", "mcr"): "worse",  # 12 items lost, 3 %
        ("rtn 0.3", "mcr"): "within margin",  # 2 items lost are chance
        ("lord 0.3", "mcr"): "better",
        ("gptq 0.3", "ppl"): "regression",
        ("hqq 0.3", "ppl"): "regression",
        ("awq 0.3", "mcr"): "not compared",
        ("afm 0.3", "mcr"): "lost",
    }
    notes = {line.title: line.note for line in found.lines.itertuples() if line.note}
    assert notes["afm 0.3"] == "failed: no memory"
    assert "item 'mcr/399' is not in every seed" in notes["awq 0.3"]
    assert (found.only_a, found.only_b) == (["vq 0.5"], ["lrt 0.5"])
    assert found.faults == 4
    assert replace(found, strict=True).faults == 6


def test_the_figures_are_those_of_the_tests(found):
    line = found.lines.query("title == 'svd 0.3'").iloc[0]
    assert (line["lost"], line["gained"], line["n"]) == (60, 0, 400)
    assert line["delta"] == pytest.approx(-0.15)
    assert line["low"] < -0.15 < line["high"] < 0
    assert line["change"] == pytest.approx(-0.15 / 0.97)
    assert line["p_value"] == pytest.approx(binomtest(60, 60).pvalue)
    assert line["p_holm"] == pytest.approx(7 * line["p_value"])  # the smallest of the seven with one


def test_what_is_a_regression_depends_on_the_margin_and_the_side(many):
    found = compared(many, "new", "old", "--margin", "0")
    told = verdicts(found)
    assert told["svd 0.3", "mcr"] == "better"
    assert told["lord 0.3", "mcr"] == "regression"  # 3 %, within the margin of 5 %
    assert told["rtn 0.3", "mcr"] == "not told apart"
    assert told["gptq 0.3", "ppl"] == "better"
    assert told["afm 0.3", "mcr"] == "only in B"
    assert found.faults == 1


def test_the_same_study_has_no_regression_and_no_change(root, capsys):
    code, out, _ = asked(capsys, root, "old", "new")
    assert code == 0
    assert "nothing else that is recorded differs" in out
    assert out.rstrip().endswith("no regression: identical 6")


def test_other_protocols_are_told_and_never_compared(root, capsys):
    ppl = {"mcr": GOOD["mcr"], "ppl": [s + 0.5 for s in GOOD["ppl"]]}
    for method in ("dense", "svd", "wanda"):
        parent = None if method == "dense" else DENSE
        cell(root, "new", method, 0.3 if parent else 0.0, ppl if parent else DENSE, parent, protocol="v2")
    code, _, err = asked(capsys, root, "old", "new")
    assert code == 2
    assert err.count("\n") == 1
    assert "asked under protocol 'v1' in A and 'v2' in B" in err


def test_a_task_of_one_protocol_is_compared_beside_another(root):
    for method in ("dense", "svd", "wanda"):
        parent = None if method == "dense" else DENSE
        budget, scores = (0.3, GOOD) if parent else (0.0, DENSE)
        cell(root, "new", method, budget, {"ppl": scores["ppl"]}, parent, protocol="v2")
    found = compared(root, "old", "new")
    assert verdicts(found)["svd 0.3", "mcr"] == "identical"
    assert verdicts(found)["svd 0.3", "ppl"] == "not compared"
    assert found.faults == 0
    found.strict = True
    assert found.faults == 3


def test_cells_without_another_side_are_named(many, capsys):
    code, out, _ = asked(capsys, many, "old", "new", "--strict")
    assert code == 1
    assert "only in A: vq 0.5\nonly in B: lrt 0.5\n" in out
    assert "lost: failed: no memory" in out
    code, _, err = asked(capsys, many, "old:vq", "new")
    assert code == 2
    assert "no cell of the one has the settings of one of the other" in err


def test_cells_are_named_by_the_start_of_their_key(root, capsys):
    code, out, _ = asked(capsys, root, "old:svd", "old:wan")
    assert code == 0
    assert "svd 0.3 → wanda 0.3" in out
    assert "config: method" in out
    code, out, _ = asked(capsys, root, f"{root}/old:svd", "new")
    assert code == 0
    assert out.rstrip().endswith("no regression: identical 2")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("old:none", "new"), "A='old:none': no cell starts with 'none'; there are: dense000 (dense 0),"),
        (("new", "old:"), "B='old:': 3 cells start with ''; there are:"),
        (("olld", "new"), "study='olld': no rows in"),
        (("old", "nowhere/new"), "store='nowhere': no such folder"),
        (("old", "new/"), "B='new/': names no study; valid: STUDY, STUDY:KEY"),
        (("old", "new", "--margin", "1"), "--margin=1: valid is from 0 to below 1"),
        (("old", "new", "--margin", "nan"), "--margin=nan: valid is"),
        (("old", "new", "--margin", "x"), "argument --margin: invalid float value: 'x'; valid: what"),
        (("old",), "the following arguments are required: B; valid: what"),
        (
            ("old", "new", "--out", "/proc/x"),
            "--out='/proc/x' can not be written: No such file",
        ),
        (("old", "new", "--metric", "speed"), "--metric='speed': not in this study; valid: all, score"),
        (("old", "new", "--out", "x", "--format", "pdf"), "--format='pdf': valid: md, csv, json"),
        (("old", "published"), "study='old': no row says what is expected; valid: published:EXPERIMENT"),
        (("published:wanda_lama_7b", "old"), "no such experiment; valid: those of"),
        (("published", "published"), "one of the two must be a study"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(root, capsys, words, said):
    code, _, err = asked(capsys, root, *words)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


def test_what_else_changed_is_told_once(root):
    later = {"git": "b" * 40, "dirty": True, "versions": {"torch": "2.14.0"}, "threads": 4, "file_bytes": 5}
    for method in ("svd", "wanda"):
        cell(root, "new", method, 0.3, GOOD, DENSE, n=64, source="5" * 64, **later)
    found = {(c.name, c.a, c.b, c.cells) for c in compared(root, "old", "new").changes}
    both = ("svd 0.3", "wanda 0.3")
    assert found == {
        ("calib.n", "128", "64", both),
        ("git", "a" * 12, "b" * 12, both),
        ("dirty", "False", "True", both),
        ("source", "–", "5" * 12, both),
        ("torch", "2.13.0", "2.14.0", both),
        ("threads", "1", "4", both),
        ("file_bytes", "2,800,000", "5", both),
    }


def test_another_key_of_the_same_record_says_so(root):
    cell(root, "later", "svd", 0.3, GOOD, DENSE, key="fffffff0")
    (change,) = compared(root, "old", "later").changes
    assert (change.kind, change.name, change.b) == ("code", "cell key", "fffffff0")


def test_cells_of_one_budget_are_told_apart_by_what_differs_in_a_study(root):
    for study, draws in (("few", (64,)), ("many", (64, 128))):
        for n in draws:
            cell(root, study, "gptq", 0.3, {"mcr": right(n)}, DENSE, n=n, key=f"{n}")
    found = compared(root, "few", "many")
    assert verdicts(found) == {("gptq 0.3", "mcr"): "identical"}
    assert found.only_b == ["gptq n=128 0.3"]
    cell(root, "other", "gptq", 0.3, {"mcr": right(128)}, DENSE, n=128)
    assert [c.name for c in compared(root, "few", "other").changes] == ["calib.n"]


def test_names_can_not_steer_a_terminal_or_a_page(root, tmp_path, capsys):
    bad = "\x1b[31m<img src=x>[bold]|\n"
    cell(root, "evil", bad, 0.3, GOOD, DENSE, key="1")
    cell(root, "good", bad, 0.3, {"mcr": right(200), "ppl": GOOD["ppl"]}, DENSE, key="2", git=bad)
    code, out, _ = asked(capsys, root, "evil", "good", "--out", str(tmp_path / "out"))
    assert code == 1
    assert "\x1b" not in out
    assert "[bold]|" in out
    page = (tmp_path / "out" / "compare.md").read_text()
    assert "<img" not in page
    assert "\x1b" not in page
    assert all(line.count("|") - line.count("\\|") in (0, 5, 11) for line in page.splitlines())


def test_files_hold_every_line(root, tmp_path, capsys):
    cell(root, "new", "svd", 0.3, {"mcr": right(72)}, DENSE, key="svd03" + "0" * 24, file_bytes=None)
    out = str(tmp_path / "out")
    code, text, _ = asked(capsys, root, "old", "new", "--out", out, "--format", "json,csv")
    assert code == 1
    assert text.rstrip().splitlines()[-2:] == [f"{out}/compare.json", f"{out}/compare.csv"]
    whole = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert whole["regression"] is True
    assert whole["counts"] == {"identical": 5, "regression": 1}
    assert {line["n"] for line in whole["lines"]} == {400, 100}
    assert len(list(csv.DictReader((tmp_path / "out" / "compare.csv").open()))) == 6


def test_many_lines_without_news_are_counted(found):
    lines = pd.concat([found.lines] + [found.lines[:2]] * 20, ignore_index=True)
    console = Console(width=100, record=True, file=io.StringIO())
    show(replace(found, lines=lines), console)
    text = console.export_text()
    assert "43 lines without news are not shown: --all shows them" in text
    assert "lord 0.3" in text
    assert "rtn" not in text


def test_what_a_killed_sweep_left_half_is_passed_over(root):
    next((root / "new").glob("svd03*/cell.json")).unlink()
    next((root / "new").glob("wanda03*/task-mcr.json")).unlink()
    found = compared(root, "old", "new")
    assert found.only_a == ["svd 0.3"]
    assert verdicts(found)["wanda 0.3", "mcr"] == "only in A"


def test_a_folder_that_is_no_study_names_what_is_there(root):
    with pytest.raises(AnalysisError, match="known: new, old"):
        compared(root, "old", "gone")
