"""What the command line is told in one line before a cell is made."""

import os
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.types import RunMode
from refusals import refused

import methods
from crunchmark.interface import Method
from crunchmark.machine import ROOT
from crunchmark.task import Task
from launch import check_mode, check_words, guarded, in_sweep, made, one_line, say

JUDGE = "tasks.kick.judge.api.ApiJudge"
TALKS = {"_target_": "tasks.nano.talks.NanoInstructions", "name": "t"}


def hydra(mode, name, grids):
    sweeper = {} if grids is None else {"grids": grids}
    return SimpleNamespace(mode=mode, sweeper=sweeper, runtime=SimpleNamespace(choices={"experiment": name}))


def test_grids_want_a_sweep():
    grids = [{"method": "svd"}, {"method": "rtn"}]
    refused(
        lambda: check_mode(hydra(RunMode.RUN, "two", grids)),
        "experiment=two has grids",
        "valid: -m experiment=two",
    )
    refused(lambda: check_mode(hydra(RunMode.RUN, None, grids)), "hydra.sweeper.grids has grids", "-m")


@pytest.mark.parametrize("grids", [None, []])
def test_an_experiment_of_one_cell_wants_none(grids):
    check_mode(hydra(RunMode.RUN, "one", grids))
    check_mode(hydra(RunMode.MULTIRUN, "two", [{"method": "svd"}]))


@pytest.mark.parametrize(
    "word",
    [
        "++task.t.judge={model: m, base_url: 'https://user:sk-secret@host/v1'}",
        "++task.t.judge.base_url=https://sk-secret@host/v1",
        "++task.t.judge={base_url: 'http://host/v1?api_key=sk-secret'}",
        "++task.t.judge={base_url: 'http://host/v1?a=b&Token=sk-secret'}",
    ],
)
def test_a_key_on_the_command_line_is_refused_before_it_is_written_anywhere(word, monkeypatch, capsys):
    refused(lambda: check_words(["-m", "method=svd", word]), "task.t.judge", "environment variable")
    monkeypatch.setattr("sys.argv", ["run.py", word])
    assert guarded(lambda: pytest.fail("Hydra has it")) == 2
    assert "sk-secret" not in capsys.readouterr().err


@pytest.mark.parametrize("before", [None, "0", "1"])
def test_what_hydra_is_told_does_not_stay(before, monkeypatch):
    """Else whatever runs in this process, or is started by it, would show stack traces to its user."""
    monkeypatch.setattr("sys.argv", ["run.py"])
    monkeypatch.setattr("launch.FAILED", [])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    if before is not None:
        monkeypatch.setenv("HYDRA_FULL_ERROR", before)
    seen = []
    assert guarded(lambda: seen.append(os.environ["HYDRA_FULL_ERROR"])) == 0
    assert seen == ["1"]
    assert os.environ.get("HYDRA_FULL_ERROR") == before


def test_addresses_without_a_key_are_let_through():
    good = ("http://host/v1", "https://host/v1/a@b", "user@host", "a?key=b", "lmeval://any")
    check_words([f"++task.t.judge={{base_url: '{address}'}}" for address in good])


def test_an_option_that_an_inner_object_does_not_take_is_named_with_what_it_takes():
    judge = {"_target_": JUDGE, "modle": "m", "base_url": "http://h/v1"}
    refused(
        lambda: made(TALKS | {"judge": judge}, "task.t", Task),
        "task.t.judge.modle is no field; nearest: model, orders, folder; valid: base_url,",
    )
    refused(lambda: made(TALKS | {"limits": 3}, "task.t", Task), "task.t.limits is no field; nearest: limit;")


def test_what_an_inner_object_lacks_is_its_own_complaint():
    refused(
        lambda: made(TALKS | {"judge": {"_target_": JUDGE, "model": "m"}}, "task.t", Task),
        "judge.base_url='' is missing; valid: http(s)://HOST/v1",
    )
    wrong = TALKS | {"judge": {"_target_": f"{JUDGE}s"}}
    refused(lambda: made(wrong, "task.t", Task), "task.t can not be made", "ApiJudges")


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("methods.wanda.Wand", "is not there; nearest: methods.wanda.Wanda"),
        ("methods.wandas.Wanda", "is not there; nearest: methods.wanda,"),
        ("methods.none_such.deep.Thing", "is not there; valid: methods.afm, "),
        ("methods.svd.SVD.inner", "is not there; valid: a class of a module"),
    ],
)
def test_a_class_that_is_not_there_is_told_with_what_is_near(target, told):
    outer = {"_target_": "methods.pipeline.Pipeline", "first": {"_target_": target}, "then": None}
    refused(lambda: made(outer, "method", Method), f"method.first._target_={target!r} {told}")


@pytest.mark.parametrize("word", ["hydra.sweeper.part=1/2", "hydra.sweeper.grids=[]"])
def test_what_belongs_to_an_experiment_says_so(word):
    with initialize_config_dir(str(ROOT / "conf"), version_base=None), pytest.raises(HydraException) as e:
        compose("config", [word])
    told = one_line(e.value)
    assert told.startswith(f"error: {word.partition('=')[0]} belongs to an experiment; valid: beside -m exp")
    assert "\n" not in told


def test_progress_lines_tell_allocators_and_compensators_apart(capsys):
    stages = {"allocate": {"_target_": "methods.allocate.owl.OWL"}}
    stages |= {"compensate": {"_target_": "methods.compensate.eora.EoRA"}}
    say(SimpleNamespace(label="svd", budget=0.3, stages=stages), [{"state": "skipped", "reason": "why"}])
    assert capsys.readouterr().err == "svd budget=0.3 allocate=owl compensate=eora: skipped: why\n"


@pytest.mark.parametrize("cap", [0, 2])
def test_modegpt_takes_no_more_than_all_of_a_block(cap):
    config = {"_target_": "methods.modegpt.MoDeGPT", "cap": cap}
    refused(lambda: made(config, "method", object), f"method.cap={cap}", "valid:")


@pytest.mark.parametrize(
    ("words", "made"),
    [
        ("-m method=rtn,hqq method.bits=4 budget=0.3", "-m method=rtn,hqq method.bits=choice(4) budget=0.3"),
        ("-m method=rtn method.bits=4,3", "-m method=rtn method.bits=4,3"),
        ("-m method=rtn method.bits=4 seed=0,1", "-m method=rtn method.bits=4 seed=0,1"),
        (
            "-m method=rtn,hqq +method.bits=4 method.group=4,8",
            "-m method=rtn,hqq +method.bits=4 method.group=4,8",
        ),
        ("-m experiment=all method.bits=4", "-m experiment=all method.bits=choice(4)"),
        ("-m experiment=all cache.dir=/x limit=2", "-m experiment=all cache.dir=/x limit=2"),
        ("-m experiment=all model.revision='12'", "-m experiment=all model.revision='12'"),
        ("-m experiment=all model.revision=str(12)", "-m experiment=all model.revision=str(12)"),
        ("-m experiment=all hydra.sweeper.part=1/2", "-m experiment=all hydra.sweeper.part=1/2"),
        ("-m task=[a,b] task.a.limit=[1,2] method=a,b", "-m task=[a,b] task.a.limit=[1,2] method=a,b"),
        ("-m task=a,b task.a.limit=[1,2]", "-m task=a,b task.a.limit=choice([1,2])"),
        ("-m method=rtn,hqq method.bits= budget=0.3", "-m method=rtn,hqq method.bits= budget=0.3"),
        ("-m method=[rtn method.bits=4", "-m method=[rtn method.bits=4"),  # Hydra says what is wrong
        ("method=rtn,hqq method.bits=4", "method=rtn,hqq method.bits=4"),
    ],
)
def test_options_of_a_swept_group_are_part_of_the_sweep(words, made):
    assert in_sweep(words.split()) == made.split()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def f(:", "SyntaxError: invalid"),
        ("import none_such", "ModuleNotFoundError: No module named"),
    ],
)
def test_a_module_that_can_not_be_imported_is_told_why(text, told, tmp_path, monkeypatch):
    (tmp_path / "halfway.py").write_text(text)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    outer = {"_target_": "methods.halfway.Thing"}
    refused(lambda: made(outer, "method", Method), f"methods.halfway.Thing' can not be imported: {told}")
