"""LLM-KICK's question answering on the real data that are here."""

import pytest

from crunchmark.evaluate import rows
from crunchmark.hub import DATA
from crunchmark.store import Store
from tasks.kick.qa import KickQA
from tasks.kick.subjects import GROUP
from tasks.lm import LmEval

ASKED = {
    "kick_mcr": ["acc", "format_valid"],
    "kick_paper_mcr": ["acc", "format_valid", "answer_tokens"],
    "kick_code_mcr": ["acc", "answer_tokens"],
    "kick_icra_closed": ["exact_match", "contains", "f1", "answer_tokens"],
    "kick_paper_icra_closed": ["exact_match", "contains", "f1", "answer_tokens"],
    "kick_code_icra_closed": ["exact_match", "f1", "answer_tokens"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ASKED)
def test_each_runs_offline_on_a_real_model(name, llama, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = KickQA(name, limit=3)
    items = list(task.run(*llama))
    found = rows(name, task.protocol(), items, task.metrics(), None)
    assert [row["metric"] for row in found] == ASKED[name]
    assert {row["n"] for row in found} == {3}
    assert found[0]["headline"]


@pytest.fixture(scope="module")
def mmlu(real):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DATA, str(real / "hub"))
        return {name: KickQA(name).tasks[name] for name in ("kick_mcr", "kick_code_mcr")}


@pytest.mark.slow
def test_mmlu_is_whole_and_its_options_are_kept(mmlu):
    docs = list(mmlu["kick_mcr"].eval_docs)
    assert len(docs) == 14042
    assert {doc["id"].partition("/")[0] for doc in docs} == set(GROUP)
    assert not any("nan" in doc["choices"] for doc in docs)
    assert len({doc["id"].partition("/")[0] for doc in docs[:100]}) > 30, (
        "a limit is a sample of all subjects"
    )


@pytest.mark.slow
def test_the_released_code_lost_ten_options(mmlu):
    assert sum("nan" in doc["choices"] for doc in mmlu["kick_code_mcr"].eval_docs) == 10


@pytest.mark.slow
def test_five_shots_of_the_subject(mmlu):
    task = mmlu["kick_mcr"]
    doc = next(doc for doc in task.eval_docs if doc["id"] == "anatomy/0")
    prompt = task.fewshot_context(doc, num_fewshot=5)
    assert prompt.count("Answer:") == 6
    assert prompt.startswith("The following are multiple choice questions (with answers) about anatomy.\n\n")
    assert prompt.endswith(task.doc_to_text(doc))


@pytest.mark.slow
def test_letters_score_as_lm_evals_own_mmlu(llama, hub):
    """Without shots the prompts are the same, and so are the scores."""
    theirs = LmEval("mmlu_anatomy", limit=20, num_fewshot=0)
    asked = {item.id.partition("/")[2]: item.score for item in theirs.run(*llama) if item.metric == "acc"}
    ours = KickQA("k0", task="kick_mcr", num_fewshot=0)
    (task,) = ours.tasks.values()
    wanted = [f"anatomy/{i}" for i in range(20)]
    places = {doc["id"]: i for i, doc in enumerate(task.eval_docs)}
    task.dataset = {**task.dataset, "test": task.eval_docs.select([places[key] for key in wanted])}
    found = {item.id.rpartition("/")[2]: item.score for item in ours.run(*llama) if item.metric == "acc"}
    assert len(found) == 20
    assert found == {key.rpartition("/")[2]: value for key, value in asked.items()}


@pytest.mark.slow
def test_the_command_line_runs_it(run, hub, real, tmp_path):
    done = run("method=dense", "task=kick_mcr", "limit=2", f"model.path={real / 'models' / 'stories260K'}")
    assert done.returncode == 0, done.stderr[-2000:]
    told = [row for row in Store(tmp_path / "results").rows("s") if row["task"] == "kick_mcr"]
    assert {row["metric"] for row in told} == {"acc", "format_valid"}
    assert {row["n"] for row in told} == {2}
