"""A task asked again under another protocol: what is old, what would mix, and the way out."""

import pytest
import synthetic_study
from rich.console import Console
from synthetic_study import put

from analysis import collect, command, finish, kick, pareto, plan, protocols, tables
from crunchmark.store import Store

pytestmark = pytest.mark.slow

NEW = "nano_ppl-v2"
SMALL = {"methods": ("svd", "wanda"), "budgets": (0.1, 0.3), "tasks": ("nano_factoid", "nano_ppl")}


def redone(rows, *methods, task="nano_ppl"):
    """The rows after an update of one task, of which only some methods were asked again."""
    return [{**r, "protocol": NEW} if r["method"] in methods and r.get("task") == task else r for r in rows]


@pytest.fixture
def small():
    return synthetic_study.rows(**SMALL)


@pytest.fixture
def half(small):
    """Dense and svd are under the new protocol, wanda is not."""
    return redone(small, "dense", "svd")


@pytest.fixture
def store(tmp_path, half):
    put(tmp_path / "results", "demo", half)
    return str(tmp_path / "results")


def test_a_half_redone_task_is_refused_with_both_ids_their_cells_and_the_remedy(store, capsys):
    for main in (tables.main, pareto.main, kick.main):
        assert command.run(main, ["demo", "--store", store]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "task 'nano_ppl'" in said
        assert "'nano_ppl-v2' (3 cells, with dense) and 'nano_ppl-v1' (2 cells)" in said
        assert "run the sweep's command again" in said
        assert "--mixed drop" in said


def test_items_are_not_planned_from_two_protocols(store, capsys):
    assert command.run(plan.main, ["demo", "--store", store]) == 2
    assert "rows mix protocols 'nano_ppl-v2'" in capsys.readouterr().err


def test_tasks_of_one_protocol_are_shown_beside_a_mixed_one(store):
    assert command.run(tables.main, ["demo", "--store", store, "--task", "factoid"]) == 0


def test_the_cells_can_be_left_out_and_it_is_said(store, tmp_path, capsys):
    out = ["demo", "--store", store, "--out", str(tmp_path), "--format", "md", "--mixed", "drop"]
    assert command.run(tables.main, out) == 0
    line = "protocols 'nano_ppl-v2' (3 cells, with dense) and 'nano_ppl-v1' (2 cells); left out are those"
    page = (tmp_path / "quality.md").read_text()
    assert line in page
    assert line in capsys.readouterr().err
    wanda = [text for text in page.splitlines() if "| wanda" in text]
    assert [text.count("±") for text in wanda] == [2, 0]  # factoid at both budgets; ppl at none


def test_a_wrong_choice_is_one_line(store, capsys):
    assert command.run(tables.main, ["demo", "--store", store, "--mixed", "keep"]) == 2
    assert capsys.readouterr().err == "error: --mixed='keep': valid: refuse, drop\n"


def test_what_was_asked_again_is_old_where_it_was(small):
    """Another cell of the same setting (a method that was edited), or another draw of dense."""
    old = [{**r, "cell": f"9{r['cell']}", "written": 100.0} for r in small]
    old = [{**r, "calib_seed": 7} if r["method"] == "dense" else r for r in old]
    new = [{**r, "written": 200.0} for r in redone(small, "dense", "svd", "wanda")]
    data = collect.frame([*new, *old])
    collect.check_protocols(data)
    assert set(data[data["task"] == "nano_ppl"]["protocol"]) == {NEW}
    assert len(data) == len(collect.frame(new)) + 1  # and dense's other draw of the other task


def test_a_draw_that_was_not_asked_again_mixes(small):
    ids = {0: NEW, 1: "nano_ppl-v1", 2: "nano_ppl-v1"}
    draws = [
        {**r, "cell": f"{r['cell']}{seed}", "calib_seed": seed, "protocol": name}
        for r in small
        if r["method"] == "svd" and r["task"] == "nano_ppl"
        for seed, name in ids.items()
    ]
    others = [r for r in redone(small, "dense", "wanda") if r["method"] != "svd"]
    with pytest.raises(collect.AnalysisError, match=r"\(5 cells, with dense\) and 'nano_ppl-v1' \(4 cells\)"):
        collect.check_protocols(collect.frame([*others, *draws]))


def test_models_under_two_protocols_are_no_one_column(small):
    other = synthetic_study.rows(**SMALL, model="small")
    rows = [{**r, "written": 1.0} for r in small] + [
        {**r, "written": 2.0} for r in redone(other, "dense", "svd", "wanda")
    ]
    with pytest.raises(collect.AnalysisError, match=rf"'{NEW}' .* and 'nano_ppl-v1' \(5 cells, with dense\)"):
        collect.check_protocols(collect.frame(rows))
    left = protocols.drop(collect.frame(rows)).query("task == 'nano_ppl'")
    assert set(left["model"]) == {"small"}


def test_without_a_dense_row_the_last_one_counts(small):
    rows = [
        {**r, "written": float(i)} for i, r in enumerate(redone(small, "wanda")) if r["method"] != "dense"
    ]
    with pytest.raises(collect.AnalysisError, match=rf"'{NEW}' \(2 cells\) and 'nano_ppl-v1' \(2 cells\)"):
        collect.check_protocols(collect.frame(rows))


def test_several_mixed_tasks_are_one_line(small):
    rows = redone(redone(small, "dense"), "dense", task="nano_factoid")
    with pytest.raises(collect.AnalysisError, match=r"\(and of 1 more tasks\)") as caught:
        collect.check_protocols(collect.frame(rows))
    assert "\n" not in str(caught.value)


def shown(store, width=200):
    console = Console(width=width, record=True, force_terminal=False, highlight=False)
    finish.show("demo", store, console)
    return " ".join(console.export_text().split())


def test_the_end_of_a_sweep_leaves_the_cells_out_and_says_so(store):
    text = shown(store)
    assert "'nano_ppl-v2' (3 cells, with dense) and 'nano_ppl-v1' (2 cells); left out are those" in text
    assert "not written" not in text
    assert "quality.md" in text


def test_a_large_study_says_so_too(tmp_path):
    many = synthetic_study.rows(
        budgets=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7), tasks=("nano_factoid", "nano_ppl")
    )
    put(tmp_path, "demo", redone(many, "dense", "svd"))
    text = shown(str(tmp_path))
    assert "the largest budget (%) that matches" in text
    assert "'nano_ppl-v2' (8 cells, with dense)" in text


def test_asking_the_rest_again_mends_it(store, small):
    for row in small:
        if row["method"] == "wanda" and row["task"] == "nano_ppl":
            task = {"rows": [{**row, "protocol": NEW}], "seconds": 1.5}
            Store(store).put_task("demo", row["cell"], "nano_ppl", task)
    data = collect.load("demo", store)
    collect.check_protocols(data)
    assert len(data[data["protocol"] == NEW]) == 5
