from pathlib import Path

import pytest
from lm_eval.tasks import TaskManager

from tasks.nano import items

LM = Path(items.__file__).parent / "lm"
METRICS = {
    **dict.fromkeys(("nano_factoid", "nano_icra_closed", "nano_icra_open", "nano_needle"), "exact_match"),
    **{"nano_mcr": "acc", "nano_summ": "covered"},
}


@pytest.fixture(scope="module")
def tasks():
    manager = TaskManager(include_path=str(LM), include_defaults=False)
    return {name: manager.load([name])["tasks"][name] for name in METRICS}


def test_all_tasks_load_offline_from_anywhere(tasks, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert len(tasks) == 6
    for task in tasks.values():
        docs = list(task.test_docs())
        assert 300 <= len(docs) <= 1000
        assert all(isinstance(doc["id"], str) for doc in docs)


def test_the_group_names_every_task():
    group = TaskManager(include_path=str(LM), include_defaults=False).load(["kick_nano"])
    assert set(group["tasks"]) == set(METRICS)


def test_chance_in_the_yaml_is_the_measured_one(tasks):
    for name, stem in (
        ("factoid", "factoid"),
        ("icra_open", "icra"),
        ("icra_closed", "icra"),
        ("needle", "needle"),
    ):
        stated = tasks[f"nano_{name}"].config.metadata["chance"]
        assert stated == items.chance(list(items.ITEMS[stem]())), name


def test_perfect_and_empty_answers_score_one_and_zero(tasks):
    for name, metric in METRICS.items():
        if name != "nano_mcr":
            task, doc = tasks[name], next(iter(tasks[name].test_docs()))
            assert task.process_results(doc, [" " + task.doc_to_target(doc)])[metric] == 1.0
            assert task.process_results(doc, [""])[metric] == 0.0


def test_open_book_prompt_holds_the_passage_and_closed_does_not(tasks):
    doc = next(iter(tasks["nano_icra_open"].test_docs()))
    assert tasks["nano_icra_open"].doc_to_text(doc) == doc["passage"] + "\n" + doc["prompt"]
    assert tasks["nano_icra_closed"].doc_to_text(doc) == doc["prompt"]
