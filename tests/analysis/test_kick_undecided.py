"""What leaves a claim of LLM-KICK undecided or not testable: too few cells, no common ones, chance."""

import pytest
from kick_study import CALIBRATED, DENSE, HIGH, Maker, items, plant, verdict

from analysis import kick_data, verdicts

pytestmark = pytest.mark.slow  # with the other verdicts half a minute together


def test_one_failed_cell_far_out_is_no_limit(tmp_path):
    """A limit is somewhere below 0.7, not at 0."""
    make = Maker(tmp_path)
    make.parent(DENSE)
    make.curve("magnitude", {"nano_factoid": (0.1,)}, budgets=(0.7,))
    assert verdict(tmp_path, "H2").verdict == "undecided"


def test_one_cell_at_twenty_percent_says_nothing_of_forty_five(tmp_path):
    make = Maker(tmp_path)
    make.parent(DENSE)
    make.curve("magnitude", {"nano_factoid": (1.0,), "ppl_nano": (3.0,)}, budgets=(0.2,))
    assert verdict(tmp_path, "H1").verdict == "undecided"


def test_a_ranking_leaves_out_a_task_that_some_were_not_asked(tmp_path):
    make = Maker(tmp_path)
    make.parent({"nano_mcr": 1.0, "nano_factoid": 1.0, "ppl_nano": 3.0})
    for i, method in enumerate(("magnitude", "rtn", "svd", "hqq", "nf4")):
        values = {"nano_mcr": [0.3 + 0.12 * i], "ppl_nano": [30 - 4 * i]}
        more = {"nano_factoid": [0.5]} if method != "svd" else {}
        make.curve(method, values | more, budgets=(0.3,))
    found = verdict(tmp_path, "H13")
    assert "correlation 1.00" in found.parts[0].statistic
    assert found.verdict != "supported"


def test_methods_all_alike_have_no_ranking(tmp_path):
    make = Maker(tmp_path)
    make.parent({"nano_mcr": 1.0, "ppl_nano": 3.0})
    for i, method in enumerate(("magnitude", "rtn", "svd", "hqq")):
        make.curve(method, {"nano_mcr": [0.5], "ppl_nano": [9.0 + i]}, budgets=(0.3,))
    assert verdict(tmp_path, "H13").verdict == "not testable here"


def test_shots_say_nothing_where_nothing_is_pruned_much(tmp_path):
    make = Maker(tmp_path)
    tasks = ("nano_mcr", "nano_mcr_k2", "nano_mcr_k4")
    make.parent(dict.fromkeys(tasks, 1.0))
    make.curve("magnitude", dict.fromkeys(tasks, (1.0,)), budgets=(0.1,))
    assert verdict(tmp_path, "H12").verdict == "undecided"


@pytest.mark.parametrize("name", ["H11", "H12", "H3a"])
def test_a_parent_at_chance_decides_nothing(tmp_path, name):
    make = Maker(tmp_path)
    tasks = ("nano_mcr", "nano_mcr_k2", "nano_mcr_k4")
    make.parent(dict.fromkeys(tasks, 0.26))
    for n in (16, 128):
        for method in ("sparsegpt", "wanda"):
            make.curve(method, dict.fromkeys(tasks, (0.26, 0.26)), range(3), n, budgets=(0.5, 0.7))
    gptq = make.cell("gptq", 0.5, setting="8 bit, groups of 64", accounting="nominal")
    make.task(gptq, "nano_mcr", items("nano_mcr", 0.26))
    found = verdict(tmp_path, name)
    assert (found.verdict, "at chance" in found.reason) == ("not testable here", True)


def test_texts_that_dense_can_not_summarise_decide_nothing(tmp_path):
    make = Maker(tmp_path)
    make.parent({"nano_summ_s": 0.0, "nano_summ_l": 0.0})
    make.curve("magnitude", {"nano_summ_s": (0.0,), "nano_summ_l": (0.0,)}, budgets=(0.2,))
    assert verdict(tmp_path, "H6").verdict == "not testable here"


def test_lengths_are_compared_at_the_same_budgets(tmp_path):
    make = Maker(tmp_path)
    make.parent({"nano_summ_s": 1.0, "nano_summ_l": 1.0})
    make.curve("magnitude", {"nano_summ_s": (1.0,), "nano_summ_l": (1.0,)}, budgets=(0.2,))
    make.curve("magnitude", {"nano_summ_l": (0.1,)}, budgets=(0.6,))
    assert verdict(tmp_path, "H6").verdict == "undecided"


def test_an_answer_that_was_cut_is_an_answer(tmp_path):
    """Dropping what a broken model rambled on about leaves the items it still gets right."""
    make = Maker(tmp_path)
    make.parent({"nano_summ_s": 1.0, "nano_summ_l": 1.0})
    cell = make.cell("magnitude", 0.4)
    make.task(cell, "nano_summ_s", items("nano_summ_s", 1.0))
    make.task(cell, "nano_summ_l", items("nano_summ_l", 0.5, extra=lambda i: {"flags": ["cut"] * (i >= 150)}))
    assert verdict(tmp_path, "H6").verdict == "supported"


def test_a_task_that_one_of_three_was_not_asked_is_left_out(tmp_path):
    make = Maker(tmp_path)
    make.parent({"nano_mcr": 1.0, "nano_summ": 1.0})
    for method, calib in CALIBRATED.items():
        values = {"nano_mcr": (1.0, 0.4)} | ({"nano_summ": (1.0, 0.4)} if calib else {})
        make.curve(method, values, range(3) if calib else (0,), calib, budgets=(0.2, 0.3))
    assert {part.name.split(":")[0] for part in verdict(tmp_path, "H8").parts} == {"mcr"}


def test_claims_without_a_common_cell_are_not_testable(tmp_path):
    make = Maker(tmp_path)
    make.parent(DENSE)
    make.curve("magnitude", {"nano_factoid": (1.0,)}, budgets=(0.2,))
    make.curve("wanda", {"nano_icra_open": (1.0,)}, budgets=(0.2,))
    assert verdict(tmp_path, "H5").verdict == "not testable here"
    assert verdict(tmp_path, "H1").verdict == "not testable here"


def test_what_is_missing_is_named(tmp_path):
    plant(tmp_path, HIGH, methods=("magnitude",))
    found = {v.id: v for v in verdicts.verdicts(kick_data.study("demo", tmp_path))}
    for name, words in {
        "H3a": "no cell of gptq at 8 bits", "H4": "pattern 1:2", "H6": "nano_summ_l", "H7": "nano_instruct",
        "H7c": "it takes a judge", "H9": "extra.group", "H10": "one model only", "H11": "calib.n",
        "H12": "several numbers of examples",
    }.items():  # fmt: skip
        assert found[name].verdict == "not testable here"
        assert words in found[name].reason
