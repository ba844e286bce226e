import os
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from hydra.utils import instantiate
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from crunchmark.evaluate import aggregate, rows
from crunchmark.machine import ROOT
from tasks.common import safe_batch
from tasks.index import known, lm_eval_home
from tasks.lm import LmEval
from tasks.samples import question, score

pytestmark = pytest.mark.slow

NANO = "tasks/nano/lm"
HUB = Path(os.environ.get("CRUNCHMARK_DATA", ROOT.parent / "shared" / "data" / "hub"))
CONFIG = """
defaults: [_self_, {task: kick_nano}]
limit: 4
batch: 2
device: cpu
hydra: {searchpath: ["file://%s", "lmeval://any"]}
"""


@pytest.fixture
def hub(monkeypatch):
    if not HUB.is_dir():
        pytest.skip(f"no data sets at {HUB}; set CRUNCHMARK_DATA")
    monkeypatch.chdir(HUB)


def test_items_of_a_group_are_lm_evals_own_scores(nano, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    task = LmEval("kick_nano", include=NANO, limit=8)
    items = list(task.run(*nano))
    manager = TaskManager(include_path=str(ROOT / NANO), include_defaults=False)
    lm = HFLM(pretrained=nano[0], tokenizer=nano[1], batch_size=64)
    theirs = simple_evaluate(lm, tasks=["kick_nano"], task_manager=manager, limit=8, bootstrap_iters=0)
    for name, result in theirs["results"].items():
        mine = [item for item in items if item.id.startswith(name + "/")]
        if mine:
            assert len(mine) == 8
            metric = mine[0].metric
            assert sum(i.score for i in mine) / 8 == pytest.approx(result[f"{metric},none"])
    assert len({item.id for item in items}) == 48


def test_ids_extra_and_metrics(nano):
    task = LmEval("nano_needle", include=NANO, limit=8)
    items = list(task.run(*nano))
    assert [item.id for item in items] == [f"nano_needle/needle-{10 * i:04d}" for i in range(8)]
    assert set(items[0].extra) == {"question", "prediction", "target", "depth", "length"}
    metric = task.metrics()["exact_match"]
    assert (metric.kind, metric.higher_is_better, metric.chance) == ("mean", True, pytest.approx(0.0333))
    row = rows("nano_needle", task.protocol(), items, task.metrics(), None)[0]
    assert (row["n"], row["headline"], row["state"]) == (8, True, "dense")


def test_the_question_is_the_end_of_the_prompt(nano):
    items = list(LmEval("nano_factoid", include=NANO, limit=2, num_fewshot=2).run(*nano))
    assert items[0].extra["question"] == "Question: When was Tulla Jerley born? Answer:"
    long = question({"arguments": [("Question: one\n\nPassage: " + "so " * 200 + "\nWho?\n\n", "me")]})
    assert (len(long), long[0], long[-4:]) == (240, "…", "Who?")
    assert question({"arguments": [("a text that is scored itself",)]}) == ""


def test_running_twice_gives_the_same_items(nano):
    task = LmEval("nano_factoid", include=NANO, limit=8, num_fewshot=2)
    assert list(task.run(*nano)) == list(task.run(*nano))


def test_protocol_knows_what_decides_the_numbers_and_nothing_else(tmp_path):
    base = LmEval("nano_factoid", include=NANO, limit=8).protocol()
    assert len(base) == 16
    assert LmEval("nano_factoid", include=str(ROOT / NANO), limit=8, batch=3, seed=5).protocol() == base
    shots = LmEval("nano_factoid", include=NANO, limit=8, num_fewshot=1)
    others = {
        LmEval("nano_factoid", include=NANO, limit=9).protocol(),
        LmEval("nano_mcr", include=NANO, limit=8).protocol(),
        shots.protocol(),
        LmEval("nano_factoid", include=NANO, limit=8, num_fewshot=1, seed=5).protocol(),
    }
    assert len(others | {base}) == 5


def own(tmp_path, rows="[{'id': 'a', 'q': 'x'}, {'id': 'b', 'q': 'y'}]", more=""):
    (tmp_path / "code.py").write_text(
        "from datasets import Dataset\n"
        f"def data(**_):\n    return {{'test': Dataset.from_list({rows})}}\n"
        "def mark(doc, results):\n    return {'exact_match': 1.0, 'f1': (1, 1)}\n" + more
    )
    (tmp_path / "own.yaml").write_text(
        "task: own\ncustom_dataset: !function code.data\ntest_split: test\noutput_type: generate_until\n"
        "doc_to_text: '{{q}}'\ndoc_to_target: '{{q}}'\nprocess_results: !function code.mark\n"
        "generation_kwargs: {until: ['.'], max_gen_toks: 2}\n"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true},"
        " {metric: f1, aggregation: f1, higher_is_better: true}]\n"
    )
    return LmEval("own", include=str(tmp_path))


def test_protocol_changes_with_the_data_and_with_the_matchers_file(tmp_path):
    folders = [tmp_path / name for name in ("one", "two", "three", "same")]
    for folder in folders:
        folder.mkdir()
    one = own(folders[0]).protocol()
    assert own(folders[1], rows="[{'id': 'a', 'q': 'z'}]").protocol() != one
    assert own(folders[2], more="HELPER = 1\n").protocol() != one
    assert own(folders[3]).protocol() == one


def test_duplicate_ids_are_refused_and_what_is_no_number_is_passed_over(nano, tmp_path):
    (tmp_path / "twice").mkdir()
    with pytest.raises(ValueError, match="two samples have the id 'own/a'"):
        list(own(tmp_path / "twice", rows="[{'id': 'a', 'q': 'x'}, {'id': 'a', 'q': 'y'}]").run(*nano))
    (tmp_path / "fine").mkdir()
    task = own(tmp_path / "fine")
    assert {item.metric for item in task.run(*nano)} == set(task.metrics()) == {"exact_match"}
    assert task.metrics()["exact_match"].chance is None


def test_corpus_metrics_become_scores_with_weights():
    assert score((-10.0, 4), "weighted_perplexity") == (2.5, 4.0, "exp")
    value, weight, kind = score((-10.0, 4), "bits_per_byte")
    assert (value, weight, kind) == (pytest.approx(3.6067376), 4.0, "mean")
    assert score(-2.0, "perplexity") == (2.0, 1.0, "exp")
    assert score(True, "mean") == (1.0, 1.0, "mean")
    assert score((0, 1), "f1") is None
    assert score(999, "bypass") is None


def test_unknown_names_say_what_is_near():
    with pytest.raises(ValueError, match=r"no task 'arc_esy' in lm-eval .*; nearest: .*arc_easy"):
        LmEval("arc_esy").protocol()
    with pytest.raises(ValueError, match=r"'nano_factoids'.*nearest: nano_factoid"):
        LmEval("nano_factoids", include=NANO).protocol()


def test_a_data_set_that_is_not_here_is_one_line_with_its_name(monkeypatch, tmp_path):
    import datasets

    def offline(*_, **__):
        raise ConnectionError("Couldn't reach it on the Hub\nmore")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(FileNotFoundError) as caught:
        LmEval("arc_easy").protocol()
    text = str(caught.value)
    assert text.startswith("arc_easy: data set 'allenai/ai2_arc' (ARC-Easy)")
    assert text.endswith("Couldn't reach it on the Hub")


def test_arc_easy_has_the_chance_of_its_choices(nano, hub):
    task = LmEval("arc_easy", limit=4)
    items = list(task.run(*nano))
    assert list(task.metrics()) == ["acc", "acc_norm"]
    assert task.metrics()["acc"].chance == pytest.approx(0.25, abs=0.06)
    assert len(items) == 8
    assert items[0].extra["prediction"] in range(5)


def test_wikitext_aggregates_to_what_lm_eval_says(nano, hub):
    task = LmEval("wikitext", limit=2)
    items = list(task.run(*nano))
    found = aggregate(items, task.metrics())
    assert next(iter(found)) == "word_perplexity"
    lm = HFLM(pretrained=nano[0], tokenizer=nano[1], batch_size=1)
    theirs = simple_evaluate(
        lm,
        tasks=list(task.tasks.values()),
        limit=2,
        bootstrap_iters=0,
        task_manager=TaskManager(include_defaults=False),
    )
    for name in ("word_perplexity", "byte_perplexity", "bits_per_byte"):
        assert found[name].value == pytest.approx(theirs["results"]["wikitext"][f"{name},none"], rel=1e-4)
        assert not task.metrics()[name].higher_is_better


def test_several_filters_make_several_metrics(nano, hub):
    task = LmEval("gsm8k", limit=2, num_fewshot=1)
    items = list(task.run(*nano))
    assert list(task.metrics()) == ["exact_match,strict-match", "exact_match,flexible-extract"]
    assert len(items) == 4


def test_the_index_holds_lm_evals_names_and_real_files():
    names = known()
    assert {"arc_easy", "mmlu", "hellaswag"} <= set(names)
    assert names["mmlu"]["kind"] == "GROUP"
    assert (lm_eval_home() / names["arc_easy"]["yaml"]).is_file()


def test_batch_fits_the_logits(nano):
    model = nano[0]
    assert safe_batch(model) == 64
    assert safe_batch(model, 2**20) == 1
    assert safe_batch(model, 2**29 // (4 * model.config.vocab_size) // 3) == 3


@pytest.fixture
def composed(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG % (ROOT / "conf"))
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        yield lambda *overrides: compose("config", overrides=list(overrides))


def test_hydra_knows_files_and_any_lm_eval_name(composed):
    cfg = composed("task=[nano_factoid,arc_easy,ppl_nano]")
    assert list(cfg.task) == ["nano_factoid", "arc_easy", "ppl_nano"]
    made = {name: instantiate(spec) for name, spec in cfg.task.items()}
    assert made["arc_easy"] == LmEval("arc_easy", limit=4, batch=2)
    assert made["nano_factoid"].include == NANO
    assert made["ppl_nano"].window == 256


def test_every_task_file_instantiates(composed):
    for file in sorted((ROOT / "conf" / "task").glob("*.yaml")):
        for name, spec in composed(f"task={file.stem}").task.items():
            theirs = {"path": "text.txt"} if spec.get("path", "") is None and not spec.get("dataset") else {}
            assert instantiate(spec, **theirs).name == name


def test_hydra_names_the_nearest_tasks(composed):
    with pytest.raises(
        ConfigCompositionException,
        match=r"task='hellaswagg' is unknown; nearest: hellaswag.*valid: .*kick_nano",
    ):
        composed("task=hellaswagg")


@pytest.mark.parametrize("value", [0, -1, 0.5, "many", True])
def test_limit_and_batch_are_whole_numbers(value):
    with pytest.raises(ValueError, match=rf"^limit={value!r} is out of range; valid: a whole number >= 1$"):
        LmEval("arc_easy", limit=value)
    with pytest.raises(ValueError, match=rf"^batch={value!r} is out of range; valid: a whole number >= 1$"):
        LmEval("arc_easy", batch=value)


def test_what_a_task_needs_installed_is_one_line(monkeypatch):
    def load(self, names):
        raise ModuleNotFoundError("install jieba\nmore")

    monkeypatch.setattr(TaskManager, "load", load)
    with pytest.raises(FileNotFoundError, match=r"^arc_easy: lm-eval can not load this task: install jieba$"):
        LmEval("arc_easy").protocol()


def test_documents_a_task_shuffles_are_the_same_each_time(tmp_path):
    def shuffled(folder):
        folder.mkdir()
        (folder / "more.py").write_text("")
        rows = "__import__('random').sample([{'id': str(k), 'q': str(k)} for k in range(50)], 50)"
        return own(folder, rows=rows)

    first, second = shuffled(tmp_path / "a"), shuffled(tmp_path / "b")
    assert first.protocol() == second.protocol()
