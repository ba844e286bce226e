"""lm-eval's own tasks, unmodified: item by item what its own command line says."""

import json
import subprocess
import sys

import pytest
import torch

from tasks.lm import LmEval

TASKS = ("arc_easy", "piqa", "hellaswag", "sciq", "boolq", "nq_open")
LIMIT = 5
OTHERS = ("copa", "winogrande", "openbookqa", "lambada_openai", "truthfulqa_mc1", "blimp_wh_island", "asdiv")


@pytest.fixture(scope="session")
def theirs(real, stories, tmp_path_factory):
    """The samples lm-eval's command logs, by task, document and metric."""
    out, found = tmp_path_factory.mktemp("lm_eval"), {}
    command = (
        f"--model hf --tasks {','.join(TASKS)} --limit {LIMIT} --device cpu --log_samples --batch_size 1"
    )
    model = ["--model_args", f"pretrained={stories.folder},dtype=float32", "--output_path", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", *command.split(), *model],
        cwd=real / "hub", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for file in out.rglob("samples_*.jsonl"):
        name = file.name.removeprefix("samples_").rsplit("_", 1)[0]
        for line in file.read_text().splitlines():
            row = json.loads(line)
            for metric in row["metrics"]:
                found[name, row["doc_id"], metric] = float(row[metric])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_items_are_what_lm_evals_command_says(name, theirs, llama, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    items = list(LmEval(name, limit=LIMIT).run(*llama))
    expected = {key[1:]: value for key, value in theirs.items() if key[0] == name}
    ids = sorted({doc for doc, _ in expected})
    assert len(ids) == LIMIT
    metrics = {item.metric for item in items}
    assert metrics == {metric for _, metric in expected}
    for metric in metrics:
        mine = [item.score for item in items if item.metric == metric]
        assert mine == [expected[doc, metric] for doc in ids]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["copa", "winogrande", "openbookqa", "lambada_openai", "truthfulqa_mc1", "blimp_wh_island", "asdiv"],
)
def test_tasks_of_every_kind_run_from_the_data_folder(name, llama, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = LmEval(name, limit=2)
    items = list(task.run(*llama))
    assert {item.metric for item in items} == set(task.metrics())
    assert len({item.id for item in items}) == 2
    assert task.protocol() == LmEval(name, limit=2).protocol()


def test_batch_auto_is_the_same_as_any_batch(llama, hub):
    auto, one = (list(LmEval("arc_easy", limit=3, batch=b).run(*llama)) for b in ("auto", 1))
    assert [(i.id, i.metric, i.score) for i in auto] == [(i.id, i.metric, i.score) for i in one]


@pytest.mark.slow
def test_lm_evals_own_search_for_a_batch_scores_the_same(llama, hub, monkeypatch):
    expected = list(LmEval("arc_easy", limit=3).run(*llama))
    monkeypatch.setattr("tasks.lm.safe_batch", lambda model: "auto")  # what a GPU gets
    found = list(LmEval("arc_easy", limit=3).run(*llama))
    assert [(i.id, i.metric, i.score) for i in found] == [(i.id, i.metric, i.score) for i in expected]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_batch_auto_on_a_gpu_scores_as_on_the_cpu(stories, hub):
    model, tokenizer = stories.load(), stories.tokenizer()
    here = list(LmEval("arc_easy", limit=8).run(model, tokenizer))
    there = list(LmEval("arc_easy", limit=8).run(model.to("cuda"), tokenizer))
    assert [(i.id, i.metric, i.score) for i in there] == [(i.id, i.metric, i.score) for i in here]
