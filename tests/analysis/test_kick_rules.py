"""Claims need what they say: most pairs, not one; all methods, not every single cell."""

import pytest
from kick_study import Maker, items

from analysis import kick_card, kick_data, verdicts

pytestmark = pytest.mark.slow  # ten seconds together
SHOTS = ("nano_mcr", "nano_mcr_k2", "nano_mcr_k4")


def verdict(root, name, model="nano"):
    claim = next(claim for claim in verdicts.claims() if claim.id == name)
    return verdicts.decide(claim, kick_data.study("demo", root), model)


@pytest.mark.parametrize(
    ("pruned", "outcome"),
    [
        ((0.6, 1.0, 1.0), "undecided"),  # one pair of three is better
        ((0.6, 0.7, 1.0), "supported"),
        ((0.6, 0.7, 0.98), "supported"),
        ((0.6, 1.0), "undecided"),  # a half is not most
    ],
)
def test_quantisation_beats_pruning_where_most_pairs_say_so(tmp_path, pruned, outcome):
    make = Maker(tmp_path)
    make.parent({"nano_factoid": 1.0})
    make.curve("magnitude", {"nano_factoid": pruned}, budgets=(0.2, 0.3, 0.4)[: len(pruned)])
    cell = make.cell("rtn", 0.5, setting="8 bit, groups of 64", accounting="nominal")
    make.task(cell, "nano_factoid", items("nano_factoid", 1.0))
    found = verdict(tmp_path, "H3c")
    assert found.verdict == outcome
    assert "more than half" in found.rule


def test_pruning_that_is_better_once_refutes_it(tmp_path):
    make = Maker(tmp_path)
    make.parent({"nano_factoid": 1.0})
    make.curve("magnitude", {"nano_factoid": (1.0, 0.5, 0.5)}, budgets=(0.2, 0.3, 0.4))
    cell = make.cell("rtn", 0.5, setting="8 bit, groups of 64", accounting="nominal")
    make.task(cell, "nano_factoid", items("nano_factoid", 0.8))
    assert verdict(tmp_path, "H3c").verdict == "refuted"


def shots(root, none, two, four, budgets=(0.5, 0.6, 0.7)):
    """One pruned model under no, two and four examples."""
    make = Maker(root)
    make.parent(dict.fromkeys(SHOTS, 1.0))
    make.curve("magnitude", dict(zip(SHOTS, (none, two, four), strict=True)), budgets=budgets)
    return make


def part(found, name):
    return next(part for part in found.parts if part.name.endswith(name))


def test_examples_help_on_average_not_in_one_cell(tmp_path):
    """Three more of 300 at one budget is no help at high sparsity, and no sure absence of it there."""
    shots(tmp_path, (0.4, 0.4, 0.4), (0.42, 0.4, 0.3), (0.43, 0.4, 0.3))
    found = part(verdict(tmp_path, "H12"), "examples help")
    assert found.outcome == "undecided"
    assert "mean of 3 cells -0.02" in found.statistic


def test_one_noisy_cell_does_not_leave_it_open(tmp_path):
    """More than two gain 4 points at one of three budgets, with an interval beyond 5 % there."""
    shots(tmp_path, (0.4, 0.4, 0.4), (0.7, 0.7, 0.7), (0.7, 0.7, 0.74))
    found = verdict(tmp_path, "H12")
    assert part(found, "few suffice").outcome == "supported"
    assert found.verdict == "supported"


def test_one_cell_that_turns_over_does_not_hide_that_nothing_is_gained(tmp_path):
    """Four examples lose 30 and gain 35 of 300 at one of three budgets: its own interval reaches +7 %."""
    make = shots(tmp_path, (0.4, 0.4), (0.4, 0.4), (0.4, 0.4), budgets=(0.6, 0.7))
    cell = make.cell("magnitude", 0.5)
    turned = items("nano_mcr_k4", 0.4)
    for i, item in enumerate(turned):
        item[2] = float(30 <= i < 155)
    for task, found in zip(SHOTS, (items(SHOTS[0], 0.4), turned, turned), strict=True):
        make.task(cell, task, [[f"{task}/{i}", *item[1:]] for i, item in enumerate(found)])
    assert part(verdict(tmp_path, "H12"), "examples help").outcome == "refuted"


def test_a_cell_that_was_not_asked_with_all_is_left_out(tmp_path):
    make = shots(tmp_path, (0.4, 0.4, 0.4), (0.7, 0.7, 0.7), (0.7, 0.7, 0.7))
    cell = make.cell("magnitude", 0.55)
    make.task(cell, "nano_mcr", items("nano_mcr", 0.4))
    found = verdict(tmp_path, "H12")
    assert found.verdict == "supported"
    assert "mean of 3 cells" in part(found, "examples help").statistic


def test_a_model_that_was_not_asked_what_another_was_is_told(tmp_path):
    shots(tmp_path, (0.4, 0.4), (0.4, 0.4), (0.4, 0.4), budgets=(0.5, 0.6))
    other = Maker(tmp_path, model="other")
    other.parent({"nano_factoid": 1.0})
    other.curve("magnitude", {"nano_factoid": (0.5,)}, budgets=(0.5,))
    for name in ("H6", "H7b", "H9", "H12"):
        assert verdict(tmp_path, name, "other").verdict == "not testable here"
    assert "model 'other' has no dense cell that was asked this" in verdict(tmp_path, "H12", "other").reason
    card = kick_card.fig1_card(kick_data.study("demo", tmp_path))
    assert set(card.data["model"]) == {"other"}  # of the roles on it only this one was asked one
