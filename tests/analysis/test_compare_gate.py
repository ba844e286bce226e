"""What a gate must not let pass, and what it must not stop at."""

from scored_study import DENSE, GOOD, cell, compared, right


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
