"""Kinds on one axis: every method has one, and the figure tells them apart."""

import pandas as pd
import pytest
import synthetic_study
from test_cards import ROOT

from analysis import collect, command, kinds

METHODS = ("wanda", "sparsegpt", "gptq", "svd", "slicegpt")


@pytest.fixture(scope="module")
def points():
    return kinds.sorted_out(collect.frame(synthetic_study.rows(methods=METHODS)))


def test_every_method_has_a_kind():
    named = [name for names in kinds.KINDS.values() for name in names.split()]
    shipped = {path.stem for path in (ROOT / "conf/method").glob("*.yaml")} - {"dense"}
    assert len(named) == len(shipped) == 30
    assert set(named) == shipped


@pytest.mark.parametrize(
    ("method", "label", "kind"),
    [
        ("wanda", "wanda", "single weights"),
        ("sparsegpt", "sparsegpt", "single weights"),
        ("sparsegpt", "sparsegpt bits=4", "bits and weights"),
        ("gptq", "gptq bits=4", "bits"),
        ("mine", "mine", "other"),
    ],
)
def test_a_pruner_that_rounds_is_of_both(method, label, kind):
    assert kinds.kind_of(method, label) == kind


def test_a_panel_per_task_and_a_column_per_kind(points):
    (figure,) = kinds.draw(points)
    tasks = points["task"].nunique()
    assert [bool(axis.get_title()) for axis in figure.axes].count(True) == tasks
    titles = [legend.get_title().get_text() for legend in figure.legends]
    assert titles == ["single weights", "bits", "rank", "heads and blocks", "reference"]
    names = [[text.get_text() for text in legend.get_texts()] for legend in figure.legends]
    assert names[:-1] == [["sparsegpt", "wanda"], ["gptq"], ["svd"], ["slicegpt"]]
    assert names[-1] == ["dense", "within 5 % of dense", "chance"]


def test_lines_are_the_points(points):
    axis = kinds.draw(points)[0].axes[0]
    task = points["task"].iloc[0]
    for method in METHODS:
        own = points[(points["task"] == task) & (points["label"] == method)].sort_values("x")
        drawn = [list(line.get_xdata()) for line in axis.lines]
        assert list(own["x"]) in drawn


def test_the_command_writes_the_figure_and_its_numbers(root, tmp_path, capsys):
    assert command.run(kinds.main, ["demo", "--store", str(root), "--out", str(tmp_path)]) == 0
    assert [path.rsplit("/", 1)[1] for path in capsys.readouterr().out.split()] == ["kinds.csv", "kinds.png"]
    assert (tmp_path / "kinds.png").read_bytes().startswith(b"\x89PNG")
    data = pd.read_csv(tmp_path / "kinds.csv")
    assert set(data["kind"]) <= {"dense", *kinds.KINDS, kinds.OTHER}


def test_a_study_without_small_models_is_one_line(tmp_path):
    rows = [row for row in synthetic_study.rows(methods=("svd",)) if row["method"] == "dense"]
    with pytest.raises(collect.AnalysisError, match="study: no compressed model to draw"):
        kinds.sorted_out(collect.frame(rows))
