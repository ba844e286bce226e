"""What is wrong with an evaluation set is one line; what is cut, empty or not scored is counted."""

import math

import pytest

from crunchmark.evaluate import rows
from crunchmark.task import Item, Metric
from tasks.lm import LmEval, score
from tasks.samples import truncated

pytestmark = pytest.mark.slow

NANO = "tasks/nano/lm"
YAML = """
task: own
custom_dataset: !function code.data
test_split: test
output_type: {kind}
doc_to_text: "{{{{{text}}}}}"
doc_to_target: "{{{{a}}}}"
{more}
"""


def own(folder, rows, kind="generate_until", text="q", more="", code=""):
    (folder / "code.py").write_text(
        "from datasets import Dataset\n"
        f"def data(**_):\n    return {{'test': Dataset.from_list({rows})}}\n{code}"
    )
    (folder / "own.yaml").write_text(YAML.format(kind=kind, text=text, more=more))
    return LmEval("own", include=str(folder))


MARK = "def mark(doc, results):\n    return {'m': %s}\n"
SCORED = (
    "process_results: !function code.mark\ngeneration_kwargs: {until: ['.'], max_gen_toks: 2}\n"
    "metric_list: [{metric: m, aggregation: %s, higher_is_better: true}]\n"
)


def test_a_missing_column_of_the_prompt_names_task_column_and_what_there_is(tmp_path):
    task = own(tmp_path, [{"id": 1, "question": "x", "a": "y"}])
    with pytest.raises(
        ValueError, match=r"^own: the evaluation set has no column 'q'; it has: id, question, a$"
    ):
        task.protocol()


def test_a_missing_column_of_the_score_names_it_too(nano, tmp_path):
    code = MARK % "float(doc['gold'] == 'x')"
    task = own(tmp_path, [{"id": 1, "q": "x", "a": "y"}], more=SCORED % "mean", code=code)
    with pytest.raises(ValueError, match=r"^own: the evaluation set has no column 'gold'; it has: id, q, a$"):
        list(task.run(*nano))


@pytest.mark.parametrize(("wrong", "key"), [("{}['q']", "q"), ("{}[doc['a']]", "y"), ("{}[3]", "3")])
def test_another_key_error_is_not_taken_for_a_column(wrong, key, nano, tmp_path):
    code = MARK % wrong
    task = own(tmp_path, [{"id": 1, "q": "x", "a": "y"}], more=SCORED % "mean", code=code)
    with pytest.raises(KeyError, match=key):
        list(task.run(*nano))


def test_a_missing_field_inside_a_column(tmp_path):
    task = own(tmp_path, [{"id": 1, "q": {"x": "y"}, "a": "y"}], text="q.text")
    with pytest.raises(ValueError, match=r"^own: the evaluation set has no column 'text'; it has: id, q, a$"):
        task.protocol()


def test_duplicate_ids_name_the_id(nano, tmp_path):
    code = MARK % "1.0"
    twice = [{"id": "a", "q": "x", "a": "y"}] * 2
    with pytest.raises(ValueError, match=r"^own: two samples have the id 'own/a'$"):
        list(own(tmp_path, twice, more=SCORED % "mean", code=code).run(*nano))


def flags(task, nano):
    items = list(task.run(*nano))
    row = rows("own", task.protocol(), items, task.metrics(), None)[0]
    return [item.extra.get("flags") for item in items], row


def test_a_prompt_beyond_the_context_is_flagged_and_counted(nano, tmp_path):
    fits, beyond = "word " * 100, "word " * 600
    asked = [{"id": i, "q": text, "a": "y"} for i, text in enumerate((fits, beyond, "short"))]
    task = own(tmp_path, asked, more=SCORED % "mean", code=MARK % "1.0")
    found, row = flags(task, nano)
    assert found == [None, ["truncated"], None]
    assert row["flags"] == {"truncated": 1}
    assert row["n"] == 3


def test_the_edge_of_the_context_is_exact(nano, tmp_path):
    model, tokenizer = nano
    word, most = " word", model.config.max_position_embeddings - 2
    each = len(tokenizer(word * 2)["input_ids"]) - len(tokenizer(word)["input_ids"])
    fits = next(n for n in range(most, 0, -1) if len(tokenizer(word * n)["input_ids"]) <= most)
    assert each >= 1
    texts = [word * fits, word * (fits + 1)]
    asked = [{"id": i, "q": text, "a": "y"} for i, text in enumerate(texts)]
    found, _ = flags(own(tmp_path, asked, more=SCORED % "mean", code=MARK % "1.0"), nano)
    assert found == [None, ["truncated"]]


def test_choices_beyond_the_context_are_flagged(nano, tmp_path):
    asked = [{"id": i, "q": text, "a": 0} for i, text in enumerate(("short", "word " * 600))]
    more = 'doc_to_choice: ["x", "y"]\n'
    task = own(tmp_path, asked, kind="multiple_choice", more=more)
    (tmp_path / "own.yaml").write_text((tmp_path / "own.yaml").read_text().replace('"{{a}}"', "a"))
    found, row = flags(task, nano)
    assert found[:2] == [None, None]
    assert found[-1] == ["truncated"]
    assert row["flags"] == {"truncated": 1}


def test_what_is_cut_is_what_is_longer_than_the_room(nano):
    class Lm:
        max_length, max_gen_toks = 40, 8

        def tok_encode(self, text):
            return nano[1](text)["input_ids"]

    lm, seen = Lm(), set()
    for count in range(60):
        text = " word" * count
        length = len(lm.tok_encode(text))
        assert truncated(lm, {"arguments": [(text, {"max_gen_toks": 8})]}) == (length > 32)
        both = max(len(lm.tok_encode(text + more)) for more in (" a", " word word"))
        found = truncated(lm, {"arguments": [(text, " a"), (text, " word word")]})
        assert found == (both > 41)
        seen.add(found)
        assert not truncated(lm, {"arguments": [(text,)]})
    assert seen == {False, True}


def test_windows_over_a_long_text_cut_nothing(nano, tmp_path):
    more = (
        "metric_list: [{metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}]"
    )
    task = own(tmp_path, [{"id": 1, "q": "", "a": "word " * 900}], kind="loglikelihood_rolling", more=more)
    (tmp_path / "own.yaml").write_text((tmp_path / "own.yaml").read_text().replace('"{{q}}"', '""'))
    found, row = flags(task, nano)
    assert found == [None]
    assert row["flags"] == {}


def test_a_sample_that_nanmean_leaves_out_has_no_score(nano, tmp_path):
    assert score(math.nan, "nanmean") == (None, 1.0, "mean")
    assert score(0.5, "nanmean") == (0.5, 1.0, "mean")
    assert math.isnan(score(math.nan, "mean")[0])
    code = MARK % "float('nan') if doc['id'] == 1 else 1.0"
    asked = [{"id": i, "q": "x", "a": "y"} for i in range(4)]
    _, row = flags(own(tmp_path, asked, more=SCORED % "nanmean", code=code), nano)
    assert (row["n"], row["value"], row["coverage"]) == (3, 1.0, 0.75)


def test_empty_answers_are_counted_from_what_was_said():
    said = ["", " \n", "x", 0, None]
    items = [Item(f"q/{i}", "m", 0.0, extra={"prediction": one}) for i, one in enumerate(said)]
    items.append(Item("q/9", "m", 0.0, extra={"prediction": "", "flags": ["truncated"]}))
    items.append(Item("q/10", "m", 0.0))
    row = rows("t", "p", items, {"m": Metric("m")}, None)[0]
    assert row["flags"] == {"empty": 3, "truncated": 1}


def test_one_task_of_lm_eval_under_two_names(tmp_path):
    k1 = LmEval("nano_mcr_k1", task="nano_mcr_shots", include=NANO, num_fewshot=1, limit=4)
    k2 = LmEval("nano_mcr_k2", task="nano_mcr_shots", include=NANO, num_fewshot=2, limit=4)
    assert k1.protocol() != k2.protocol()
    with pytest.raises(ValueError, match="no task 'nano_mcrr'"):
        LmEval("x", task="nano_mcrr", include=NANO).protocol()


def test_no_question_is_its_own_example():
    (task,) = LmEval("k4", task="nano_mcr_shots", include=NANO, num_fewshot=4).tasks.values()
    task.set_fewshot_seed(0)
    for doc in list(task.eval_docs)[:60]:
        assert task.fewshot_context(doc, num_fewshot=4).count(doc["prompt"]) == 1
