"""Replies of an API judge: what is asked for, how it is read, and how ratings become a score."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tasks.kick.judge.base import HIGH, LOW, Case, Score, aspects, prompts, question

SIDES = ("answer_1", "answer_2")
SHOWN = 80  # characters of a reply that an error quotes
Ratings = dict[str, dict[str, float]]  # side -> aspect -> rating


def message(case: Case, reference_first: bool) -> str:
    """The whole prompt, with an example of the JSON that is wanted."""
    example = json.dumps({side: dict.fromkeys(aspects(case.kind), LOW) for side in SIDES})
    return question(case, reference_first) + "\n" + str(prompts()["json"]).format(example=example)


def schema(kind: str) -> dict[str, Any]:
    """The JSON schema of a reply, as `response_format` wants it."""
    rating = {"type": "integer", "minimum": LOW, "maximum": HIGH}
    side = _object(dict.fromkeys(aspects(kind), rating))
    whole = _object(dict.fromkeys(SIDES, side))
    return {"type": "json_schema", "json_schema": {"name": "ratings", "strict": True, "schema": whole}}


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def said(done: Any) -> str:
    """What a completion says.

    Raises:
        ValueError: the endpoint sent something else.
    """
    choices = getattr(done, "choices", None)
    told = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
    text = getattr(told, "content", None)
    if not isinstance(text, str):
        raise ValueError("it sent something that is no chat completion")
    return text


def ratings_of(done: Any, kind: str) -> Ratings:
    """The ratings in a completion.

    Raises:
        ValueError: there are none that can be read; quotes how the reply begins.
    """
    text = said(done)
    found = read(text, kind)
    if found is None:
        cut = getattr(done.choices[0], "finish_reason", None) == "length"
        end = " and ends at max_tokens" if cut else ""
        raise ValueError(f"a reply can not be read: it begins {text[:SHOWN]!r}{end}")
    return found


def read(text: str, kind: str) -> Ratings | None:
    """The first JSON object of a reply that has all ratings, in range; None where there is none."""
    decoder, start = json.JSONDecoder(), text.find("{")
    while start >= 0:
        try:
            found, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            found = None
        if _complete(found, tuple(aspects(kind))):
            return {side: {name: float(r) for name, r in found[side].items()} for side in SIDES}
        start = text.find("{", start + 1)
    return None


def _complete(found: Any, names: Sequence[str]) -> bool:
    """Whether it rates these aspects of both answers and nothing else, within the scale."""
    if not isinstance(found, dict) or set(found) != set(SIDES):
        return False
    sides = [found[side] for side in SIDES]
    return all(
        isinstance(side, dict) and set(side) == set(names) and all(map(_rating, side.values()))
        for side in sides
    )


def _rating(value: Any) -> bool:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return known and LOW <= value <= HIGH


def combined(case: Case, replies: Mapping[bool, Sequence[Ratings | None]], about: str) -> Iterator[Score]:
    """Votes averaged within an order, then the orders; None unless every order was answered.

    One order alone would be scored with the favour that judges show to a place.

    Args:
        case: What was judged.
        replies: By whether the reference came first, one per vote.
        about: The judge, for the record.
    """
    asked = sum(len(votes) for votes in replies.values())
    parsed = sum(vote is not None for votes in replies.values() for vote in votes)
    for aspect in aspects(case.kind):
        mine, theirs = [], []
        for reference_first, votes in replies.items():
            given = [vote for vote in votes if vote is not None]
            own, other = SIDES[reference_first], SIDES[not reference_first]
            mine.append(_mean([vote[own][aspect] for vote in given]))
            theirs.append(_mean([vote[other][aspect] for vote in given]))
        score, dense = _mean(mine), _mean(theirs)
        whole = not math.isnan(score)
        extra = {"judge": about, "votes": f"{parsed}/{asked}", "reference_score": dense if whole else None}
        yield Score(
            case.id,
            f"judge_{aspect}",
            score if whole else None,
            extra=extra if whole else extra | {"flags": ["unjudged"]},
        )


def _mean(values: Sequence[float]) -> float:
    """The mean, nan of nothing."""
    return sum(values) / len(values) if values else math.nan
