"""Prompts that are longer than the context: shots go first, then the left of the question."""

import pytest
from kick_files import docs

from tasks.kick.fit import Fit


class Short:
    """An lm whose context is short; its tokens are the built-in tokenizer's."""

    def __init__(self, tokenizer, length):
        self.tokenizer, self.max_length, self.max_gen_toks = tokenizer, length, 8

    def tok_encode(self, text, add_special_tokens=True):
        return self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]


@pytest.mark.parametrize("length", [200, 120, 60, 30, 14])
def test_shots_go_first_then_the_left_of_the_question(data, nano, length):
    found, task = docs("kick_mcr")
    whole = {k: task.fewshot_context(found[0], num_fewshot=k) for k in range(6)}
    fit = Fit(Short(nano[1], length))
    with fit.on(task, None):
        text = task.fewshot_context(found[0], num_fewshot=5)
        most = fit.room(task)
    assert len(nano[1](text)["input_ids"]) <= most < length
    cuts = fit.cuts[f"kick_mcr/{found[0]['id']}"]
    sizes = {k: len(nano[1](prompt)["input_ids"]) for k, prompt in whole.items()}
    if sizes[0] > most:
        assert cuts == ["fewer_shots", "truncated"]
        assert whole[0].endswith(text)
        assert text.endswith("Answer:")
    else:
        best = max(k for k, size in sizes.items() if size <= most)
        assert text == whole[best]
        assert cuts == (["fewer_shots"] if best < 5 else [])
    assert task.fewshot_context(found[0], num_fewshot=5) == whole[5], "outside, nothing is changed"


def test_the_released_context_is_2048_however_much_the_model_takes(data, nano):
    _, task = docs("kick_code_mcr")
    assert Fit(Short(nano[1], 4096)).room(task) == 2048
    assert Fit(Short(nano[1], 100)).room(task) == 99  # one new token


def test_what_does_not_fit_at_all_is_refused(data, nano):
    _, task = docs("kick_mcr")
    with (
        pytest.raises(ValueError, match=r"leaves no room for a prompt; valid: fewer new tokens .* of 5$"),
        Fit(Short(nano[1], 5)).on(task, None),
    ):
        pass
