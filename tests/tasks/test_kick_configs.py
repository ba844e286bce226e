"""The judged tasks as a user asks for them: by yaml, with overrides."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from refusals import refused

from crunchmark.machine import ROOT
from crunchmark.task import Task
from launch import check_targets, made
from tasks.kick.judge.api import ApiJudge
from tasks.kick.judge.local import LocalJudge
from tasks.kick.judge.proxies import Proxies

pytestmark = pytest.mark.slow

TASKS = ("kick_instruct", "kick_summ", "kick_paper_instruct", "kick_paper_summ", "kick_code_instruct")
TASKS += ("kick_code_summ", "nano_instruct", "nano_summ_lengths")


def composed(*overrides):
    """The tasks that run.py would make."""
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        cfg = compose("config", overrides=["label=x", *overrides])
    config = OmegaConf.to_container(cfg, resolve=True)["task"]
    check_targets(config)
    return {name: made(spec, f"task.{name}", Task) for name, spec in config.items()}


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"question_id": 1, "category": "math", "turns": ["a?", "b?"]}))
    return path


@pytest.fixture
def stories(tmp_path):
    for place, words in enumerate((20, 600, 1000)):
        Path(tmp_path / f"{place}.story").write_text("word " * words + "\n\n@highlight\n\nWords")
    return tmp_path


def test_every_entry_is_a_task(questions, stories):
    seen = 0
    for name in TASKS:
        path = questions if name.endswith("instruct") else stories
        keys = [f"task.{k}.path={path}" for k in names(name)] if name.startswith("kick") else []
        keys += [f"task.{name}_s.dataset=null"] if name in ("kick_summ", "kick_paper_summ") else []
        for key, task in composed(f"task={name}", *keys).items():
            assert task.name == key
            assert len(task.talks) >= 1
            assert len(task.protocol()) == 16
            seen += 1
    assert seen == 4 + 4 + 4 + 4


def names(name):
    if name.endswith("instruct"):
        return [name]
    return [f"{name}_{b}" for b in "sml"] if "code" in name else [f"{name}_s"]


def test_one_folder_makes_three_tasks(stories):
    found = composed("task=kick_summ", f"task.kick_summ_s.path={stories}", "task.kick_summ_s.dataset=null")
    assert [[talk.id for talk in task.talks] for task in found.values()] == [["0"], ["1"], ["2"]]
    assert all(isinstance(task.judge, Proxies) for task in found.values())


def test_variants_differ_in_protocol(questions, stories):
    found = set()
    for name in ("kick_instruct", "kick_paper_instruct", "kick_code_instruct"):
        (task,) = composed(f"task={name}", f"task.{name}.path={questions}").values()
        found.add(task.protocol())
    assert len(found) == 3


@pytest.mark.parametrize(
    ("judge", "kind"),
    [
        ("{_target_: tasks.kick.judge.api.ApiJudge, model: m, base_url: 'http://h/v1', votes: 2}", ApiJudge),
        ("{_target_: tasks.kick.judge.local.LocalJudge, path: tasks/nano/model}", LocalJudge),
    ],
)
def test_the_back_end_is_chosen_by_config(questions, judge, kind):
    base = ("task=kick_instruct", f"task.kick_instruct.path={questions}")
    (plain,) = composed(*base).values()
    (task,) = composed(*base, f"++task.kick_instruct.judge={judge}").values()
    assert isinstance(task.judge, kind)
    assert next(iter(task.metrics())) == "judge_overall"
    assert task.protocol() != plain.protocol()


def test_a_missing_path_is_one_line():
    refused(lambda: composed("task=kick_instruct"), "kick_instruct.path=None", "question_id")
    refused(lambda: composed("task=kick_code_summ"), "kick_code_summ_s.path=None", "valid: one of them")


def test_a_data_set_gives_the_same_stories(tmp_path):
    rows = [{"id": f"s{i}", "article": "word " * 30 + str(i), "highlights": "One\nTwo"} for i in range(3)]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    keys = [f"task.kick_summ_s.{k}" for k in (f"dataset={tmp_path}", "config=null")]
    task = composed("task=kick_summ", *keys)["kick_summ_s"]
    assert [talk.id for talk in task.talks] == ["s0", "s1", "s2"]
    assert task.talks[0].gold == "One\nTwo"
