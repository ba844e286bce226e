"""LLM-KICK's question answering on small files of the real formats, asked of the built-in model."""

import pytest
from kick_files import HERE, asked, docs

from crunchmark.hub import DATA
from tasks.kick.data import draw
from tasks.kick.fit import Fit
from tasks.kick.qa import KickQA
from tasks.kick.subjects import GROUP
from tasks.protocol import source

pytestmark = pytest.mark.slow


def test_factoid_takes_the_evaluation_split_and_all_names_of_all_parses(data):
    found, _ = docs("kick_factoid")
    assert sorted(doc["id"] for doc in found) == [f"FreebaseQA-eval-{i}" for i in range(6)]
    one = next(doc for doc in found if doc["id"].endswith("-0"))
    assert one["aliases"] == ["ada quill", "a. m. quill", "ada mirren quill", "ned quill"]
    code, _ = docs("kick_code_factoid")
    assert [doc["id"] for doc in code] == [f"FreebaseQA-train-{i}" for i in range(4)]
    assert code[0]["aliases"] == ["ada quill", "a. m. quill"]


def test_prompts_are_the_three_protocols(data):
    texts = {}
    for name in ("kick_factoid", "kick_paper_factoid", "kick_code_factoid"):
        found, task = docs(name)
        one = next(doc for doc in found if doc["id"].endswith("-1"))
        texts[name] = task.doc_to_text(one).partition("Petrel?")[2]
    assert texts == {
        "kick_factoid": " The answer is",
        "kick_paper_factoid": " The answer is ",
        "kick_code_factoid": "\nThe answer is ",
    }


def test_a_sample_is_drawn_by_the_seed_and_its_items_are_in_the_protocol(data, tmp_path):
    many = [{"id": i} for i in range(100)]
    assert draw(many, 10, 0) == draw(many, 10, 0) != draw(many, 10, 1)
    assert draw(many, 10, None) == many[:10]
    assert len({row["id"] for row in draw(many, 1000, 0)}) == 100
    text = (HERE / "FreebaseQA-eval.json").read_text()
    (tmp_path / "same.json").write_text(text)
    (tmp_path / "other.json").write_text(text.replace("FreebaseQA-eval-5", "FreebaseQA-eval-9"))
    base = KickQA("kick_factoid").protocol()
    assert KickQA("kick_factoid", path=str(tmp_path / "same.json")).protocol() == base
    assert KickQA("kick_factoid", path=str(tmp_path / "other.json")).protocol() != base


def test_matchers_and_the_fit_are_in_the_protocol(data):
    task = KickQA("kick_factoid")
    (leaf,) = task.tasks.values()
    assert "+" in source(leaf.config.process_results), "score.py imports match.py"
    assert "+" in source(Fit)
    ids = {KickQA(name).protocol() for name in ("kick_factoid", "kick_paper_factoid", "kick_code_factoid")}
    assert len(ids) == 3


def test_factoid_runs_and_tells_the_length_of_answers(data, nano):
    table, items = asked("kick_factoid", nano)
    assert list(table) == ["exact_match", "contains", "f1", "answer_tokens"]
    assert {row["n"] for row in table.values()} == {6}, (
        "what the file holds, not the 1000 that were asked for"
    )
    assert table["exact_match"]["headline"]
    assert 0 < table["answer_tokens"]["value"] <= 32
    task = KickQA("kick_factoid")
    list(task.run(*nano))
    assert task.metrics()["answer_tokens"].margin is None
    assert len({item.id for item in items}) == 6


def test_the_released_budget_grows_with_the_prompt(data, nano):
    _, items = asked("kick_code_factoid", nano, limit=1)
    found, task = docs("kick_code_factoid")
    length = len(nano[1](task.doc_to_text(found[0]))["input_ids"])
    first = next(item for item in items if item.metric == "answer_tokens")
    assert 32 < first.score <= 2 * length


def test_mcr_asks_letters_with_shots_of_the_subject_and_keeps_every_option(data, nano):
    found, task = docs("kick_mcr")
    assert {doc["group"] for doc in found} == {"STEM", "other"}
    assert sum("None" in doc["choices"] for doc in found) == 8
    one = next(doc for doc in found if doc["id"] == "virology/2")
    prompt = task.fewshot_context(one, num_fewshot=2)
    assert prompt == (
        "The following are multiple choice questions (with answers) about virology.\n\n"
        "What is 0?\nA. 1\nB. None\nC. 3\nD. 4\nAnswer: A\n\n"
        "What is 1?\nA. 1\nB. None\nC. 3\nD. 4\nAnswer: B\n\n"
        "What is 2?\nA. 1\nB. None\nC. 3\nD. 4\nAnswer:"
    )
    table, items = asked("kick_mcr", nano)
    assert list(table) == ["acc", "format_valid"]
    assert (table["acc"]["n"], table["acc"]["chance"], table["format_valid"]["chance"]) == (8, 0.25, None)
    assert {item.extra["group"] for item in items} == {"STEM", "other"}


def test_the_released_code_read_options_as_nan(data):
    found, task = docs("kick_code_mcr")
    assert all(doc["choices"][1] == "nan" for doc in found)
    assert "about  virology." in task.fewshot_context(found[0], num_fewshot=0)


def test_shots_are_an_axis(data, nano):
    ids = set()
    for k in (0, 1, 2, 3, 5):
        task = KickQA(f"kick_mcr_k{k}", task="kick_mcr", num_fewshot=k)
        ids.add(task.protocol())
    assert len(ids) == 5
    assert KickQA("any", task="kick_mcr", num_fewshot=5).protocol() == KickQA("kick_mcr").protocol()


def test_more_shots_than_there_are(data, nano):
    task = KickQA("k6", task="kick_mcr", num_fewshot=6)
    with pytest.raises(
        ValueError, match=r"^k6: num_fewshot=6 is more than the examples of '.*'; valid: 0 to 5$"
    ):
        list(task.run(*nano))


def test_57_subjects_in_four_disciplines():
    counts = [list(GROUP.values()).count(name) for name in ("STEM", "humanities", "social", "other")]
    assert counts == [18, 13, 12, 14]


def test_open_book_asks_only_what_its_evidence_can_answer(data, nano):
    table, items = asked("kick_icra_open", nano)
    held = {item.id.partition("/")[2]: item.score for item in items if item.metric == "in_evidence"}
    # tc_2: "tin" only inside "tinsel"; tc_3: behind the window; tc_5: no page at all
    assert held == {"tc_1": 1, "tc_2": 0, "tc_3": 0, "tc_4": 1, "tc_5": 0}
    assert (table["exact_match"]["n"], table["in_evidence"]["n"]) == (2, 5)
    assert table["in_evidence"]["value"] == pytest.approx(0.4)
    assert table["in_evidence"]["flags"] == {"truncated": 1}, "the context was narrower than the window"


def test_closed_book_asks_each_question_once_and_the_released_code_twice(data):
    assert sorted(doc["id"] for doc in docs("kick_icra_closed")[0]) == [f"tc_{i}" for i in range(1, 6)]
    assert [doc["id"] for doc in docs("kick_code_icra_open")[0]][:2] == ["tc_1", "tc_1#2"]
    assert max(len(doc["evidence"]) for doc in docs("kick_code_icra_open")[0]) <= 3072


def test_a_file_of_ones_own(nano):
    table, _ = asked("kick_icra_open", nano, path=str(HERE / "trivia_rc.jsonl"))
    assert table["exact_match"]["n"] == 2
    table, _ = asked("kick_paper_factoid", nano, path=str(HERE / "FreebaseQA-train.json"), limit=2)
    assert table["exact_match"]["n"] == 2


def test_a_relative_data_root(data, monkeypatch):
    base = KickQA("kick_factoid").protocol()
    monkeypatch.chdir(data.parent)
    monkeypatch.setenv(DATA, data.name)
    assert KickQA("kick_factoid").protocol() == base
