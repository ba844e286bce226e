"""Talks of one and two turns: what is asked, what is too long, and what is scored."""

import math

import pytest
import torch
from refusals import refused
from transformers import AutoModelForCausalLM

from crunchmark.evaluate import rows
from crunchmark.machine import ROOT
from tasks.kick.generate import Decode, prompt_ids
from tasks.kick.judge import Judge, Score
from tasks.kick.judge.base import question
from tasks.kick.judge.proxies import Proxies
from tasks.nano.talks import NanoInstructions, NanoSummaries

NANO = ROOT / "tasks" / "nano"


class Recorder(Judge):
    """Keeps the cases it is given."""

    def __init__(self):
        self.cases = []

    def protocol(self):
        return {"judge": "recorder"}

    def metrics(self, kind, gold=False, facts=False):
        return Proxies().metrics(kind, gold, facts)

    def judge(self, cases, model, tokenizer):
        self.cases += cases
        yield from Proxies().judge(cases, model, tokenizer)


@pytest.mark.slow
def test_the_second_prompt_holds_the_models_own_first_answer(nano, tmp_path):
    recorder = Recorder()
    task = NanoInstructions("nano_instruct", limit=5, judge=recorder)
    task.remember(*nano, tmp_path)
    items = list(task.beside(*nano, tmp_path))
    for talk, case in zip(task.talks, recorder.cases, strict=True):
        first, second = (nano[1].decode(list(prompt)) for prompt, _ in case.turns)
        assert first == talk.turns[0]
        assert second == f"{talk.turns[0]} {talk.expected[0]}\n{talk.turns[1]}"
        assert case.reference == tuple(f" {answer}" for answer in talk.expected)
        assert f"Turn 1: {talk.expected[0]}\n\nTurn 2: {talk.expected[1]}" in question(case, True)
    table = {row["metric"]: row for row in rows("t", task.protocol(), items, task.metrics(), items)}
    assert next(iter(table)) == "both_right"
    assert table["both_right"]["value"] == 1.0
    assert table["agree_exact"]["value"] == table["rouge_l"]["value"] == 1.0
    assert table["agree_exact"]["state"] == "measured"
    assert table["answer_ppl"]["kind"] == "exp"


@pytest.mark.slow
def test_a_broken_model_is_wrong_in_both_turns(nano, tmp_path):
    task = NanoInstructions("nano_instruct", limit=4)
    task.remember(*nano, tmp_path)
    broken = AutoModelForCausalLM.from_pretrained(NANO / "model", dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in broken.parameters():
            weight.zero_()
    items = list(task.beside(broken, nano[1], tmp_path))
    score = {(i.metric, i.id): i.score for i in items}
    assert {score[m, i.id] for i in items for m in ("both_right", "turn_1", "turn_2")} == {0.0}
    ppl = [math.exp(i.score) for i in items if i.metric == "answer_ppl"]
    assert ppl == pytest.approx([len(nano[1])] * 4)  # every token is as likely as any other


@pytest.mark.slow
@pytest.mark.parametrize("bucket", ["summ_s", "summ_m", "summ_l"])
def test_dense_is_good_at_every_length(nano, tmp_path, bucket):
    task = NanoSummaries("x", data=bucket, limit=4)
    items = [i for i in task.run(*nano) if i.metric == "covered"]
    assert sum(i.score for i in items) / len(items) >= 0.8
    assert all(i.extra["prompt_tokens"] >= 64 for i in items)


@pytest.mark.slow
def test_the_guard_counts_what_does_not_fit(nano, tmp_path):
    """A budget that leaves room for some of the prompts, and one that leaves none."""
    talks = NanoSummaries("x", data="summ_l", limit=6).talks
    lengths = sorted(len(prompt_ids(nano[1], list(t.turns), "raw")) for t in talks)
    decode = Decode(max_new_tokens=512 - lengths[2], stop=["\n"])
    task = NanoSummaries("x", data="summ_l", limit=6, decode=decode)
    fit = sum(length <= lengths[2] for length in lengths)
    assert 3 <= fit < 6
    (row, *_) = rows("x", "p", list(task.run(*nano)), task.metrics(), None)
    assert row["n"] == fit
    assert row["coverage"] == pytest.approx(fit / 6)
    assert row["flags"] == {"too_long": 6 - fit}
    none = NanoSummaries("x", data="summ_l", limit=2, decode=Decode(max_new_tokens=512))
    refused(lambda: list(none.run(*nano)), "none of 2 items fits", "max_new_tokens=512")


def test_the_protocol_follows_questions_decoding_and_judge():
    task = NanoSummaries("x", limit=3)
    others = [
        NanoSummaries("x", limit=4),
        NanoSummaries("x", limit=3, decode=Decode(max_new_tokens=41, stop=["\n"])),
        NanoSummaries("x", limit=3, judge=Recorder()),
        NanoSummaries("x", limit=3, data="summ_m"),
    ]
    assert task.protocol() == NanoSummaries("y", limit=3, batch=2).protocol()
    assert len({task.protocol(), *(other.protocol() for other in others)}) == 5


def test_a_judges_score_is_the_headline_and_missing_ones_are_counted(nano, tmp_path):
    class Half(Recorder):
        def metrics(self, kind, gold=False, facts=False):
            from tasks.kick.judge.base import rated

            return rated(kind)

        def judge(self, cases, model, tokenizer):
            for place, one in enumerate(cases):
                missing = place % 2 == 1
                yield Score(one.id, "judge_overall", None if missing else 8.0)

    task = NanoInstructions("x", limit=4, judge=Half())
    table = {row["metric"]: row for row in rows("x", "p", list(task.run(*nano)), task.metrics(), None)}
    assert list(table)[:4] == ["both_right", "turn_1", "turn_2", "judge_overall"]
    assert table["judge_overall"]["value"] == 8.0
    assert table["judge_overall"]["coverage"] == 0.5
    assert table["rouge_l"]["coverage"] == 1.0


@pytest.mark.parametrize("broken", ["{", None])
def test_answers_of_the_parent_that_are_damaged_or_gone_are_no_missing_references(nano, tmp_path, broken):
    task = NanoInstructions(name="nano_instruct", limit=1)
    if broken is not None:
        (tmp_path / "answers.json").write_text(broken)
    with pytest.raises(ValueError, match=r"answers\.json is damaged .* delete "):
        list(task.beside(*nano, tmp_path))
