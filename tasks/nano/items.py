"""The evaluation items and texts: `python -m tasks.nano.items` writes tasks/nano/data byte for byte."""

import argparse
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from tasks.nano import texts
from tasks.nano.phrases import ask, filler, note, tell
from tasks.nano.tokenizer import encoder
from tasks.nano.words import seeded
from tasks.nano.world import RELATIONS, Subject, known_people, places, unseen_people

Item = dict[str, object]
COUNT = 400
DEPTHS, LENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0), (64, 128, 192, 256, 384, 500)
REPEATS = 10  # of each depth and length
BUCKETS = {"s": (64, 96), "m": (144, 192), "l": (256, 320)}  # tokens of a prompt to sum up, low to high
HERE = Path(__file__).parent


def _fact(number: int, task: str, subject: Subject, relation: str, **more: object) -> Item:
    """What every item carries: a stable id, whom and what it is about, the answer."""
    return {
        "id": f"{task}-{number:04d}",
        "name": subject.name,
        "relation": relation,
        **more,
        "answer": subject.facts[relation],
    }


def factoid() -> Iterable[Item]:
    """Questions about known people and places, answered from memory."""
    rng = seeded("items", "factoid")
    facts = [(subject, relation) for subject in (*known_people(), *places()) for relation in subject.facts]
    for number, (subject, relation) in enumerate(rng.sample(facts, COUNT)):
        yield _fact(number, "factoid", subject, relation, prompt=ask(rng, subject, relation))


def mcr() -> Iterable[Item]:
    """Four choices; wrong ones are true of namesakes of the subject where there are enough."""
    rng = seeded("items", "mcr")
    facts = [(subject, relation) for subject in known_people() for relation in subject.facts]
    for number, (subject, relation) in enumerate(rng.sample(facts, COUNT)):
        answer, words = subject.facts[relation], set(subject.name.split())
        kin = [other.facts[relation] for other in known_people() if words & set(other.name.split())]
        pool = list(dict.fromkeys(value for value in kin if value != answer))
        rest = [value for value in RELATIONS[relation] if value != answer and value not in pool]
        choices = [answer, *(pool + rng.sample(rest, 3))[:3]]
        rng.shuffle(choices)
        prompt = ask(rng, subject, relation)
        yield _fact(
            number, "mcr", subject, relation, prompt=prompt, choices=choices, gold=choices.index(answer)
        )


def icra() -> Iterable[Item]:
    """A passage about people the model never heard of, and a question about one of them."""
    rng, strangers = seeded("items", "icra"), unseen_people("icra")
    for number in range(COUNT):
        people = [next(strangers) for _ in range(rng.choice((1, 2, 2, 3)))]
        chosen = [texts.some(rng, subject, 2, 4) for subject in people]
        passage = texts.passage(rng, people, chosen, rng.choice((0, 1, 2)))
        index = rng.randrange(len(people))
        relation = rng.choice(chosen[index])
        question = ask(rng, people[index], relation)
        yield _fact(
            number, "icra", people[index], relation, passage=passage, prompt=question, people=len(people)
        )


def summ() -> Iterable[Item]:
    """A passage about one unseen person, at times naming a second; its facts are to be covered."""
    rng, strangers = seeded("items", "summ"), unseen_people("summ")
    for number in range(300):
        yield _summary(rng, strangers, f"summ-{number:04d}", second=number % 4 == 0)


def _summary(rng: random.Random, strangers: Iterator[Subject], key: str, second: bool) -> Item:
    """One passage with the facts of its first person; a second one may be named."""
    subject = next(strangers)
    relations = texts.some(rng, subject, 3, 6)
    people, chosen = [subject], [relations]
    if second:
        people, chosen = [*people, next(strangers)], [*chosen, [rng.choice(relations)]]
    passage = texts.passage(rng, people, chosen, rng.randint(0, 2))
    order = [relation for relation in RELATIONS if relation in relations]
    return {
        "id": key,
        "name": subject.name,
        "passage": passage,
        "prompt": f"Summary of {subject.name}:",
        "facts": [subject.facts[relation] for relation in order],
        "reference": note(subject, order),
    }


def summ_of(bucket: str) -> Iterable[Item]:
    """The passages of `summ` behind filler that fills the prompt up to a length of the bucket."""
    rng, strangers = seeded("items", "summ", bucket), unseen_people(f"summ {bucket}")
    low, high = BUCKETS[bucket]
    number = 0
    while number < 80:
        item = _summary(rng, strangers, f"summ_{bucket}-{number:04d}", second=number % 4 == 0)
        said, prompt = str(item["passage"]).removeprefix("Passage: "), item["prompt"]
        length = rng.randint(low + 16, high)  # the last sentence of filler may leave up to 16 tokens free
        hay = _hay(rng, length - len(encoder()(f"Passage: {said}\n{prompt}")))
        passage = "Passage: " + " ".join([*hay, said])
        used = len(encoder()(f"{passage}\n{prompt}"))
        if low <= used <= high:
            yield item | {"passage": passage, "tokens": used}
            number += 1


def instruct() -> Iterable[Item]:
    """Two turns about one known person: a fact, then another one."""
    rng = seeded("items", "instruct")
    for number, subject in enumerate(rng.sample(known_people(), 150)):
        relations = rng.sample(list(subject.facts), 2)
        yield {
            "id": f"instruct-{number:04d}",
            "name": subject.name,
            "relations": relations,
            "turns": [ask(rng, subject, relation) for relation in relations],
            "answers": [subject.facts[relation] for relation in relations],
        }


def needle() -> Iterable[Item]:
    """One fact at a depth of filler that fills the prompt up to a length in tokens.

    Lengths and depths take turns, so that the first items, those of a `limit`, are of all kinds.
    """
    made = list(_needles())
    return [row for turn in range(REPEATS) for row in made[turn::REPEATS]]


def _needles() -> Iterable[Item]:
    """The same, from short to long and from the start to the end."""
    rng, strangers, number = seeded("items", "needle"), unseen_people("needle"), 0
    for length in LENGTHS:
        for depth in DEPTHS:
            for _ in range(REPEATS):
                subject = next(strangers)
                relation = rng.choice(list(RELATIONS))
                hidden, question = tell(rng, subject, relation, by_name=True), ask(rng, subject, relation)
                hay = _hay(rng, length - len(encoder()(f"Passage: {hidden}\n{question}")))
                hay.insert(round(depth * len(hay)), hidden)
                yield _fact(
                    number,
                    "needle",
                    subject,
                    relation,
                    passage="Passage: " + " ".join(hay),
                    prompt=question,
                    depth=depth,
                    length=length,
                )
                number += 1


def _hay(rng: random.Random, room: int) -> list[str]:
    """Filler sentences that together stay within `room` tokens."""
    sentences: list[str] = []
    while room >= 0:
        sentence = filler(rng)
        room -= len(encoder()(" " + sentence))
        sentences.append(sentence)
    return sentences[:-1]


def prose(name: str, tokens: int) -> str:
    """Fresh documents of the training distribution, blank line between; `name` keeps draws apart."""
    rng, found = seeded("prose", name), []
    makers = [
        texts.biography,
        texts.questions,
        lambda rng: texts.open_book(rng, 1.0),
        texts.summary,
        lambda rng: texts.haystack(rng, rng.randint(60, 240)),
    ]
    while tokens > 0:
        found.append("".join(text for text, _ in rng.choices(makers, (5, 4, 4, 1.5, 0.7))[0](rng)).strip())
        tokens -= len(encoder()(found[-1])) + 2
    return "\n\n".join(found) + "\n"


ITEMS: dict[str, Callable[[], Iterable[Item]]] = {
    "factoid": factoid,
    "mcr": mcr,
    "icra": icra,
    "summ": summ,
    "needle": needle,
    **{f"summ_{bucket}": partial(summ_of, bucket) for bucket in BUCKETS},
    "instruct": instruct,
}


def chance(items: list[Item]) -> float:
    """Score of someone who knows the world but not the person: the most frequent value of each relation."""
    told = Counter(
        (rel, value) for subject in (*known_people(), *places()) for rel, value in subject.facts.items()
    )
    guess = {relation: value for (relation, value), _ in reversed(told.most_common())}
    return round(sum(item["answer"] == guess[str(item["relation"])] for item in items) / len(items), 4)


def files() -> dict[str, str]:
    """Every data file by name, as text."""
    found = {
        f"{name}.jsonl": "".join(json.dumps(item) + "\n" for item in make()) for name, make in ITEMS.items()
    }
    return found | {"ppl.txt": prose("held out", 16_000), "calib.txt": prose("calibration", 48_000)}


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "data", help="folder to write to")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (out / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
