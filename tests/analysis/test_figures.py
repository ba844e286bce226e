from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_study

from analysis import (
    beyond,
    collect,
    command,
    curves,
    kick_draw,
    kinds,
    panels,
    pareto,
    sheet,
    style,
    variants,
)

pytestmark = pytest.mark.slow

LOOKS = style.looks(["svd"])
MAGIC = {"csv": b"model,", "png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


def test_the_command_writes_every_format(root, capsys):
    assert command.run(pareto.main, ["demo", "--store", str(root)]) == 0
    paths = capsys.readouterr().out.split()
    assert len(paths) == 8
    for path in paths:
        content = Path(path).read_bytes()
        assert content.startswith(MAGIC[path[-3:]])
        assert len(content) > (1000 if path.endswith("csv") else 5000)


def test_the_same_rows_give_the_same_bytes(root, tmp_path):
    data = collect.load("demo", root)
    first, second = (pareto.write(data, tmp_path / name, ("svg", "pdf", "png")) for name in "ab")
    assert [a.read_bytes() for a in first] == [b.read_bytes() for b in second]


def test_nominal_shares_get_a_file_of_their_own(root, tmp_path):
    options = [
        "demo",
        "--store",
        str(root),
        "--x",
        "nominal",
        "--task",
        "factoid",
        "--format",
        "svg",
        "--out",
        str(tmp_path),
    ]
    assert [path.name for path in pareto.main(options)] == [
        "pareto-nominal.csv",
        "pareto-nominal.svg",
        "curves.csv",
        "curves.svg",
    ]
    text = (tmp_path / "pareto-nominal.svg").read_text()
    assert "weights kept (nominal, %)" in text
    assert "icra_open" not in text


def test_a_panel_per_task_with_all_that_is_promised(root, tmp_path):
    text = pareto.write(collect.load("demo", root), tmp_path, ("svg",))[1].read_text()
    for words in (
        "factoid",
        "icra_open",
        "perplexity (log, inverted)",
        "artifact on disk (MB)",
        "within 5 % of dense",
    ):
        assert words in text
    for words in ("frontier", "chance", "dense", "gptq 0.1, slicegpt 0.7"):
        assert words in text


def test_the_frontier_keeps_what_nothing_beats():
    points = pd.DataFrame({"x": [1, 2, 2, 3, 4], "value": [0.2, 0.5, 0.6, 0.4, 0.9]})
    assert list(pareto.frontier(points, higher=True)["value"]) == [0.2, 0.6, 0.9]
    assert list(pareto.frontier(points, higher=False)["value"]) == [0.2]


def exploded():
    """A perplexity that falls into the axis at the third size, and is infinite at a fourth."""
    x, values = (1.0, 2.0, 3.0, 0.5), (6000.0, 250.0, 10.0, float("inf"))
    points = pd.DataFrame({"x": x, "value": values, "value_low": values, "value_high": values})
    told = {"task": "ppl", "metric": "perplexity", "higher_is_better": False, "dense": 4.0, "chance": np.nan}
    return points.assign(label="svd", method="svd", kind="rank", unit="MB", state="fail", model="m", **told)


def test_what_is_beyond_the_axis_stays_on_the_frontier():
    points = exploded()
    (figure,) = pareto.pareto(points, points.head(0))
    drawn = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert list(drawn["frontier"].get_xdata()) == [1, 2, 3]
    assert list(drawn["frontier"].get_ydata()) == [120, 120, 10]
    assert beyond.NAME in [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    steps = beyond.stairs(pareto.frontier(points, higher=False), 120.0)
    assert list(steps["x"]) == [3, 3]
    assert list(steps["value"]) == [120 * beyond.ROOM, 10]


def test_a_value_that_is_not_known_is_not_beyond_the_axis():
    nan = [np.nan, np.nan]
    points = pd.DataFrame({"x": [1.0, 2.0], "value": [np.nan, 5.0], "value_low": nan, "value_high": nan})
    points = points.assign(higher_is_better=False, dense=4.0)
    assert not beyond.far(points, 120.0).any()
    assert not beyond.there(points)
    assert beyond.line(points, 120.0)["value"].isna().tolist() == [True, False]


def test_a_line_leaves_the_axis_where_it_does_and_points_beyond_are_alone():
    points = exploded().sort_values("x")
    line = beyond.line(points, 120.0)
    marked = line[line["mark"]]
    assert list(marked["x"]) == [0.5, 1, 2, 3]
    assert list(marked["value"]) == [120, 120, 120, 10]
    assert list(marked["inside"]) == [False, False, False, True]
    (end,) = line[~line["mark"]].dropna(subset=["x"]).itertuples()
    assert end.value == pytest.approx(120 * beyond.ROOM)
    assert end.x == pytest.approx(3 - np.log(end.value / 10) / np.log(250 / 10))
    gaps = line["value"].isna().to_numpy()
    assert gaps.sum() == 3  # none of the four points has a neighbour that it is joined to
    assert not beyond.line(points[points["x"] == 3], 120.0)["value"].isna().any()


@pytest.mark.parametrize("up", [True, False])
def test_only_what_is_better_when_lower_ends(up):
    points = exploded().assign(higher_is_better=up)
    assert beyond.there(points) is not up
    assert beyond.limit(points, 4.0) == (np.inf if up else 120)
    assert beyond.limit(points.assign(higher_is_better=False), np.nan) == 6000  # only infinite is beyond


def test_arrows_point_to_what_is_beyond():
    points = exploded()
    kind = kinds.draw(points)[0].axes[0]
    variant = variants.draw(points.assign(variant="defaults"))[0].axes[0]
    curve = kick_draw.grid("ppl", lambda _: 1)(points.assign(panel="p", axis="bits", series="svd"), LOOKS)
    for axis in (kind, variant, curve[0].axes[0]):
        arrows = [line for line in axis.get_lines() if line.get_markersize() == 8 and len(line.get_xdata())]
        assert [sorted(line.get_xdata()) for line in arrows] == [[0.5, 1, 2]]
        assert axis.get_ylim()[0] == pytest.approx(120 * beyond.ROOM)


def test_kept_shares_are_fractions_of_dense_and_turn_perplexity_over(rows):
    kept = curves.retained(pareto.chosen_points(collect.frame(rows)))
    line = kept[kept["task"] == "nano_ppl"].iloc[0]
    assert line["kept"] == pytest.approx(line["dense"] / line["value"])
    line = kept[kept["task"] == "nano_factoid"].iloc[0]
    assert line["kept"] == pytest.approx(line["value"] / line["dense"])


def test_intervals_are_those_of_the_rows_and_turn_with_perplexity():
    rows = synthetic_study.rows(methods=("svd",), budgets=(0.1,), tasks=("nano_factoid", "nano_ppl"))
    rows = [r | {"value_low": r["value"] * 0.8, "value_high": r["value"] * 1.1} for r in rows]
    points = pareto.chosen_points(collect.frame(rows))
    drawn = pareto.table(collect.frame(rows))
    assert np.allclose(panels.reach(drawn), [0.2 * drawn["value"], 0.1 * drawn["value"]])
    kept = curves.retained(points).set_index("task")
    assert np.allclose(kept["kept_low"] / kept["kept"], [0.8, 1 / 1.1])
    assert np.allclose(kept["kept_high"] / kept["kept"], [1.1, 1 / 0.8])


def test_two_axes_are_one_too_many(root, capsys):
    assert command.run(pareto.main, ["demo", "--store", str(root), "--x", "bytes,nominal"]) == 2
    assert capsys.readouterr().err == "error: --x='bytes,nominal': valid: one of bytes, nominal\n"


def test_names_alike_have_files_of_their_own():
    pairs = [("org/model", "nano_mcr"), ("org model", "nano_mcr"), ("org model", "kick_mcr"), ("b", "x")]
    table = pd.DataFrame(pairs, columns=["model", "task"]).assign(metric="acc")
    assert [stem for stem, _ in sheet.by_model("p", table)] == ["p-org_model", "p-org_model-2", "p-b"]
    stems = [stem for stem, _ in sheet.by_task("v", table)]
    assert stems == ["v_org_model_mcr", "v_org_model_mcr-2", "v_org_model_mcr-3", "v_b_x"]


def test_a_task_on_which_dense_guesses_has_no_curve():
    rows = synthetic_study.rows(methods=("svd",), budgets=(0.1,), tasks=("nano_icra_closed", "nano_mcr"))
    kept = curves.retained(pareto.chosen_points(collect.frame(rows)))
    assert set(kept["task"]) == {"nano_mcr"}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 13])
def test_no_text_leaves_the_figure(count):
    methods = tuple(list(synthetic_study.METHODS)[: min(count, 9)])
    tasks = tuple(list(synthetic_study.TASKS)[: min(count, 7)])
    data = collect.frame(synthetic_study.rows(methods=methods, budgets=(0.2, 0.4), tasks=tasks))
    kept = curves.retained(pareto.chosen_points(data))
    with sheet.on(sheet.PAGE):
        made = [*pareto.drawings(pareto.table(data)), *curves.drawings(kept)]
        for figure in (figure for _, make in made for figure in make()):
            figure.canvas.draw()
            box, frame = figure.get_tightbbox(), figure.get_size_inches()
            assert box.x0 > -0.05
            assert box.y0 > -0.05
            assert box.x1 < frame[0] + 0.05
            assert box.y1 < frame[1] + 0.05


def test_methods_are_told_apart_without_colour():
    looks = style.looks([f"m{i}" for i in range(30)])
    assert len({(look["marker"], str(look["linestyle"])) for look in looks.values()}) == 30


def test_without_a_dense_value_there_is_a_plain_answer(rows):
    for row in rows:
        row["dense"] = None
    with pytest.raises(collect.AnalysisError, match="dense: no row was compared"):
        curves.table(pareto.chosen_points(collect.frame(rows)))


def test_perplexities_that_explode_stay_inside(rows, tmp_path):
    for row in rows:
        if row["method"] == "svd" and row.get("task") == "nano_ppl" and row["budget"] == 0.7:
            row["value"], row["stderr"] = float("inf"), None
    paths = pareto.write(collect.frame(rows), tmp_path, ("png",))
    assert all(path.stat().st_size > 5000 for path in paths if path.suffix == ".png")


def test_models_have_figures_of_their_own(rows, tmp_path):
    other = synthetic_study.rows(methods=("svd",), budgets=(0.5,), tasks=("nano_mcr",), model="hub/opt 125m")
    names = [path.name for path in pareto.write(collect.frame(rows + other), tmp_path, ("svg",))]
    assert names == [
        *("pareto.csv", "pareto-hub_opt_125m.svg", "pareto-nano.svg"),
        *("curves.csv", "curves-hub_opt_125m.svg", "curves-nano.svg"),
    ]


def test_mixed_protocols_are_not_drawn(rows, tmp_path):
    rows = [r for r in rows if r["method"] != "dense"]
    rows[2]["protocol"] = "other"
    with pytest.raises(collect.AnalysisError, match="rows mix protocols"):
        pareto.write(collect.frame(rows), tmp_path / "figures")
    assert not (tmp_path / "figures").exists()
