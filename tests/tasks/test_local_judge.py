"""The judge that is a model on this machine."""

import math

import pytest
import torch
from judged import case

from crunchmark.machine import ROOT
from tasks.kick.judge.local import LocalJudge, rating_ids, spread

NANO = ROOT / "tasks" / "nano"


class Fixed(torch.nn.Module):
    """A model whose next token depends on the last one by a table of chances."""

    def __init__(self, table, size):
        super().__init__()
        self.table, self.size = table, size
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, use_cache=False):
        logits = torch.full((1, input_ids.shape[1], self.size), -1e9)
        for token, chance in self.table[int(input_ids[0, -1])].items():
            logits[0, -1, token] = math.log(chance)
        return type("Out", (), {"logits": logits})


def test_ten_begins_with_one():
    """Tokens: 1 is said with .5 and followed by 0 with .4; 2 with .3; the rest says something else."""
    model = Fixed({0: {1: 0.5, 2: 0.3, 9: 0.2}, 1: {5: 0.4, 9: 0.6}}, 10)
    found = spread(model, [0], {1: [1], 10: [1, 5], 2: [2]})
    assert found == pytest.approx({1: 0.3, 10: 0.2, 2: 0.3})


@pytest.mark.slow
def test_a_local_judge_scores_both_orders(nano):
    judge = LocalJudge(str(NANO / "model"), mass=0.0)
    (found,) = judge.judge([case("a fox")], *nano)
    assert 1 <= found.score <= 10
    assert found.extra["judge"] == "nano"
    assert 0 < found.extra["rated_mass"] <= 1
    assert [found] == list(judge.judge([case("a fox")], *nano))
    (none,) = LocalJudge(str(NANO / "model"), mass=1.0).judge([case("a fox")], *nano)
    assert none.score is None
    assert none.extra["flags"] == ["unjudged"]
    (long,) = judge.judge([case("fox " * 600)], *nano)
    assert long.score is None


def test_ratings_have_different_tokens(nano):
    found = rating_ids(nano[1])
    assert list(found) == list(range(1, 11))
    assert len({tuple(ids) for ids in found.values()}) == 10
    assert nano[1].decode(found[10]) == " 10"


def test_a_judge_with_a_chat_template_is_asked_through_it(nano, tmp_path):
    for file in (NANO / "model").iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "chat_template.jinja").write_text("{% for m in messages %}<<{{ m.content }}>>{% endfor %}\n")
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model, self.config = model, model.config

        def forward(self, input_ids, use_cache=False):
            seen.append(nano[1].decode(input_ids[0].tolist()))
            return self.model(input_ids=input_ids, use_cache=use_cache)

    judge = LocalJudge(str(tmp_path), mass=0.0)
    found = judge._score(Spy(nano[0]), judge.spec.tokenizer(), case("a fox"), "overall")
    assert 1 <= found.score <= 10
    assert all(text.startswith("<<The input is") and text.count(">>") == 1 for text in seen)
    asked = [text for text in seen if text.endswith("1 to 10:")]
    assert [("answer 2" in text.split(">>")[1]) for text in asked] == [True, False]


@pytest.mark.parametrize(("field", "value"), [("path", ""), ("mass", 2), ("device", "gpuu")])
def test_a_local_judge_that_can_not_be_is_refused_before_anything_runs(field, value):
    with pytest.raises(ValueError, match=f"{field}={value!r}.*valid:"):
        LocalJudge(**{"path": "x", field: value})
