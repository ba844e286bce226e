"""What is told of an answer where no judge is asked."""

import pytest
import torch
from judged import case

from tasks.kick.judge.proxies import Proxies, answer_losses, covered, f1, repetition, rouge_l, told


def test_proxies_by_hand():
    assert f1(["a", "b", "b", "c"], ["b", "b", "d"]) == pytest.approx(2 * 2 / 7)
    assert f1([], []) == 1.0
    assert f1([], ["a"]) == 0.0
    assert repetition(["a", "b", "c", "d", "a", "b", "c", "d"]) == pytest.approx(1 - 4 / 5)
    assert repetition(["a"]) == 0.0
    assert covered(["New York", "1920"], "born in new york, not 19201.") == 0.5
    assert covered(["York"], "") == 0.0
    assert rouge_l("the cat sat on the mat", "the cat on a mat") == pytest.approx(8 / 11)
    assert rouge_l("the cat", "") == 0.0
    found = told(case("The quick, brown FOX!", ids=(1, 2, 1, 2)))
    assert found == {
        "agree_f1": 1.0, "agree_exact": 1.0, "repetition": 0.0,
        "distinct": 2.0, "distinct_2": 2 / 3, "length": 4.0,
    }  # fmt: skip
    assert told(case())["agree_f1"] == 0.0


def test_an_empty_dense_answer_has_no_perplexity(nano):
    found = {s.metric: s for s in Proxies().judge([case(turns=(((1, 2), ()),))], *nano)}
    assert found["answer_ppl"].score is None
    talks = [(((5, 6), (7, 8)), ((9,), (4,))), (((5,), ()),), (((9, 9, 9, 9), (4, 5, 6)),)]
    (loss, tokens), none, _ = answer_losses(nano[0], talks)
    assert none == (0.0, 0)
    by_hand = 0.0
    for ids, start in (([5, 6, 7, 8], 2), ([9, 4], 1)):
        logits = nano[0](torch.tensor([ids])).logits[0].log_softmax(-1)
        by_hand -= sum(float(logits[i - 1, ids[i]].detach()) for i in range(start, len(ids)))
    assert tokens == 3
    assert loss == pytest.approx(by_hand, rel=1e-5)
