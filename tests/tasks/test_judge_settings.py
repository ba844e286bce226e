"""What an API judge may be told, and which replies it can read."""

import json
import sys

import pytest
from judge_server import asked, cases, ratings
from refusals import refused

from tasks.kick.judge.api import ApiJudge
from tasks.kick.judge.local import LocalJudge
from tasks.kick.judge.replies import read

GOOD = ratings()


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (GOOD, True),
        (f"Sure:\n```json\n{GOOD}\n```", True),
        ('{"thought": {"a": 1}} ' + GOOD, True),
        ("", False),
        ("7", False),
        ("{" * 5000, False),
        (GOOD[:-3], False),
        (ratings(11, 5), False),
        (ratings(0, 5), False),
        (ratings(True, 5), False),
        (ratings("7", 5), False),
        (ratings(float("nan"), 5), False),
        (ratings(7, 5, ("overall", "more")), False),
        (ratings(7, 5, ()), False),
        (json.dumps({"answer_1": {"overall": 7}}), False),
        (json.dumps({"answer_1": 7, "answer_2": 5}), False),
        (json.dumps([7, 5]), False),
    ],
)
def test_only_whole_replies_in_range_are_read(text, good):
    found = read(text, "chat")
    assert found == ({"answer_1": {"overall": 7.0}, "answer_2": {"overall": 5.0}} if good else None)


@pytest.mark.usefixtures("endpoint")
def test_settings_are_checked(tmp_path, monkeypatch):
    good = {"model": "m", "base_url": "http://h/v1", "folder": str(tmp_path), "key_env": "JUDGE_KEY"}
    for bad in (
        {"votes": 0}, {"orders": "none"}, {"temperature": -1.0}, {"timeout": "x"}, {"model": ""},
        {"least": 2.0}, {"base_url": "h/v1"}, {"structured": "yes"}, {"retries": -1}, {"parallel": 0},
    ):  # fmt: skip
        (name,) = bad
        refused(lambda bad=bad: ApiJudge(**good | bad), f"judge.{name}=", "valid")
    monkeypatch.delenv("JUDGE_KEY")
    refused(lambda: asked(ApiJudge(**good), cases(1)), "judge.key_env='JUDGE_KEY'", "not set")
    monkeypatch.setitem(sys.modules, "openai", None)
    refused(lambda: asked(ApiJudge(**good), cases(1)), "crunchmark-bench[judge]")


SECRET = "sk-secret"


@pytest.mark.parametrize(
    "address",
    [
        f"https://user:{SECRET}@host/v1",
        f"https://{SECRET}@host/v1",
        f"user:{SECRET}@host/v1",
        f"https://host/v1?api_key={SECRET}",
        f"https://host/v1?api_key=a@{SECRET}",
        f"https://host/v1#{SECRET}",
    ],
)
def test_an_address_with_a_key_is_refused_and_not_repeated(address):
    with pytest.raises(ValueError, match=r"judge\.base_url .*environment variable .*judge\.key_env") as e:
        ApiJudge(model="m", base_url=address)
    assert SECRET not in str(e.value)


@pytest.mark.parametrize("name", [SECRET, "", "9abc", "a b", None])
def test_a_key_where_its_name_belongs_is_refused_and_not_repeated(name):
    with pytest.raises(ValueError, match=r"judge\.key_env is no name; valid: the name of") as e:
        ApiJudge(model="m", base_url="http://h/v1", key_env=name)
    assert SECRET not in str(e.value)


@pytest.mark.parametrize("address", ["http://", "ftp://h/v1", "http://a b/v1", "h/v1"])
def test_what_is_no_address_is_refused(address):
    refused(
        lambda: ApiJudge(model="m", base_url=address), f"judge.base_url={address!r} is no address", "valid"
    )


def test_what_is_missing_is_named_with_what_would_be_valid():
    refused(lambda: ApiJudge(base_url="http://h/v1"), "judge.model='' is missing; valid: the id of a model")
    refused(lambda: ApiJudge(model="m"), "judge.base_url='' is missing; valid: http(s)://HOST/v1")
    refused(lambda: ApiJudge(model=5, base_url="http://h/v1"), "judge.model=5 is no text; valid: the id")
    refused(LocalJudge, "judge.path='' is missing; valid: a folder or hub id")


def test_the_protocol_is_what_is_asked_not_where():
    one = ApiJudge("m", "http://a/v1")
    assert one.protocol() == ApiJudge("m", "http://b/v1", retries=9, key_env="X").protocol()
    for other in (ApiJudge("n", "http://a/v1"), ApiJudge("m", "http://a/v1", votes=2)):
        assert one.protocol() != other.protocol()
    assert "http" not in json.dumps(one.protocol())


@pytest.mark.parametrize("name", ["timeout", "deadline"])
def test_no_patience_at_all_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"judge.{name}=0 is out of range; valid: a number above 0"):
        ApiJudge(model="m", base_url="http://here/v1", folder=str(tmp_path), **{name: 0})
