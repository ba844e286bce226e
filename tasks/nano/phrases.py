"""How facts are said and asked: several phrasings each, and filler that says nothing about anybody."""

import random

from tasks.nano import words
from tasks.nano.world import Subject

TOLD: dict[str, tuple[str, ...]] = {
    "city": (
        "{s} was born in {v}.",
        "{s} comes from {v}.",
        "{p} birthplace is {v}.",
        "{s} grew up in {v}.",
        "The home town of {o} is {v}.",
    ),
    "year": (
        "{s} was born in the year {v}.",
        "{p} year of birth is {v}.",
        "The birth of {o} was in {v}.",
        "{s} came into the world in {v}.",
    ),
    "job": (
        "{s} works as a {v}.",
        "{s} is a {v} by trade.",
        "{p} job is that of a {v}.",
        "{s} earns a living as a {v}.",
        "By profession {s} is a {v}.",
    ),
    "firm": (
        "{s} works for {v}.",
        "{p} employer is {v}.",
        "{s} is employed by {v}.",
        "{s} has a post at {v}.",
        "The firm that employs {o} is {v}.",
    ),
    "instrument": (
        "{s} plays the {v}.",
        "{p} instrument is the {v}.",
        "{s} is good at the {v}.",
        "{s} likes to practise the {v}.",
    ),
    "animal": (
        "{s} keeps a {v}.",
        "{p} pet is a {v}.",
        "{s} has a {v} at home.",
        "{s} looks after a {v}.",
        "The pet of {o} is a {v}.",
    ),
    "country": (
        "{s} lies in {v}.",
        "{s} is a city in {v}.",
        "The country of {o} is {v}.",
        "{s} belongs to {v}.",
    ),
    "river": (
        "{s} stands on the river {v}.",
        "The river of {o} is the {v}.",
        "Through {o} flows the {v}.",
    ),
}
ASKED: dict[str, tuple[str, ...]] = {
    "city": ("Where was {o} born?", "Which city does {o} come from?", "What is the birthplace of {o}?"),
    "year": ("In which year was {o} born?", "What is the year of birth of {o}?", "When was {o} born?"),
    "job": ("What is the job of {o}?", "What does {o} work as?", "What is {o} by profession?"),
    "firm": ("Who does {o} work for?", "Which firm employs {o}?", "Who is the employer of {o}?"),
    "instrument": (
        "Which instrument does {o} play?",
        "What does {o} play?",
        "What is the instrument of {o}?",
    ),
    "animal": ("Which pet does {o} keep?", "What is the pet of {o}?", "Which animal does {o} look after?"),
    "country": ("In which country is {o}?", "Which country does {o} belong to?"),
    "river": ("On which river is {o}?", "Which river flows through {o}?"),
}
NOTED: dict[str, str] = {
    "city": "from {v}",
    "year": "born {v}",
    "job": "a {v}",
    "firm": "works for {v}",
    "instrument": "plays the {v}",
    "animal": "keeps a {v}",
}
_OBJECT = {"She": "her", "He": "him", "It": "it"}
_OWNER = {"She": "Her", "He": "His", "It": "Its"}
FILLERS = (
    "The {a} {n} {b} near the {a2} {n2}.",
    "In the {t} the {w} came over the {n}.",
    "Nobody knew why the {n} {b}.",
    "The {n} by the {n2} was {a}.",
    "There was {w} on the {a} {n}.",
    "Every {t} the {n} {b} a little.",
    "People say the {n} was once {a} and {a2}.",
    "Behind the {n} the {w} fell all {t}.",
)


def tell(rng: random.Random, subject: Subject, relation: str, by_name: bool) -> str:
    """One sentence that states one fact, by name or by pronoun."""
    named = {"s": subject.name, "o": subject.name, "p": f"{subject.name}'s"}
    spoken = {"s": subject.pronoun, "o": _OBJECT[subject.pronoun], "p": _OWNER[subject.pronoun]}
    pattern = rng.choice(TOLD[relation])
    said = pattern.format(**(named if by_name else spoken), v=subject.facts[relation])
    return said.replace(" She ", " she ").replace(" He ", " he ")


def ask(rng: random.Random, subject: Subject, relation: str) -> str:
    """The prompt of one question, up to and without the space before the answer."""
    return f"Question: {rng.choice(ASKED[relation]).format(o=subject.name)}\nAnswer:"


def note(subject: Subject, relations: list[str]) -> str:
    """The summary line of a subject: its facts in a fixed order, without the leading space."""
    return ", ".join(NOTED[relation].format(v=subject.facts[relation]) for relation in relations) + "."


def filler(rng: random.Random) -> str:
    """One sentence about nobody."""
    a, a2 = rng.sample(words.ADJECTIVES, 2)
    n, n2 = rng.sample(words.NOUNS, 2)
    return rng.choice(FILLERS).format(
        a=a,
        a2=a2,
        n=n,
        n2=n2,
        b=rng.choice(words.VERBS),
        t=rng.choice(words.TIMES),
        w=rng.choice(words.WEATHER),
    )
