import csv
import io
import math

import pytest
import synthetic_study

from analysis import collect, command, outfile, render, tables

pytestmark = pytest.mark.slow


def body(text):
    return [
        [c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]


@pytest.fixture
def page(rows):
    (grid,) = tables.quality(collect.frame(rows))
    return render.markdown(grid)


def test_rows_are_task_by_method_and_columns_are_budgets(page):
    head, _, *lines = body(page)
    assert head == ["task", "method", "dense", "0.1", "0.3", "0.7"]
    assert [line[1] for line in lines] == ["gptq", "slicegpt", "svd"] * 3
    assert [line[0].split(" ")[0] for line in lines if line[0]] == [
        "nano_factoid",
        "nano_icra_open",
        "nano_ppl",
    ]
    assert lines[0][2] == "0.970 ± 0.008"
    assert [line[2] for line in lines[1:3]] == ["", ""]


def test_cells_carry_the_mark_of_their_state(rows, page):
    lines = {(i // 3, line[1]): line for i, line in enumerate(body(page)[2:])}
    checked = 0
    for row in rows:
        if row.get("task") != "nano_factoid" or row["state"] == "dense":
            continue
        text = lines[0, row["method"]][3 + (0.1, 0.3, 0.7).index(row["budget"])]
        plain = f"{row['value']:.3f} ± {row['stderr']:.3f}"
        assert text == {"match": f"**{plain} ✓**", "undecided": f"{plain} ?", "fail": plain}[row["state"]]
        checked += 1
    assert checked == 7


def test_gaps_have_footnotes(page):
    assert "— <sup>1</sup>" in page
    assert "1. gptq at 0.1 unreachable: nearest reachable budget 0.0625" in page
    assert "2. slicegpt at 0.7 skipped: slicegpt covers compensate" in page
    assert page.count("slicegpt covers compensate") == 1


def test_seeds_are_counted():
    rows = synthetic_study.rows(methods=("svd",), budgets=(0.3,), tasks=("nano_factoid",), seeds=(0, 1, 2))
    (grid,) = tables.quality(collect.frame(rows))
    assert "(3 seeds)" in render.markdown(grid)


def test_the_csv_has_the_state_and_full_precision(rows):
    lines = list(csv.DictReader(io.StringIO(tables.quality_csv(collect.frame(rows)))))
    assert {line["state"] for line in lines} >= {"dense", "match", "fail", "unreachable", "skipped"}
    first = next(r for r in rows if r["method"] == "svd" and r["task"] == "nano_factoid")
    line = next(
        x for x in lines if x["label"] == "svd" and x["task"] == "nano_factoid" and x["budget"] == "0.1"
    )
    assert float(line["value"]) == first["value"]


def test_latex_escapes_what_it_would_read():
    assert render.tex_text("a_b 5% {x} \\ ~^&#$") == (
        r"a\_b 5\% \{x\} \textbackslash{} \textasciitilde{}\textasciicircum{}\&\#\$"
    )


def test_a_pipe_does_not_break_markdown():
    grid = render.Grid("t", ["a"], [[[render.Cell("x|y", match=True)]]])
    assert r"**x\|y**" in render.markdown(grid)


def test_the_size_table_shows_asked_and_achieved(rows):
    (grid,) = tables.sizes(collect.frame(rows))
    lines = body(render.markdown(grid))
    assert lines[0] == list(tables.SIZE_HEAD)
    found = {(line[0], line[1]): line for line in lines[2:]}
    assert found["svd", "0.3"][2:6] == ["29.6 %", "32.6 %", "3.26 MB", "75.9 %"]
    assert found["svd", "0.3"][9:11] == ["3.2 s", "4.5 s"]
    assert found["gptq", "0.1"][2].startswith("—")
    assert len(found) == 10


def test_a_failed_cell_keeps_the_tasks_it_finished(rows):
    failed = next(r for r in rows if r["method"] == "svd")
    gone = {**{k: v for k, v in failed.items() if k not in ("task", "metric", "value")}, "state": "failed"}
    gone["reason"] = "OutOfMemory: 3 GB"
    rest = [r for r in rows if r["cell"] != failed["cell"] or r["task"] == "nano_factoid"]
    (grid,) = tables.quality(collect.frame([*rest, gone]))
    lines = body(render.markdown(grid))[2:]
    assert lines[2][3].startswith(f"{failed['value']:.3f}")
    assert lines[5][3].startswith("—")
    assert "svd at 0.1 failed: OutOfMemory: 3 GB" in render.markdown(grid)


def test_models_have_tables_of_their_own(rows):
    other = synthetic_study.rows(methods=("svd",), budgets=(0.5,), tasks=("nano_mcr",), model="opt_125m")
    grids = tables.quality(collect.frame(rows + other))
    assert [grid.title for grid in grids] == ["nano", "opt_125m"]
    assert len(grids[1].blocks) == 1


def test_exploded_and_missing_numbers_are_printed(rows):
    for row in rows:
        if row["method"] == "svd" and row.get("task") == "nano_ppl":
            row["value"] = math.inf if row["budget"] == 0.7 else 123456.0
            row["stderr"], row["state"] = None, "fail"
    (grid,) = tables.quality(collect.frame(rows))
    assert [cell.text for cell in grid.blocks[2][2]][-3:] == ["1.2e+05", "1.2e+05", "∞"]


def test_the_command_writes_and_names_every_file(root, capsys):
    assert command.run(tables.main, ["demo", "--store", str(root)]) == 0
    paths = [line for line in capsys.readouterr().out.splitlines() if line]
    assert len(paths) == 6
    for name in ("quality", "size"):
        for form in tables.FORMATS:
            assert (root / "demo" / "tables" / f"{name}.{form}").stat().st_size > 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nope"], "study='nope'"),
        (["demo", "--format", "md,html"], "--format='html': valid: md, tex, csv"),
        (["demo", "--metric", "f1"], "--metric='f1': not in this study; valid: all, exact_match, perplexity"),
        (["demo", "--task", "arc"], "--task='arc'"),
        (["demo", "--from", "hub:x"], "--from='hub:x'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(root, capsys, options, message):
    assert command.run(tables.main, [*options, "--store", str(root)]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said
    assert not (root / "demo" / "tables").exists()


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "quality.md"
    path.write_text("old")

    def write():
        with outfile.whole(path) as temp:
            temp.write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write()
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_what_is_told_and_not_judged_is_marked_so_and_never_at_chance(rows):
    told = [
        row | {"state": "measured", "higher_is_better": True, "dense": 0.0, "chance": None}
        if row["method"] == "svd" and row.get("task") == "nano_factoid"
        else row
        for row in rows
    ]
    data = collect.frame(told)
    mine = data[(data["method"] == "svd") & (data["task"] == "nano_factoid")]
    assert set(mine["state"]) == {"measured"}
    (grid,) = tables.quality(data)
    text = render.markdown(grid)
    (line,) = [x for x in text.splitlines() if x.startswith("|") and "svd" in x and x.count("·")]
    assert line.count("·") == len(mine) == 3
    assert r"$\cdot$" in render.latex(grid)


def test_a_task_that_failed_everywhere_has_its_line_and_its_reason(rows):
    lost = [
        {k: v for k, v in r.items() if k not in ("task", "metric", "value")}
        | {"state": "failed", "reason": "kick_mcr: offline", "reasons": {"kick_mcr": "kick_mcr: offline"}}
        for r in rows
        if r["method"] in ("dense", "svd") and r["task"] == "nano_ppl"
    ]
    text = render.markdown(tables.quality(collect.frame([*rows, *lost]))[0])
    head, _, *lines = body(text)
    assert head[:4] == ["task", "method", "dense", "0.1"]  # dense failed too, which is no budget 0
    start = next(i for i, line in enumerate(lines) if line[0] == "kick_mcr")
    block = {line[1]: line[3] for line in lines[start:]}
    assert block["svd"].startswith("— <sup>")
    assert "" in block.values()  # a cell that was not asked the task is blank
    assert "failed: kick_mcr: offline" in text


def test_flags_and_coverage_are_in_the_table_and_the_csv(rows):
    row = next(r for r in rows if r["method"] == "svd" and r["task"] == "nano_factoid")
    row |= {"flags": {"too_long": 4}, "coverage": 0.8}
    data = collect.frame(rows)
    assert (
        "Most that any cell has: nano_factoid: too_long 4, scores for 80%" in tables.quality(data)[0].legend
    )
    lines = list(csv.DictReader(io.StringIO(tables.quality_csv(data))))
    (told,) = (line for line in lines if line["flags"])
    assert (told["flags"], told["coverage"], told["label"]) == ("too_long=4", "0.8", "svd")


def test_sizes_say_what_runs_the_packed_form():
    """A star where nothing does; rows from before the column say only that."""
    rows = synthetic_study.rows(methods=("magnitude", "svd", "gptq"), budgets=(0.3,), tasks=("nano_mcr",))
    said = {"dense": "dense", "svd": "factors", "gptq": "int4 kernel: 12; unpacked per call: 2"}
    for row in rows:
        if row["method"] in said:
            row |= {"executed_by": said[row["method"]], "simulated": row["method"] == "gptq"}
    (grid,) = tables.sizes(collect.frame(rows))
    head, _, *lines = body(render.markdown(grid))
    at = head.index("executed by")
    want = said | {"gptq": said["gptq"] + "*", "magnitude": "simulated"}
    assert {line[0]: line[at] for line in lines} == want
    (line, *_) = csv.DictReader(io.StringIO(tables.sizes_csv(collect.frame(rows))))
    assert line["executed_by"] == "dense"
