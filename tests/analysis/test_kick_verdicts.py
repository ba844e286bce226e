import json

import numpy as np
import pytest
from kick_study import BUDGETS, Maker, items

from analysis import collect, evidence, kick, kick_data, verdicts

pytestmark = pytest.mark.slow  # half a minute together

HIGH = (1.0, 1.0, 1.0, 1.0, 1.0)
PPL = (3.0, 3.0, 3.0, 3.0, 3.0)
DENSE = {"nano_factoid": 1.0, "nano_mcr": 1.0, "nano_icra_open": 1.0, "ppl_nano": 3.0}
CALIBRATED = {"sparsegpt": 128, "wanda": 128, "magnitude": None}


def plant(root, factoid, ppl=None, mcr=None, opened=None, seeds=(0, 1, 2), methods=CALIBRATED):
    make = Maker(root)
    make.parent(DENSE)
    lines = {"nano_factoid": factoid, "nano_mcr": mcr, "nano_icra_open": opened, "ppl_nano": ppl}
    values = {task: line for task, line in lines.items() if line}
    for method in methods:
        calib = CALIBRATED[method]
        make.curve(method, values, seeds if calib else (0,), calib)
    return make


def verdict(root, name, model="nano"):
    claim = next(claim for claim in verdicts.claims() if claim.id == name)
    return verdicts.decide(claim, kick_data.study("demo", root), model)


def test_blind_perplexity_is_supported_where_facts_fail_under_a_flat_perplexity(tmp_path):
    plant(tmp_path, factoid=(1.0, 0.8, 0.6, 0.4, 0.2), ppl=PPL)
    found = verdict(tmp_path, "H1")
    assert found.verdict == "supported", found
    assert {part.outcome for part in found.parts} == {"supported"}
    assert found.cells > 15
    assert found.seeds == "1 to 3"


def test_blind_perplexity_is_refuted_where_facts_stay_or_perplexity_shouts(tmp_path):
    plant(tmp_path / "stay", factoid=HIGH, ppl=PPL, methods=("magnitude",))
    assert verdict(tmp_path / "stay", "H1").verdict == "refuted"
    plant(
        tmp_path / "shout",
        factoid=(1.0, 0.8, 0.6, 0.4, 0.2),
        ppl=(3.1, 4.0, 5.0, 6.0, 9.0),
        methods=("magnitude",),
    )
    assert verdict(tmp_path / "shout", "H1").verdict == "refuted"


def test_few_calibration_draws_leave_it_open_and_say_so(tmp_path):
    plant(tmp_path, factoid=(1.0, 0.8, 0.6, 0.4, 0.2), ppl=PPL, seeds=(0, 1))
    found = verdict(tmp_path, "H1")
    assert found.verdict == "undecided"
    assert "fewer than 3 seeds of sparsegpt, wanda" in found.reason
    assert "would be supported" in found.reason


def test_methods_without_calibration_need_no_draws(tmp_path):
    plant(tmp_path, factoid=(1.0, 0.8, 0.6, 0.4, 0.2), ppl=PPL, methods=("magnitude",))
    assert verdict(tmp_path, "H1").verdict == "supported"


@pytest.mark.parametrize(
    ("factoid", "outcome"),
    [
        ((1.0, 1.0, 1.0, 0.7, 0.2), "supported"),
        ((1.0, 1.0, 1.0, 1.0, 0.2), "refuted"),
        ((1.0, 1.0, 0.95, 0.95, 0.2), "undecided"),
    ],
)
def test_the_limit_of_knowledge(tmp_path, factoid, outcome):
    plant(tmp_path, factoid)
    assert verdict(tmp_path, "H2").verdict == outcome


@pytest.mark.parametrize(
    ("opened", "outcome"),
    [
        ((1.0, 1.0, 1.0, 1.0, 0.2), "supported"),
        ((1.0, 1.0, 0.2, 0.1, 0.0), "refuted"),
        ((1.0, 1.0, 0.95, 0.1, 0.0), "undecided"),
    ],
)
def test_reading_against_knowing(tmp_path, opened, outcome):
    plant(tmp_path, factoid=(1.0, 1.0, 0.5, 0.2, 0.0), opened=opened, methods=("magnitude", "wanda"))
    assert verdict(tmp_path, "H5").verdict == outcome


@pytest.mark.parametrize(("value", "outcome"), [(0.5, "supported"), (1.0, "refuted"), (0.95, "undecided")])
def test_patterns(tmp_path, value, outcome):
    make = plant(tmp_path, HIGH, methods=("magnitude",))
    for pattern in kick_data.PATTERNS:
        cell = make.cell("magnitude", 0.5, setting=pattern, accounting="nominal")
        for task in ("nano_factoid", "nano_mcr"):
            make.task(cell, task, items(task, value))
    assert verdict(tmp_path, "H4").verdict == outcome


@pytest.mark.parametrize(
    ("value", "a", "b"),
    [(1.0, "supported", "refuted"), (0.91, "refuted", "supported"), (0.7, "refuted", "refuted")],
)
def test_eight_bits(tmp_path, value, a, b):
    make = plant(tmp_path, HIGH, methods=("magnitude",))
    for seed in range(3):
        cell = make.cell("gptq", 0.5, seed, "8 bit, groups of 64", 128, "nominal")
        for task in ("nano_factoid", "nano_mcr"):
            make.task(cell, task, items(task, value))
    assert verdict(tmp_path, "H3a").verdict == a
    assert verdict(tmp_path, "H3b").verdict == b


@pytest.mark.parametrize(("quantised", "outcome"), [(1.0, "supported"), (0.3, "refuted")])
def test_quantised_against_pruned_at_equal_bytes(tmp_path, quantised, outcome):
    falling = (1.0, 1.0, 0.9, 0.8, 0.6)
    make = plant(tmp_path, falling, mcr=falling, methods=("magnitude",))
    cell = make.cell("rtn", 0.5, setting="8 bit, groups of 64", accounting="nominal")
    for task in ("nano_factoid", "nano_mcr"):
        make.task(cell, task, items(task, quantised))
    assert verdict(tmp_path, "H3c").verdict == outcome


def test_alike_inside_and_magnitude_first(tmp_path):
    make = Maker(tmp_path)
    make.parent({"nano_mcr": 1.0})
    for method, calib in CALIBRATED.items():
        line = (1.0, 1.0, 0.4, 0.3, 0.3) if method == "magnitude" else (1.0, 1.0, 1.0, 1.0, 0.4)
        make.curve(method, {"nano_mcr": line}, range(3) if calib else (0,), calib)
    assert verdict(tmp_path, "H8").verdict == "supported"


@pytest.mark.parametrize(("gain", "outcome"), [(0.3, "supported"), (0.0, "refuted")])
def test_samples_help_sparsegpt_only(tmp_path, gain, outcome):
    make = Maker(tmp_path)
    make.parent({"nano_mcr": 1.0})
    for method in ("sparsegpt", "wanda"):
        for n in (16, 128):
            more = gain if method == "sparsegpt" and n == 128 else 0.0
            make.curve(method, {"nano_mcr": (0.5 + more, 0.3)}, range(3), n, budgets=(0.5, 0.7))
    assert verdict(tmp_path, "H11").verdict == outcome


@pytest.mark.parametrize(("gain", "outcome"), [(0.3, "supported"), (0.0, "refuted")])
def test_shots_help_where_little_is_left(tmp_path, gain, outcome):
    make = Maker(tmp_path)
    tasks = ("nano_mcr", "nano_mcr_k2", "nano_mcr_k4")
    make.parent(dict.fromkeys(tasks, 1.0))
    make.curve("magnitude", {t: [0.4 + gain * (t != "nano_mcr")] * 2 for t in tasks}, budgets=(0.5, 0.6))
    assert verdict(tmp_path, "H12").verdict == outcome


@pytest.mark.parametrize(("sign", "outcome"), [(-1, "supported"), (1, "refuted")])
def test_rankings_agree_or_not(tmp_path, sign, outcome):
    make = Maker(tmp_path)
    make.parent({"nano_mcr": 1.0, "ppl_nano": 3.0})
    for i, method in enumerate(("magnitude", "rtn", "svd", "hqq", "nf4")):
        ppl = 30 - 4 * i if sign > 0 else 10 + 4 * i
        make.curve(method, {"nano_mcr": [0.3 + 0.12 * i] * 2, "ppl_nano": [ppl] * 2}, budgets=(0.3, 0.5))
    assert verdict(tmp_path, "H13").verdict == outcome


@pytest.mark.parametrize(("large", "outcome"), [(0.7, "supported"), (1.0, "refuted")])
def test_a_pruned_large_model_against_a_small_one(tmp_path, large, outcome):
    Maker(tmp_path, model="small", size=500_000).parent({"nano_mcr": 0.8})
    make = Maker(tmp_path, model="large")
    make.parent({"nano_mcr": 1.0})
    make.curve("magnitude", {"nano_mcr": (1.0, large)}, budgets=(0.2, 0.5))
    assert verdict(tmp_path, "H10", "large").verdict == outcome
    assert verdict(tmp_path, "H10", "small").verdict == "not testable here"


@pytest.mark.parametrize(("long", "outcome"), [((0.8, 0.5), "supported"), ((1.0, 0.95), "refuted")])
def test_long_texts_suffer_more(tmp_path, long, outcome):
    make = Maker(tmp_path)
    make.parent({"nano_summ_s": 1.0, "nano_summ_l": 1.0})
    make.curve("magnitude", {"nano_summ_s": (0.95, 0.8), "nano_summ_l": long}, budgets=(0.2, 0.4))
    assert verdict(tmp_path, "H6").verdict == outcome


@pytest.mark.parametrize(("line", "outcome"), [((30, 20, 10), "supported"), ((30, 35, 10), "refuted")])
def test_distinct_tokens(tmp_path, line, outcome):
    make = Maker(tmp_path)
    task, both = (
        "nano_instruct",
        lambda score, tokens: items(task, score) + items(task, tokens, metric="distinct"),
    )
    make.task(make.cell("dense"), task, both(1.0, 31), parent=True)
    for budget, tokens in zip((0.1, 0.2, 0.3), line, strict=True):
        make.task(make.cell("magnitude", budget), task, both(1.0 if budget < 0.3 else 0.5, tokens))
    assert verdict(tmp_path, "H7b").verdict == outcome
    assert verdict(tmp_path, "H7").verdict == "supported"


@pytest.mark.parametrize(("soft", "outcome"), [(0.2, "supported"), (1.0, "refuted")])
def test_disciplines(tmp_path, soft, outcome):
    make = Maker(tmp_path)
    task, group = "nano_mcr", lambda i: {"group": "STEM" if i % 2 else "humanities"}

    def scored(humanities, stem):
        found = items(task, 1.0, extra=group)
        for i, item in enumerate(found):
            item[2] = float(i % 300 < 300 * (stem if i % 2 else humanities))
        return found

    make.task(make.cell("dense"), task, scored(1.0, 1.0), parent=True)
    make.task(make.cell("magnitude", 0.3), task, scored(soft, 0.6))
    assert verdict(tmp_path, "H9").verdict == outcome


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


def test_the_page_lists_every_claim_with_its_rule_and_names_the_study(tmp_path):
    plant(tmp_path, factoid=(1.0, 0.8, 0.6, 0.4, 0.2), ppl=PPL)
    study = kick_data.study("demo", tmp_path)
    found = verdicts.verdicts(study)
    page = verdicts.page(found, study)
    for i in range(1, 14):
        assert any(v.id.rstrip("abc") == f"H{i}" for v in found)
    for words in ("study demo", "## nano: 36 cells", "Rule: ", "`nano_icra_closed`", "**supported**"):
        assert words in page
    assert [v["id"] for v in json.loads(verdicts.as_json(found))] == [v.id for v in found]


def test_differences_know_draws_and_items():
    rng = np.random.default_rng(1)
    alone = evidence.difference((rng.random((1, 300)) < 0.6) * 1.0, (rng.random((1, 300)) < 0.6) * 1.0)
    assert alone.low < 0 < alone.high
    base = (rng.random(300) < 0.7) * 1.0
    draws = np.stack([base, base, base * 0])
    spread = evidence.difference(draws, base[None])
    assert spread.low < -0.6  # three draws of which one differs may be anything
    assert spread.high > 0
    same = evidence.difference(base[None], base[None])
    assert (same.mean, same.p) == (0.0, 1.0)


def test_few_equal_answers_are_no_certainty():
    for one in (np.ones((1, 5)), np.tile(np.linspace(0, 1, 5), (3, 1))):
        assert evidence.difference(one, one[:1]).high > 0.2


def test_differences_of_three_draws_cover_the_truth():
    rng, inside = np.random.default_rng(2), 0
    for _ in range(300):
        old = rng.normal(0, 1, 200)
        new = old + rng.normal(0, 0.05, 3)[:, None] + rng.normal(0, 0.1, (3, 200))
        found = evidence.difference(new, old[None])
        inside += found.low <= 0 <= found.high
    assert inside >= 0.92 * 300


def test_the_command_writes_everything(tmp_path, capsys):
    plant(tmp_path / "store", factoid=(1.0, 0.8, 0.6, 0.4, 0.2), ppl=PPL, methods=("magnitude",))
    paths = kick.main(
        ["demo", "--store", str(tmp_path / "store"), "--format", "svg", "--out", str(tmp_path / "out")]
    )
    assert {"verdicts.md", "verdicts.json", "table3.tex", "fig2_factoid.svg"} <= {p.name for p in paths}
    assert "fig7_calibration: left out: no method has cells" in capsys.readouterr().out
    assert BUDGETS[-1] == 0.5


def test_a_source_without_items_is_refused_in_one_line():
    with pytest.raises(collect.AnalysisError, match="--from: W&B holds no items"):
        kick.main(["demo", "--from", "wandb:entity/project"])
