"""Who lives in the world and what is true of them: known people, places, and strangers."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from tasks.nano import words
from tasks.nano.words import seeded

PEOPLE = 1024
RELATIONS: dict[str, list[str]] = {
    "city": words.CITIES,
    "year": words.YEARS,
    "job": words.JOBS,
    "firm": words.FIRMS,
    "instrument": words.INSTRUMENTS,
    "animal": words.ANIMALS,
}
PLACE_RELATIONS: dict[str, list[str]] = {"country": words.COUNTRIES, "river": words.RIVERS}
Facts = dict[str, str]


@dataclass(frozen=True)
class Subject:
    """A person or a place with the facts that hold of it."""

    name: str
    pronoun: str
    facts: Facts

    @property
    def kind(self) -> str:
        """`place` for cities, `person` otherwise: decides which phrasings fit."""
        return "place" if self.pronoun == "It" else "person"


def random_facts(rng: random.Random, relations: dict[str, list[str]]) -> Facts:
    """Independent uniform facts: nothing about one of them can be guessed from another."""
    return {relation: rng.choice(values) for relation, values in relations.items()}


def person(rng: random.Random, first: str, last: str) -> Subject:
    """A person with fresh facts; the pronoun follows the first name."""
    pronoun = "She" if first in words.SHE_NAMES else "He"
    return Subject(f"{first} {last}", pronoun, random_facts(rng, RELATIONS))


@cache
def _name_pools() -> tuple[list[tuple[str, str]], list[tuple[str, str]], list[tuple[str, str]]]:
    """All first/last pairs, split into known people, reserved for evaluation, and free for passages."""
    pairs = [(first, last) for first in words.SHE_NAMES + words.HE_NAMES for last in words.LAST_NAMES]
    seeded("pairs").shuffle(pairs)
    return pairs[:PEOPLE], pairs[PEOPLE : PEOPLE + 1536], pairs[PEOPLE + 1536 :]


@cache
def known_people() -> tuple[Subject, ...]:
    """The people whose facts the training text tells again and again."""
    rng = seeded("known people")
    return tuple(person(rng, *pair) for pair in _name_pools()[0])


@cache
def places() -> tuple[Subject, ...]:
    """The cities, each with a country and a river."""
    rng = seeded("places")
    return tuple(Subject(city, "It", random_facts(rng, PLACE_RELATIONS)) for city in words.CITIES)


def unseen_people(task: str) -> Iterator[Subject]:
    """People for the evaluation of `task`: names reserved for it, no training text mentions them."""
    rng, reserved = seeded("unseen", task), list(_name_pools()[1])
    rng.shuffle(reserved)
    for pair in reserved:
        yield person(rng, *pair)


def stranger(rng: random.Random) -> Subject:
    """A person made up for one passage of training text: known words, a pair of names used nowhere else."""
    return person(rng, *rng.choice(_name_pools()[2]))
