from pathlib import Path

import pandas as pd
import pytest
from kick_study import DENSE_BYTES, Maker, items

from analysis import collect, command, kick, kick_data, kick_ours, kick_tables, render

pytestmark = pytest.mark.slow

FALLING = (1.0, 0.97, 0.8)
AT = (0.1, 0.3, 0.5)
SPEC = {  # arXiv:2310.01382, Table 3, Vicuna-7B, budgets 0.1 to 0.5
    ("factoid", 65.44): {
        "magnitude": (61.74, 66.53, 60.84, 42.06, 13.99),
        "sparsegpt": (63.84, 62.44, 58.54, 55.54, 42.86),
        "wanda": (63.34, 65.23, 61.24, 58.24, 44.66),
    },
    ("mcr", 0.471): {
        "magnitude": (0.466, 0.455, 0.422, 0.339, 0.050),
        "sparsegpt": (0.470, 0.460, 0.437, 0.395, 0.308),
        "wanda": (0.469, 0.460, 0.455, 0.425, 0.386),
    },
    ("coherence", 5.883): {
        "magnitude": (6.112, 5.855, 5.567, 4.329, 1.233),
        "sparsegpt": (6.033, 5.533, 6.067, 5.567, 5.067),
        "wanda": (6.0, 5.783, 5.933, 5.267, 5.033),
    },
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A study with every ingredient, small."""
    where = tmp_path_factory.mktemp("whole")
    make = Maker(where)
    plain = {"nano_factoid": 1.0, "nano_icra_open": 1.0, "ppl_nano": 3.0, "nano_mcr": 1.0, "nano_mcr_k2": 1.0}
    lengths = {"nano_summ_s": 1.0, "nano_summ_m": 1.0, "nano_summ_l": 1.0}
    dense = make.parent({**plain, **lengths})
    make.task(dense, "nano_instruct", instruct(1.0, 30), parent=True)

    def fill(cell, value):
        for task in (*plain, *lengths):
            make.task(cell, task, items(task, 3 / value if task == "ppl_nano" else value))
        make.task(cell, "nano_instruct", instruct(value, 30 * value))

    for budget, value in zip(AT, FALLING, strict=True):
        fill(make.cell("magnitude", budget), value)
    fill(make.cell("magnitude", 0.5, setting="2:4", accounting="nominal"), 0.97)
    fill(make.cell("rtn", 0.5, setting="8 bit, groups of 64", accounting="nominal"), 1.0)
    for n in (16, 128):
        fill(make.cell("wanda", 0.5, calib=n), 0.7)
    return where


def instruct(score, tokens):
    return items("nano_instruct", score, 60) + items("nano_instruct", tokens, 60, metric="distinct")


def test_every_table_and_figure_is_written_with_its_numbers(root, tmp_path, capsys):
    paths = kick.main(["demo", "--store", str(root), "--format", "png", "--out", str(tmp_path)])
    names = {path.name for path in paths}
    for name in kick.FIGURES:
        assert {f"{name}.png", f"{name}.csv"} <= names, name
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / f"{name}.png").stat().st_size > 8000
        data = pd.read_csv(tmp_path / f"{name}.csv")
        assert len(data)
        assert {"n", "state"} <= set(data) or name == "match_matrix"
        assert {"value_low", "value_high"} <= set(data) or name == "match_matrix"
    for name in kick_tables.TABLES:
        assert {f"{name}.md", f"{name}.tex", f"{name}.csv"} <= names
    assert "left out: " not in capsys.readouterr().out.replace("that panel is left out", "")


def test_what_shows_no_more_than_another_figure_is_left_out(root, tmp_path):
    said = []
    study = kick_data.study("demo", root)
    paths = kick.figures(study, tmp_path, ("png",), said.append, besides=["pareto"])
    assert "bytes.csv" not in {path.name for path in paths}
    assert "bytes: left out: pareto shows the same points, and more" in said


def test_a_change_of_perplexity_beyond_the_axis_has_an_arrow(root):
    study = kick_data.study("demo", root)
    both = kick_ours.knowledge_perplexity(study).data
    far = both.assign(ppl_change=[*both["ppl_change"][1:], 1e9])
    for table, arrows in ((both, 0), (far, 1)):
        (figure,) = kick_ours.scatter(table, kick.looks_of(both))
        lines = [line for line in figure.axes[0].get_lines() if line.get_markersize() == 8]
        assert [list(line.get_xdata()) for line in lines if len(line.get_xdata())] == [[1.0]] * arrows
        assert figure.axes[0].get_xlim()[1] <= 1.3 * kick_ours.FARTHEST


def test_a_poor_study_says_what_it_lacks_and_does_not_fail(tmp_path, capsys):
    make = Maker(tmp_path)
    make.parent({"nano_mcr": 1.0})
    make.curve("magnitude", {"nano_mcr": FALLING}, budgets=AT)
    kick.main(["demo", "--store", str(tmp_path), "--format", "png", "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out.splitlines()
    assert "fig2_factoid: left out: no task factoid (kick_factoid or nano_factoid) in the study" in said
    assert "fig3_mcr: no N:M patterns in the study; that panel is left out" in said
    assert "table2: left out: no quantised cell at 8, 4, 3, 2 bits in the study" in said
    assert not (tmp_path / "out" / "fig2_factoid.png").exists()
    assert (tmp_path / "out" / "fig3_mcr.png").exists()


def test_axes_of_cells(root):
    points = kick_data.study("demo", root).of("nano_factoid")
    assert [tuple(p) for p in kick_data.by_budget(points)[["series", "x"]].to_numpy()][:3] == [
        ("magnitude", 0.1), ("magnitude", 0.3), ("magnitude", 0.5)]  # fmt: skip
    assert list(kick_data.by_pattern(points)["x"]) == ["2:4"]
    assert list(kick_data.by_bits(points)[["series", "x"]].iloc[0]) == ["rtn", 8.0]
    assert list(kick_data.by_size(points)["x"]) == [16, 128]
    assert list(kick_data.by_budget(points).query("series == 'wanda'")["calib_n"]) == [128]


def test_the_match_matrix_reads_the_papers_table_as_the_paper_does():
    lines = []
    for (task, dense), methods in SPEC.items():
        for method, values in methods.items():
            for budget, value in zip((0.1, 0.2, 0.3, 0.4, 0.5), values, strict=True):
                lines.append(
                    {"model": "vicuna", "series": method, "label": method, "budget": budget, "task": task,
                     "metric": "score", "value": value, "dense": dense, "headline": True, "pattern": "",
                     "state": "match" if value >= 0.95 * dense else "fail", "accounting": "bytes",
                     "bits": None,
                     "calib_n": 0, "chance": 0.0, "higher_is_better": True, "n": 1001, "seeds": 1}
                )  # fmt: skip
    points = pd.DataFrame(lines)
    study = kick_data.Study("paper", Path("nowhere"), points, points)
    found = kick_ours.limits(study).set_index(["task", "series"])
    both = {key: (row["contiguous"], row["largest"]) for key, row in found.iterrows()}
    assert both["factoid", "magnitude"] == (0.0, 0.2)
    assert both["factoid", "sparsegpt"] == (0.2, 0.2)
    assert both["factoid", "wanda"] == (0.2, 0.2)
    assert both["mcr", "magnitude"] == (0.2, 0.2)
    assert both["mcr", "sparsegpt"] == (0.2, 0.2)
    assert both["mcr", "wanda"] == (0.3, 0.3)
    assert both["coherence", "magnitude"] == (0.2, 0.2)
    assert both["coherence", "sparsegpt"] == (0.1, 0.3)
    assert both["coherence", "wanda"] == (0.3, 0.3)
    text = render.markdown(kick_tables.match_matrix(study)[0][0])
    assert "| factoid   | 0 (20)" in text
    assert "10 (30)" in text


def test_table_three_marks_what_matches_with_interval_and_items(root):
    grid = kick_tables.table3(kick_data.study("demo", root))[0][0]
    text = render.markdown(grid)
    assert "factoid (exact_match ↑, n=300, chance 0.00)" in text
    row = next(line for block in grid.blocks for line in block if line[1].text == "magnitude")
    assert row[3].match
    assert row[3].text.startswith("1.000 [")
    assert not row[5].match
    assert "✗" in row[5].text


def test_flips_count_lost_and_gained_items(root):
    points = kick_tables.flips(kick_data.study("demo", root))[1]
    lost = points[(points["task"] == "nano_factoid") & (points["series"] == "magnitude")].set_index("budget")[
        "lost"
    ]
    assert lost[0.5] == 60


def test_knowledge_and_perplexity_meet_cell_by_cell(root):
    data = kick_ours.knowledge_perplexity(kick_data.study("demo", root)).data
    cell = data[(data["series"] == "magnitude") & (data["budget"] == 0.5) & (data["pattern"] == "")].iloc[0]
    assert cell["kept"] == pytest.approx(0.8)
    assert cell["ppl_change"] == pytest.approx(25.0)


def test_mixed_protocols_are_refused_with_both_ids(tmp_path):
    make = Maker(tmp_path)
    make.parent({"nano_mcr": 1.0})
    cells = [make.cell("magnitude", b) for b in AT]
    make.task(cells[0], "nano_summ", items("nano_summ", 1.0), parent=True, protocol="one")
    make.task(cells[1], "nano_summ", items("nano_summ", 0.9), protocol="two")
    for cell in cells[:2]:
        path = tmp_path / "demo" / cell[:24] / "task-nano_summ.json"
        path.write_text(path.read_text().replace('"state": "dense"', '"state": "match"'))
    with pytest.raises(collect.AnalysisError, match=r"'two' \(1 cell\) and 'one' \(1 cell\)"):
        kick_data.study("demo", tmp_path)


def test_a_study_without_dense_is_one_line(tmp_path, capsys):
    make = Maker(tmp_path, size=DENSE_BYTES)
    make.dense["nano_mcr"] = items("nano_mcr", 1.0)
    make.curve("magnitude", {"nano_mcr": FALLING}, budgets=AT)
    assert command.run(kick.main, ["demo", "--store", str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert "model 'nano': study 'demo' has no dense cell" in said


def test_the_card_shows_answers_of_dense_and_compressed(root):
    card = kick.FIGURES["fig1_card"][0](kick_data.study("demo", root))
    assert set(card.data["series"]) >= {"dense", "magnitude", "wanda"}
    assert "| dense | 1.00 | yes |" in card.text


def test_answers_of_several_turns_are_text():
    from analysis import kick_card

    assert kick_card._text([" banjo", " carpenter"]) == "banjo / carpenter"
    assert kick_card._text(" 1973 ") == "1973"


def test_flips_are_counted_where_every_cell_is_right_or_wrong():
    lines = [("nano", "a", 1.0, 0.0), ("nano", "b", 0.0, 0.0), ("nano", "b", None, None)]
    found = kick_data.counted(pd.DataFrame(lines, columns=["model", "task", "lost", "gained"]))
    assert list(found["task"]) == ["a"]


def test_what_is_not_judged_is_not_drawn_as_a_match():
    from analysis import kick_draw

    assert kick_draw.face("measured", "red") != kick_draw.face("match", "red")
