import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crunchmark.evaluate import aggregate
from crunchmark.machine import ROOT
from tasks.ppl import Perplexity
from tasks.windows import spans

NANO = ROOT / "tasks" / "nano"
TEXT = "Passage: The quiet boat waited near the narrow clock. " * 12


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return str(path)


@torch.no_grad()
def perplexity(model, ids, window=256):
    """Perplexity over full windows without overlap and the tokens predicted, written apart from ours."""
    blocks = torch.tensor(ids[: len(ids) // window * window]).view(-1, window)
    losses = [
        torch.nn.functional.cross_entropy(
            model(input_ids=row[None]).logits[0, :-1], row[1:], reduction="none"
        )
        for row in blocks
    ]
    return math.exp(torch.cat(losses).double().mean()), blocks.shape[0] * (window - 1)


def value(task, nano, metric="perplexity"):
    return aggregate(task.run(*nano), task.metrics())[metric].value


@pytest.mark.slow
def test_full_windows_give_what_another_implementation_gives(nano):
    task = Perplexity(path="tasks/nano/data/ppl.txt", window=256, limit=62)
    ids = nano[1].encode((NANO / "data" / "ppl.txt").read_text(), add_special_tokens=False)
    expected, tokens = perplexity(nano[0], ids)
    found = list(task.run(*nano))
    assert sum(item.weight for item in found) == tokens
    assert aggregate(found, task.metrics())["perplexity"].value == pytest.approx(expected, rel=1e-5)


def test_one_window_by_hand(nano, text):
    ids = torch.tensor([nano[1].encode(TEXT, add_special_tokens=False)])[:, :40]
    with torch.no_grad():
        logs = nano[0](ids).logits[0].log_softmax(-1)
    expected = -sum(float(logs[i, ids[0, i + 1]]) for i in range(39)) / 39
    (item,) = Perplexity(path=text, window=40, limit=1).run(*nano)
    assert (item.score, item.weight) == (pytest.approx(expected, rel=1e-5), 39)


def test_stride_predicts_with_context_what_no_stride_predicts_without(nano, text):
    plain, sliding = Perplexity(path=text, window=32), Perplexity(path=text, window=32, stride=8)
    total = len(nano[1].encode(TEXT, add_special_tokens=False))
    assert sum(i.weight for i in sliding.run(*nano)) == total - 1
    assert value(sliding, nano) < value(plain, nano)


def test_batch_does_not_change_the_result(nano, text):
    one = [i.score for i in Perplexity(path=text, window=32, batch=1).run(*nano)]
    many = [i.score for i in Perplexity(path=text, window=32, batch=7).run(*nano)]
    assert one == pytest.approx(many, rel=1e-5)


def test_the_last_short_window_counts(nano, text):
    found = list(Perplexity(path=text, window=50).run(*nano))
    total = found[0].extra["text_tokens"]
    assert total % 50 > 1
    assert found[-1].weight == total % 50 - 1
    assert found[-1].extra["end"] == total


def test_bos_adds_one_token_at_the_start_and_only_there(nano, text):
    assert nano[1].bos_token_id is not None
    without, with_it = (list(Perplexity(path=text, window=50, bos=b).run(*nano)) for b in (False, True))
    assert with_it[0].extra["text_tokens"] == without[0].extra["text_tokens"] + 1


def test_words_share_the_same_total_of_nats(nano, text):
    task = Perplexity(path=text, window=50, words=True)
    found = aggregate(list(task.run(*nano)), task.metrics())
    items = [i for i in task.run(*nano) if i.metric == "perplexity"]
    nats = sum(i.score * i.weight for i in items)
    assert found["word_perplexity"].value == pytest.approx(math.exp(nats / len(TEXT.split())))


def test_a_window_beyond_the_context_is_refused_with_both_numbers(nano, text):
    with pytest.raises(ValueError, match=r"ppl\.window=513 > the model's context; valid: 2 to 512"):
        next(Perplexity(path=text, window=513).run(*nano))


def test_each_part_of_the_protocol_changes_the_id(text, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(TEXT + ".")
    changes = [
        {},
        {"window": 33},
        {"stride": 16},
        {"bos": True},
        {"limit": 2},
        {"path": str(other)},
        {"words": True},
    ]
    ids = {Perplexity(**({"path": text, "window": 32} | change)).protocol() for change in changes}
    assert len(ids) == len(changes)
    assert Perplexity(path=text, window=32, stride=32).protocol() in ids  # the same as no stride
    assert Perplexity(path=text, window=32, batch=3, name="x").protocol() in ids


def test_jsonl_rows_are_joined(tmp_path, text):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"t": part}) for part in ("one\u2028", "two", "")) + "\n")
    task = Perplexity(path=str(path), field="t", window=32)
    assert task.text == "one\u2028\n\ntwo\n\n"
    assert task.protocol() != Perplexity(path=str(path), field="t", window=32, join="").protocol()


def test_bad_settings_and_missing_texts_say_so(nano, text, tmp_path):
    for wrong in ({}, {"path": text, "dataset": "x"}, {"path": text, "window": 8, "stride": 9}):
        with pytest.raises(ValueError, match=r"ppl\..*valid: "):
            Perplexity(**wrong)
    with pytest.raises(ValueError, match=r"no text at .*absent\.txt"):
        Perplexity(path=str(tmp_path / "absent.txt")).protocol()
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(ValueError, match="0 tokens are too few"):
        next(Perplexity(path=str(tmp_path / "empty.txt"), window=8).run(*nano))


def test_a_data_set_that_is_not_here_is_named(monkeypatch):
    import datasets

    def offline(*_, **__):
        raise ConnectionError("Couldn't reach it\nmore lines")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(ValueError, match=r"'Salesforce/wikitext' \(raw\) split 'test'.*Couldn't reach it$"):
        Perplexity(dataset="Salesforce/wikitext", config="raw").protocol()


def test_wikitext2_runs_from_the_stored_data_set(monkeypatch):
    hub = Path(ROOT.parent / "shared" / "data" / "hub")
    if not hub.is_dir():
        pytest.skip("no ../shared/data/hub here")
    monkeypatch.chdir(hub)
    task = Perplexity(dataset="Salesforce/wikitext", config="wikitext-2-raw-v1")
    assert len(task.text.split()) > 200_000


def test_a_model_without_a_stated_context_is_not_refused(nano, text, monkeypatch):
    monkeypatch.setattr("tasks.windows.context", lambda model: None)
    assert value(Perplexity(path=text, window=520, batch=1), nano) > 1


@given(st.integers(0, 200), st.integers(2, 40), st.integers(1, 40))
def test_no_token_is_predicted_twice_and_none_is_lost(tokens, window, stride):
    stride = min(stride, window)
    found = spans(tokens, window, stride)
    predicted = [t for begin, end, count in found for t in range(end - count, end)]
    assert len(predicted) == len(set(predicted))
    assert all(count <= end - begin - 1 and end - begin <= window for begin, end, count in found)
    if stride < window:
        assert predicted == list(range(1, tokens))
    else:
        assert sorted(set(range(tokens)) - set(predicted)) == list(range(0, tokens, window))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"limit": 0}, "limit=0 is out of range"),
        ({"limit": "few"}, "limit='few' is out of range"),
        ({"batch": 0}, "batch=0 is out of range"),
        ({"window": 1}, "mine.window=1 is out of range; valid: a whole number >= 2"),
        ({"window": "wide"}, "mine.window='wide'"),
        ({"stride": 0}, "mine.stride=0 is out of range"),
        ({"window": 8, "stride": 9}, "mine.stride=9 is out of range; valid: 1 to 8"),
        ({"path": None}, "mine.path=None, mine.dataset=None; valid: one of them"),
    ],
)
def test_each_wrong_setting_is_one_line(text, wrong):
    with pytest.raises(ValueError) as e:  # noqa: PT011
        Perplexity(**({"name": "mine", "path": "x.txt"} | wrong))
    assert str(e.value).startswith(text)
    assert "\n" not in str(e.value)


def test_texts_that_can_not_be_read_are_one_line(tmp_path):
    def message(name, content, **options):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError) as e:  # noqa: PT011
            Perplexity(path=str(tmp_path / name), **options).protocol()
        assert "\n" not in str(e.value)
        return str(e.value)

    assert "a.txt' is no utf-8 text" in message("a.txt", b"\xff\xfe\x00")
    assert "b.jsonl:2 is no JSON" in message("b.jsonl", b'{"text": "x"}\n{')
    assert "c.jsonl:1 has no text field 'body'; valid: text" in message(
        "c.jsonl", b'{"text": "x"}', field="body"
    )
    with pytest.raises(ValueError, match="no text at"):
        Perplexity(path=str(tmp_path)).protocol()


def test_a_path_is_the_projects_or_relative_to_where_one_stands(tmp_path, monkeypatch):
    (tmp_path / "mine.txt").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    assert Perplexity(path="mine.txt").text == TEXT
    shipped = "tasks/nano/data/ppl.txt"
    assert Perplexity(path=shipped).protocol() == Perplexity(path=str(ROOT / shipped)).protocol()
