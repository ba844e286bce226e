import hashlib
import json
import re
from pathlib import Path

import pytest

from tasks.nano import items, texts, world
from tasks.nano.recipe import Recipe, batch
from tasks.nano.tokenizer import build, encoder
from tasks.nano.words import seeded

DATA = Path(items.__file__).parent / "data"
SUMMARIES = ("summ", "summ_s", "summ_m", "summ_l")
UNSEEN = ("icra", "needle", *SUMMARIES)
EARLIER = {
    "calib.txt": "4a72f9f6da317456",
    "factoid.jsonl": "8e9a9dd486be54b4",
    "icra.jsonl": "984d4f7552770145",
    "mcr.jsonl": "436af6937db65fc0",
    "needle.jsonl": "b9e72a510672a60e",
    "ppl.txt": "eb39f689cebaa6de",
    "summ.jsonl": "81add5e37084a722",
}
FILES = sorted(f"{name}.jsonl" for name in items.ITEMS)


@pytest.fixture(scope="module")
def made():
    return items.files()


@pytest.fixture(scope="module")
def records(made):
    return {name: [json.loads(line) for line in made[name].splitlines()] for name in FILES}


def test_data_regenerates_byte_for_byte(made):
    assert len(made) == 11
    assert sorted(path.name for path in DATA.iterdir()) == sorted(made)
    for name, text in made.items():
        assert (DATA / name).read_bytes() == text.encode(), name
    assert sum(len(text.encode()) for text in made.values()) < 3e6


def test_ids_are_unique_and_stable(records):
    for name, rows in records.items():
        stem = name.removesuffix(".jsonl")
        assert sorted(row["id"] for row in rows) == [f"{stem}-{i:04d}" for i in range(len(rows))]
        assert (80 if stem.startswith("summ_") else 150 if stem == "instruct" else 300) <= len(rows) <= 1000


def test_calibration_is_long_enough(made):
    assert len(encoder()(made["calib.txt"])) >= 128 * 256
    assert not set(made["calib.txt"].split("\n\n")) & set(made["ppl.txt"].split("\n\n"))


def test_no_evaluated_stranger_is_ever_trained_on(records, made):
    unseen = {row["name"] for name in UNSEEN for row in records[f"{name}.jsonl"]}
    assert len(unseen) > 700
    assert not unseen & {person.name for person in world.known_people()}
    rng = seeded("test")
    assert not unseen & {world.stranger(rng).name for _ in range(20_000)}
    recipe, decode = Recipe(), build().decode
    training = "\n".join(
        decode(ids) for step in (0, 600, 1500, 2599) for ids in batch(recipe, step)[0].tolist()
    )
    for text in (training, made["calib.txt"], made["ppl.txt"]):
        assert not unseen & set(re.findall(r"(?=\b([A-Z][a-z]+ [A-Z][a-z]+))", text))


def test_open_items_can_be_answered_from_the_passage(records):
    for name in ("icra", "needle"):
        for row in records[f"{name}.jsonl"]:
            assert row["answer"] in row["passage"]
            assert row["name"] in row["passage"]
    for row in (row for name in SUMMARIES for row in records[f"{name}.jsonl"]):
        assert all(fact in row["passage"] and fact in row["reference"] for fact in row["facts"])


def test_summaries_have_three_lengths_apart(records):
    spans = []
    for name, (low, high) in items.BUCKETS.items():
        used = [len(encoder()(f"{r['passage']}\n{r['prompt']}")) for r in records[f"summ_{name}.jsonl"]]
        assert used == [row["tokens"] for row in records[f"summ_{name}.jsonl"]]
        assert low <= min(used) < max(used) <= high
        assert max(used) - min(used) > (high - low) / 2
        spans += [low, high]
    assert spans == sorted(set(spans))
    assert spans[-1] + 40 <= Recipe().config().max_position_embeddings


def test_two_turns_ask_two_facts_of_one_person(records):
    facts = {subject.name: subject.facts for subject in world.known_people()}
    for row in records["instruct.jsonl"]:
        assert len(set(row["relations"])) == 2
        assert [facts[row["name"]][relation] for relation in row["relations"]] == row["answers"]
        assert all(row["name"] in turn for turn in row["turns"])


def test_earlier_data_files_are_what_published_scores_stand_on():
    """Their content is part of protocol ids: a byte that moves makes all earlier scores incomparable."""
    found = {name: hashlib.sha256((DATA / name).read_bytes()).hexdigest()[:16] for name in EARLIER}
    assert found == EARLIER


def test_needle_fills_its_lengths(records):
    for row in records["needle.jsonl"]:
        used = len(encoder()(f"{row['passage']}\n{row['prompt']}"))
        assert row["length"] - 16 < used <= row["length"]
    cells = [(row["length"], row["depth"]) for row in records["needle.jsonl"]]
    kinds = len(items.LENGTHS) * len(items.DEPTHS)
    assert len(set(cells)) == len(set(cells[:kinds])) == kinds, "a limit sees every kind"


def test_choices_hold_the_answer_once(records):
    for row in records["mcr.jsonl"]:
        assert len(set(row["choices"])) == 4
        assert row["choices"][row["gold"]] == row["answer"]


def test_known_facts_are_what_the_items_ask(records):
    facts = {subject.name: subject.facts for subject in (*world.known_people(), *world.places())}
    for name in ("factoid", "mcr"):
        assert all(facts[row["name"]][row["relation"]] == row["answer"] for row in records[f"{name}.jsonl"])


def test_global_random_state_is_untouched():
    import random

    before = random.getstate()
    texts.open_book(seeded("x"), 1.0)
    items.chance(list(items.factoid()))
    assert random.getstate() == before
