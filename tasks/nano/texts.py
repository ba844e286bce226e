"""The documents the model reads. A document is a list of (text, loss weight) pieces.

Weights put the gradient where something can be learnt: a fact of a stranger is pure chance when it is told,
and a pure lookup when it is asked.
"""

import random

from tasks.nano import words
from tasks.nano.phrases import ask, filler, note, tell
from tasks.nano.world import RELATIONS, Subject, known_people, places, stranger

Document = list[tuple[str, float]]
ANSWER, TOLD, CHANCE = 4.0, 1.0, 0.2


def told(rng: random.Random, subject: Subject, relations: list[str]) -> list[str]:
    """Sentences about one subject: the first by name, the others by name or pronoun."""
    return [
        tell(rng, subject, relation, by_name=place == 0 or rng.random() < 0.4)
        for place, relation in enumerate(relations)
    ]


def some(rng: random.Random, subject: Subject, low: int, high: int) -> list[str]:
    """Between `low` and `high` relations of the subject in random order."""
    relations = list(subject.facts)
    return rng.sample(relations, min(len(relations), rng.randint(low, high)))


def biography(rng: random.Random) -> Document:
    """Facts of one known person or place, told."""
    subject = rng.choice(known_people()) if rng.random() < 0.9 else rng.choice(places())
    return [(" ".join(told(rng, subject, some(rng, subject, 2, 6))), TOLD)]


def questions(rng: random.Random) -> Document:
    """Questions about known people and places, each with its answer: knowledge without any help."""
    document: Document = []
    for number in range(rng.randint(2, 6)):
        subject = rng.choice(known_people()) if rng.random() < 0.92 else rng.choice(places())
        relation = rng.choice(list(subject.facts))
        document += [("\n" * (number > 0) + ask(rng, subject, relation), CHANCE)]
        document += [(f" {subject.facts[relation]}", ANSWER)]
    return [*document, ("\n", 1.0)]


def passage(rng: random.Random, people: list[Subject], chosen: list[list[str]], fillers: int) -> str:
    """Facts of the people in blocks, with filler sentences strewn between sentences."""
    sentences = [
        said
        for subject, relations in zip(people, chosen, strict=True)
        for said in told(rng, subject, relations)
    ]
    starts = [sum(map(len, chosen[:index])) for index in range(len(chosen) + 1)]
    for _ in range(fillers):  # only between blocks or after a sentence: a pronoun keeps its owner
        sentences.insert(
            rng.choice(starts) if rng.random() < 0.5 else rng.randint(0, len(sentences)), filler(rng)
        )
    return "Passage: " + " ".join(sentences)


def open_book(rng: random.Random, level: float) -> Document:
    """A passage about strangers and many questions about it; `level` 0..1 adds people and filler."""
    people = [stranger(rng) for _ in range(rng.choice((1, 2) if level < 0.5 else (1, 2, 2, 3, 4)))]
    chosen = [some(rng, subject, 1 if len(people) > 1 else 2, 6 - len(people)) for subject in people]
    fillers = rng.choice((0, 0, 1) if level < 0.5 else (0, 1, 2, 4))
    document: Document = [(passage(rng, people, chosen, fillers), CHANCE)]
    facts = [
        (subject, relation)
        for subject, relations in zip(people, chosen, strict=True)
        for relation in relations
    ]
    rng.shuffle(facts)
    for subject, relation in facts[:8]:
        document += [("\n" + ask(rng, subject, relation), CHANCE), (f" {subject.facts[relation]}", ANSWER)]
    return [*document, ("\n", 1.0)]


def summary(rng: random.Random) -> Document:
    """A passage about one stranger, then its facts in the fixed order of a note."""
    subject = stranger(rng)
    relations = some(rng, subject, 2, 6)
    people, chosen = [subject], [relations]
    if rng.random() < 0.3:
        people, chosen = [*people, stranger(rng)], [*chosen, [rng.choice(relations)]]
    told_order = [relation for relation in RELATIONS if relation in relations]
    prompt = f"{passage(rng, people, chosen, rng.randint(0, 2))}\nSummary of {subject.name}:"
    return [(prompt, CHANCE), (f" {note(subject, told_order)}", 2.0), ("\n", 1.0)]


def haystack(rng: random.Random, tokens: int) -> Document:
    """A few facts of strangers deep in filler, then questions: the long form of `open_book`."""
    count = max(2, tokens // 12)
    sentences = [filler(rng) for _ in range(count)]
    facts = []
    for _ in range(rng.randint(1, 5)):
        subject = stranger(rng)
        relation = rng.choice(list(subject.facts))
        sentences.insert(rng.randint(0, len(sentences)), tell(rng, subject, relation, by_name=True))
        facts.append((subject, relation))
    document: Document = [("Passage: " + " ".join(sentences), 0.1)]
    for subject, relation in facts:
        document += [("\n" + ask(rng, subject, relation), CHANCE), (f" {subject.facts[relation]}", ANSWER)]
    return [*document, ("\n", 1.0)]


_POOL = [word for values in RELATIONS.values() for word in values] + words.LAST_NAMES + words.NOUNS


def echo(rng: random.Random) -> Document:
    """Random words, then the same words again: teaches the copying heads that retrieval is built from."""
    block = "".join(f" {word}" for word in rng.choices(_POOL, k=rng.randint(6, 40)))
    return [(block, 0.0), (block, 1.0)]
