"""Variants of methods: which cell is compared with which, what gains say, and what is written."""

import pytest
import synthetic_study

from analysis import collect, command, panels, pareto, sheet, variants

GREEDY = {"_target_": "methods.allocate.greedy.Greedy", "relative": True}
EORA = {"_target_": "methods.compensate.eora.EoRA", "share": 0.1, "rank": None}
VARIANTS = {
    "allocate=greedy": {"allocate": GREEDY},
    "allocate=greedy compensate=eora": {"allocate": GREEDY, "compensate": EORA},
}
STEPS = dict(zip(VARIANTS, (0.04, 0.01), strict=True))


@pytest.fixture(scope="module")
def rows():
    """Two methods at their defaults and in two more ways that are better by known steps."""
    tasks = ("nano_factoid", "nano_ppl")
    plain = synthetic_study.rows(methods=("svd", "gptq"), budgets=(0.3, 0.5), tasks=tasks)
    made = [{**row, "config": {"method": {"align": 1}}} for row in plain]
    for name, stages in VARIANTS.items():
        for row in (r for r in plain if r["method"] != "dense"):
            worse = row["method"] == "gptq" and row["budget"] == 0.5
            step = -STEPS[name] if worse else STEPS[name]
            ppl = row["metric"] == "perplexity"
            value = row["value"] * (1 - step) if ppl else row["value"] + step
            config = {"method": {"align": 1}} | stages
            made.append({**row, "cell": f"{row['cell']}-{name}", "value": value, "config": config})
    return made


def test_gains_are_against_the_same_method_and_budget(rows):
    points = variants.split(collect.frame(rows))
    assert set(points["variant"]) == {"defaults", *VARIANTS}
    found = variants.gains(points)
    assert len(found) == 2 * 2 * 2  # tasks, variants, budgets
    for line in found.itertuples():
        step = 100 * STEPS[line.variant]
        assert line.methods == 2
        assert line.better == (2 if line.budget == 0.3 else 1)
        assert line.gain == pytest.approx(step if line.budget == 0.3 else 0, abs=1e-9)


def test_a_study_of_defaults_is_one_line():
    points = variants.split(collect.frame(synthetic_study.rows(methods=("svd",))))
    with pytest.raises(collect.AnalysisError, match="no method both at its defaults and in another way"):
        variants.gains(points)


@pytest.mark.slow
def test_files_and_tables(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "read", lambda _: collect.frame(rows))
    paths = variants.main(["any", "--out", str(tmp_path), "--format", "png"])
    assert {p.name for p in paths} == {
        *("variants.csv", "variants.md", "variants_factoid.png", "variants_ppl.png"),
    }
    text = (tmp_path / "variants.md").read_text()
    assert "| allocate=greedy | +4.0 (2 of 2) | +0.0 (1 of 2) |" in text
    lines = [line for line in text.splitlines() if line.startswith("| svd | allocate=greedy |")]
    assert len(lines) == 2
    assert all(line.count("**") == 4 for line in lines)  # the best of both budgets


def test_lines_of_a_figure_are_the_cells(rows):
    points = variants.split(collect.frame(rows), tasks=["nano_factoid"])
    (figure,) = variants.draw(points)
    titles = [axis.get_title() for axis in figure.axes if axis.has_data()]
    assert titles == ["gptq", "svd"]
    drawn = {line.get_label(): line for line in figure.axes[1].get_lines()}
    own = points[(points["method"] == "svd") & (points["variant"] == "allocate=greedy")].sort_values("x")
    assert list(drawn["allocate=greedy"].get_ydata()) == list(own["value"])
    assert drawn["defaults"].get_linestyle() == "-"
    assert drawn["allocate=greedy compensate=eora"].get_linestyle() == "--"
    assert drawn["allocate=greedy compensate=eora"].get_color() == drawn["allocate=greedy"].get_color()


@pytest.mark.parametrize("letters", [0, 20, 60, 400])
def test_no_line_of_a_legend_is_wider_than_the_figure(letters):
    made = panels.panels(4, entries=30, letters=letters)
    assert 1 <= made.per_line <= 6
    wide = made.figures[0].get_figwidth()
    assert made.per_line == 1 or made.per_line * (0.75 + sheet.LETTER * letters) <= wide


def test_the_frontier_is_that_of_pareto(rows):
    points = variants.split(collect.frame(rows), tasks=["nano_factoid"])
    small = points[points["state"] != "dense"]
    (figure,) = variants.draw(points)
    steps = next(line for line in figure.axes[0].get_lines() if line.get_label() == "frontier of all")
    assert list(steps.get_xdata()) == list(pareto.frontier(small, True)["x"])
