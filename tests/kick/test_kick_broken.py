"""Data that are not there, broken or of another format are one line with the task and the field."""

import json

import pytest
from kick_files import HERE, trivia

from crunchmark.hub import DATA
from tasks.kick.qa import KickQA


def test_no_evidence_at_all_is_one_line(nano, tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(trivia()[2]) + "\n")
    with pytest.raises(
        ValueError, match=r"^kick_icra_open: none of 1 questions has an alias in the first 768"
    ):
        list(KickQA("kick_icra_open", path=str(tmp_path / "rows.jsonl")).run(*nano))


def test_data_that_are_not_there_say_how_to_give_them(monkeypatch, tmp_path):
    monkeypatch.delenv(DATA, raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"^kick_factoid: no FreebaseQA-eval.json; valid: task.NAME.path="
    ):
        KickQA("kick_factoid").protocol()


def test_a_data_set_that_is_not_there_names_it_and_the_way(monkeypatch, tmp_path):
    monkeypatch.setenv(DATA, str(tmp_path))
    (tmp_path / "mandarjoshi" / "trivia_qa").mkdir(parents=True)
    told = r"^kick_icra_open: data set 'mandarjoshi/trivia_qa' \(rc\) can not be loaded .*; valid: task.NAME"
    with pytest.raises(FileNotFoundError, match=told) as caught:
        KickQA("kick_icra_open").protocol()
    assert "\n" not in str(caught.value)


def broken(tmp_path, change):
    told = json.loads((HERE / "FreebaseQA-eval.json").read_text())
    change(told)
    file = tmp_path / "FreebaseQA-eval.json"
    file.write_text(json.dumps(told))
    return KickQA("kick_factoid", path=str(file))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("Questions"), "has no field 'Questions'; it has: Dataset, Version$"),
        (lambda d: d["Questions"][1].update(RawQuestion=None), "has RawQuestion=null; valid: a value"),
        (lambda d: d["Questions"][1].update(Parses=None), "has Parses=null; valid: a value in every row"),
        (lambda d: d["Questions"][1].pop("RawQuestion"), "has no field 'RawQuestion'; it has: Question-ID,"),
        (lambda d: d["Questions"][1]["Parses"].clear(), "question 'FreebaseQA-eval-1' has no answer$"),
        (lambda d: d["Questions"].append(d["Questions"][2]), "has the id 'FreebaseQA-eval-2' twice$"),
        (lambda d: d["Questions"].clear(), "holds no questions$"),
    ],
)  # fmt: skip
def test_broken_files_are_one_line_with_task_and_field(change, message, tmp_path):
    with pytest.raises(ValueError, match=f"^kick_factoid: FreebaseQA-eval.json:? {message}") as caught:
        broken(tmp_path, change).protocol()
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_json(tmp_path):
    (tmp_path / "FreebaseQA-eval.json").write_text("{")
    with pytest.raises(ValueError, match=r"^kick_factoid: FreebaseQA-eval.json is no JSON file"):
        KickQA("kick_factoid", path=str(tmp_path)).protocol()


def test_rows_without_a_column_of_the_real_format(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "x", "question_id": "1"}) + "\n")
    with pytest.raises(
        ValueError, match=r"^kick_icra_closed: mandarjoshi/trivia_qa has no field 'answer'; it has:"
    ):
        KickQA("kick_icra_closed", path=str(tmp_path / "rows.jsonl")).protocol()
