import json

import numpy as np
import pytest
import torch
from refusals import refused

from crunchmark.calib import Calibration, Source, draw, fingerprint
from crunchmark.machine import ROOT
from crunchmark.view import View


class Bytes:
    """A tokenizer whose ids are bytes."""

    def __call__(self, text, add_special_tokens=True, verbose=True):
        assert not add_special_tokens
        return {"input_ids": list(text.encode())}

    def __len__(self):
        return 128


TEXT = "".join(chr(32 + k % 90) for k in range(500))


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    return str(path)


def save(tmp_path, array):
    path = tmp_path / "ids.npy"
    np.save(path, array)
    return Source(path=str(path))


def test_windows_of_the_text(text):
    got = draw(Source(path=text), Bytes(), 6, 20, 0)
    assert got.ids.shape == (6, 20)
    assert got.ids.dtype == torch.int64
    assert all(bytes(row.tolist()).decode() in TEXT for row in got.ids)
    assert got.fingerprint == fingerprint(got.ids) != fingerprint(got.ids.view(-1, 1))


def test_same_seed_same_tokens(text):
    a, b, c = (draw(Source(path=text), Bytes(), 6, 20, seed) for seed in (0, 0, 1))
    assert torch.equal(a.ids, b.ids)
    assert a.fingerprint == b.fingerprint != c.fingerprint
    assert not torch.equal(a.ids, c.ids)


def test_more_sequences_extend_fewer(text):
    few, many = (draw(Source(path=text), Bytes(), n, 20, 0).ids for n in (3, 9))
    assert torch.equal(few, many[:3])


def test_whole_text_as_one_window(text):
    assert bytes(draw(Source(path=text), Bytes(), 1, 500, 0).ids[0].tolist()).decode() == TEXT


def test_jsonl_documents_are_joined_in_order(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"body": t}) for t in ("one", "two", "three")) + "\n\n")
    ids = draw(Source(path=str(path), field="body"), Bytes(), 1, len("one\n\ntwo\n\nthree"), 0).ids
    assert bytes(ids[0].tolist()) == b"one\n\ntwo\n\nthree"
    refused(lambda: draw(Source(path=str(path)), Bytes(), 1, 2, 0), "a.jsonl:1 has no text field 'text'")
    path.write_text('{"body": "a"}\n{"bo')
    refused(lambda: draw(Source(path=str(path), field="body"), Bytes(), 1, 2, 0), "a.jsonl:2 is no JSON")


def test_large_sources_are_thinned_by_seed(tmp_path, monkeypatch):
    monkeypatch.setattr("crunchmark.calib.MAX_CHARS", 40)
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": chr(65 + k) * 10}) for k in range(20)))
    kept = [
        set(draw(Source(path=str(path)), Bytes(), 1, 58, seed).ids[0].tolist()) - {10} for seed in (0, 0, 1)
    ]
    assert len(kept[0]) == 5
    assert kept[0] == kept[1] != kept[2]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_npy_rows(tmp_path, dtype):
    table = np.arange(60, dtype=dtype).reshape(6, 10)
    source = save(tmp_path, table)
    assert torch.equal(draw(source, Bytes(), 6, 10, 0).ids, torch.arange(60).view(6, 10))
    some = draw(source, Bytes(), 3, 4, 0).ids
    assert some.shape == (3, 4)
    assert (some[:, 0] % 10 == 0).all()
    assert some[:, 0].unique().numel() == 3


@pytest.mark.parametrize(
    ("array", "parts"),
    [
        (np.zeros((2, 4)), ("float64 (2, 4)", "integer ids (n, length)")),
        (np.zeros(4, dtype=np.int64), ("int64 (4,)",)),
        (np.zeros((2, 4), dtype=np.int64), ("holds 2 x 4 ids", "asked for 3 x 4")),
        (np.full((3, 4), 128), ("id 128", "valid: 0 to 127")),
        (np.full((3, 4), -1), ("id -1",)),
        (np.array([[{}]], dtype=object), ("no readable .npy",)),
    ],
)
def test_wrong_npy(tmp_path, array, parts):
    source = save(tmp_path, array)
    refused(lambda: draw(source, Bytes(), 3, 4, 0), *parts)


def test_wrong_sources(tmp_path, text):
    def attempt(n=1, length=4, **where):
        return lambda: draw(Source(**where), Bytes(), n, length, 0)

    empty, blank, junk, other = (tmp_path / f"{n}" for n in ("e.txt", "b.txt", "j.npy", "o.csv"))
    empty.write_text("")
    blank.write_text(" \n ")
    junk.write_bytes(b"junk")
    other.write_text("x")
    refused(attempt(path="/no/such.txt"), "'/no/such.txt' does not exist")
    refused(attempt(path="/no/such.npy"), "'/no/such.npy' does not exist")
    refused(attempt(path=str(empty)), "e.txt' is empty")
    refused(attempt(path=str(blank)), "b.txt' holds no text")
    refused(attempt(path=str(junk)), "no readable .npy")
    refused(attempt(path=str(other)), "unknown suffix; valid: .txt, .jsonl, .npy")
    refused(attempt(path=text, length=501), "has 500 tokens; one sequence needs 501")
    refused(attempt(path=text, n=0), "calib.n=0")
    refused(attempt(path=text, length=0), "calib.length=0")
    refused(attempt(), "calib.path=None, calib.dataset=None; valid: one of the two")
    refused(attempt(path=text, dataset="x"), "calib.dataset='x'; valid: one of the two")
    binary = tmp_path / "bin.txt"
    binary.write_bytes(b"\xff\xfe\x00")
    refused(attempt(path=str(binary)), "no utf-8 text")


def test_hub_data_set_offline_is_one_line():
    refused(
        lambda: draw(Source(dataset="nobody/nothing", name="v9"), Bytes(), 1, 4, 0),
        "'nobody/nothing' (v9)",
        "offline",
    )


def test_local_folder_as_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text("\n".join(json.dumps({"text": c * 8}) for c in "abc"))
    ids = draw(Source(dataset=str(folder)), Bytes(), 1, 28, 0).ids
    assert bytes(ids[0].tolist()) == b"aaaaaaaa\n\nbbbbbbbb\n\ncccccccc"
    refused(
        lambda: draw(Source(dataset=str(folder), field="body"), Bytes(), 1, 4, 0),
        "no field 'body'; valid: text",
    )
    refused(lambda: draw(Source(dataset=str(folder), split="dev"), Bytes(), 1, 4, 0), "split 'dev'")


def test_calibration_checks_its_fields(tokens):
    refused(lambda: Calibration(tokens, inputs="both"), "'both' is unknown; valid: dense, compressed")
    refused(lambda: Calibration(tokens, batch=0), "calib.batch=0")


@pytest.mark.parametrize("value", [0, -3, 1.5, "many", None, True])
@pytest.mark.parametrize("field", ["n", "length"])
def test_counts_are_whole_numbers(text, field, value):
    asked = {"n": 2, "length": 4} | {field: value}
    refused(
        lambda: draw(Source(path=text), Bytes(), **asked, seed=0),
        f"calib.{field}={value!r} is out of range; valid: a whole number >= 1",
    )


def test_too_short_a_text_says_which_length_would_do(text):
    refused(lambda: draw(Source(path=text), Bytes(), 1, 600, 0), "calib.length=600", "valid: length <= 500")


def test_a_field_that_is_not_there_names_those_that_are(tmp_path):
    path = tmp_path / "a.jsonl"
    for row, valid in (
        ('{"body": "x", "n": 1, "title": "y"}', "valid: body, title"),
        ("[1]", "an object with text"),
        ('{"text": 5}', "an object with text"),
        ('{"text": null}', "has no text field 'text'"),
    ):
        path.write_text(row)
        refused(lambda: draw(Source(path=str(path)), Bytes(), 1, 1, 0), "a.jsonl:1", valid)
    path.write_text("\n\n")
    refused(lambda: draw(Source(path=str(path)), Bytes(), 1, 1, 0), "holds no text")


def test_a_line_separator_inside_a_text_is_no_new_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "ab\u2028cd"}\n', encoding="utf-8")
    assert draw(Source(path=str(path)), Wide(), 1, 5, 0).ids.tolist() == [[97, 98, 0x2028, 99, 100]]


class Wide(Bytes):
    """A tokenizer whose ids are code points."""

    def __call__(self, text, add_special_tokens=True, verbose=True):
        return {"input_ids": [ord(c) for c in text]}

    def __len__(self):
        return 0x110000


def test_pickles_are_refused_as_ids(tmp_path):
    path = tmp_path / "ids.npy"
    path.write_bytes(__import__("pickle").dumps([[1, 2]]))
    refused(lambda: draw(Source(path=str(path)), Bytes(), 1, 1, 0), "ids.npy' is no readable .npy")


def test_paths_are_the_projects_or_relative_to_where_one_stands(tmp_path, monkeypatch):
    (tmp_path / "mine.txt").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    assert draw(Source(path="mine.txt"), Bytes(), 1, 20, 0).ids.shape == (1, 20)
    shipped = Source(path="tasks/nano/data/calib.txt")
    assert shipped.identity() == Source(path=str(ROOT / "tasks/nano/data/calib.txt")).identity()


def test_what_decides_the_texts(tmp_path):
    for name, text in (("a.txt", TEXT), ("a.jsonl", TEXT), ("b.txt", TEXT + "x")):
        (tmp_path / name).write_text(text)
    one, kind, other = (Source(path=str(tmp_path / n)).identity() for n in ("a.txt", "a.jsonl", "b.txt"))
    assert one != kind
    assert one != other
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text(TEXT)
    before = Source(dataset=str(folder)).identity()
    (folder / "train.jsonl").write_text(TEXT + "x")
    assert Source(dataset=str(folder)).identity() != before
    with pytest.raises(ValueError, match=r"calib\.revision=None leaves open which 'a/b'"):
        Source(dataset="a/b").identity()
    assert Source(dataset="a/b", revision="0" * 40).identity()["revision"] == "0" * 40
    refused(Source(path="absent.txt").identity, "'absent.txt' does not exist")


def test_a_data_set_without_network_is_one_line(no_network):
    source = Source(dataset="nobody/nothing", revision="abc")
    refused(
        lambda: draw(source, Bytes(), 1, 4, 0), "'nobody/nothing'", "revision 'abc'", "the hub is offline"
    )
    assert no_network == [1.0]


def test_data_sets_below_the_data_folder_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "hub" / "me" / "set"
    folder.mkdir(parents=True)
    (folder / "one.jsonl").write_text('{"text": "aaaaaaaa"}')
    (folder / "two.jsonl").write_text('{"text": "bbbbbbbb"}')
    monkeypatch.setenv("CRUNCHMARK_DATA", str(tmp_path / "hub"))
    whole = draw(Source(dataset="me/set", revision="abc"), Bytes(), 1, 18, 0).ids[0]
    assert bytes(whole.tolist()) == b"aaaaaaaa\n\nbbbbbbbb"
    part = draw(Source(dataset="me/set", files="two.jsonl"), Bytes(), 1, 8, 0).ids[0]
    assert bytes(part.tolist()) == b"bbbbbbbb"
    monkeypatch.setenv("CRUNCHMARK_DATA", str(tmp_path / "no"))
    refused(lambda: draw(Source(dataset="me/set"), Bytes(), 1, 8, 0), "CRUNCHMARK_DATA=", "is no folder")


def test_every_shipped_source_has_the_same_fields_and_hub_ones_a_commit():
    import yaml

    files = {f.stem: yaml.safe_load(f.read_text()) for f in (ROOT / "conf" / "calib").glob("*.yaml")}
    assert set(files) == {"nano", "text", "jsonl", "npy", "wikitext2", "c4", "fineweb_edu"}
    assert len({tuple(spec) for spec in files.values()}) == 1
    for name in ("wikitext2", "c4", "fineweb_edu"):
        assert len(files[name]["revision"]) == 40
        assert (files[name]["n"], files[name]["length"]) == (128, 2048)


def test_sequences_beyond_the_context_name_the_longest(tiny):
    calib = Calibration(torch.ones(1, 65, dtype=torch.int64))
    for name in ("llama", "gpt2", "opt"):
        refused(lambda name=name: calib.stream(View(tiny(name))), "calib.length=65", "valid: 1 to 64")
