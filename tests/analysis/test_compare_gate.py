"""What a gate must not let pass, and what it must not stop at."""

import pytest
from scored_study import DENSE, GOOD, cell, compared, right

from analysis.collect import AnalysisError


def verdict(found, title, task):
    lines = {(line.title, line.task): line.verdict for line in found.lines.itertuples()}
    return lines[title, task]


def test_dense_at_chance_in_b_excuses_no_loss(tmp_path):
    for study, wrong in (("good", 10), ("broken", 396)):
        parent = {"mcr": right(wrong)}
        cell(tmp_path, study, "dense", 0.0, parent)
        cell(tmp_path, study, "wanda", 0.2, {"mcr": right(wrong + 1)}, parent)
    found = compared(tmp_path, "good", "broken")
    assert [verdict(found, name, "mcr") for name in ("dense", "wanda 0.2")] == ["regression"] * 2
    back = compared(tmp_path, "broken", "good")
    assert [verdict(back, name, "mcr") for name in ("dense", "wanda 0.2")] == ["at chance"] * 2
    assert (found.faults, back.faults) == (2, 0)


def test_a_task_that_b_was_not_asked_is_not_lost_because_another_one_failed(tmp_path):
    for study, scores, ended in (
        ("a", GOOD, {}),
        ("b", {"ppl": GOOD["ppl"]}, {"state": "failed", "reason": "boom", "reasons": {"x": "boom"}}),
    ):
        cell(tmp_path, study, "dense", 0.0, DENSE)
        cell(tmp_path, study, "wanda", 0.2, scores, DENSE, **ended)
    found = compared(tmp_path, "a", "b")
    assert verdict(found, "wanda 0.2", "mcr") == "only in A"
    assert found.faults == 0
    failed = {"state": "failed", "reason": "boom", "reasons": {"mcr": "no memory"}}
    cell(tmp_path, "b", "wanda", 0.2, {"ppl": GOOD["ppl"]}, DENSE, **failed)
    (line,) = [line for line in compared(tmp_path, "a", "b").lines.itertuples() if line.verdict == "lost"]
    assert line.note == "failed: mcr: no memory"


def test_no_gate_passes_on_the_parent_alone(tmp_path):
    """A sweep that died behind dense."""
    for study in ("a", "b"):
        cell(tmp_path, study, "dense", 0.0, DENSE)
    cell(tmp_path, "a", "wanda", 0.2, GOOD, DENSE)
    with pytest.raises(AnalysisError, match="of the compressed cells of A none is in B"):
        compared(tmp_path, "a", "b")
    assert compared(tmp_path, "b", "a").faults == 0  # there is nothing to lose


def test_the_parent_of_two_studies_is_told_as_one(tmp_path):
    """What its record says of calibration is what the other cells of its study asked for."""
    for study, inputs in (("a", "dense"), ("b", "compressed")):
        cell(tmp_path, study, "dense", 0.0, DENSE, calib_inputs=inputs)
        cell(tmp_path, study, "wanda", 0.2, GOOD, DENSE, calib_inputs=inputs)
    (change,) = compared(tmp_path, "a", "b").changes
    assert (change.name, change.a, change.b, change.cells) == (
        "calib_inputs",
        "dense",
        "compressed",
        ("wanda 0.2",),
    )
