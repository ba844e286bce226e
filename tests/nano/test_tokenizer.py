from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tasks.nano import items, tokenizer
from tasks.nano.world import RELATIONS, known_people


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    return AutoTokenizer.from_pretrained(folder)


def ids(tok, text):
    return tok.encode(text, add_special_tokens=False)


def test_shipped_tokenizer_is_the_built_one(loaded):
    shipped = AutoTokenizer.from_pretrained(Path(tokenizer.__file__).parent / "model")
    assert shipped.get_vocab() == loaded.get_vocab()
    assert len(loaded) <= 2048
    assert len(loaded) % 64 == 0


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_comes_back(text):
    tok = tokenizer.encoder().slow
    text = text.encode("utf-8", "ignore").decode()
    if not any(special in text for special in tok.all_special_tokens):
        assert tok.decode(ids(tok, text)) == text


def test_world_text_comes_back_and_fast_equals_slow(loaded):
    text = items.prose("test", 3000)
    assert loaded.decode(ids(loaded, text)) == text
    assert tokenizer.encoder()(text) == ids(loaded, text)
    assert len(ids(loaded, text)) < len(text.split()) * 1.6


@pytest.mark.slow
def test_context_and_continuation_may_be_cut_apart(loaded):
    for row in items.mcr():
        for choice in row["choices"]:
            whole = ids(loaded, f"{row['prompt']} {choice}")
            assert whole == ids(loaded, row["prompt"]) + ids(loaded, f" {choice}")
            assert len(ids(loaded, f" {choice}")) == 1


def test_names_and_values_are_single_tokens(loaded):
    assert all(len(ids(loaded, f" {value}")) == 1 for values in RELATIONS.values() for value in values)
    assert all(len(ids(loaded, person.name)) == 2 for person in known_people())
