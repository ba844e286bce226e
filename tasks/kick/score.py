"""Scores per item, named by the yaml files of tasks/kick/lm: of new text only, unless it says as released."""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.kick import match

Doc = Mapping[str, Any]
Scores = dict[str, float]


def answer(doc: Doc, results: Sequence[str]) -> Scores:
    """Equality with an alias, an alias as whole words inside, and shared words."""
    said, aliases = results[0], doc["aliases"]
    return {
        "exact_match": match.equal(said, aliases),
        "contains": match.contains(said, aliases),
        "f1": match.f1(said, aliases),
    }


def letters(doc: Doc, results: Sequence[Any]) -> Scores:
    """Log-likelihoods of the letters decide; the free answer behind them only shows whether it names one."""
    *likely, said = results
    best = max(range(len(likely)), key=lambda i: likely[i][0])
    return {"acc": float(best == doc["answer"]), "format_valid": float(match.letter(said) is not None)}


def paper_letter(doc: Doc, results: Sequence[str]) -> Scores:
    """The letter that the free answer opens with."""
    found = match.letter(results[0])
    right = found == match.LETTERS[doc["answer"]]
    return {"acc": float(right), "format_valid": float(found is not None)}


def code_factoid(doc: Doc, results: Sequence[str]) -> Scores:
    """As released: the prompt is scored with the answer."""
    return {"exact_match": match.code_factoid(doc["prompt"] + results[0], doc["aliases"])}


def code_letter(doc: Doc, results: Sequence[str]) -> Scores:
    """As released: the last character of prompt and answer; the prompt ends in a colon."""
    return {"acc": float(match.code_letter(":" + results[0]) == match.LETTERS[doc["answer"]])}


def code_icra(doc: Doc, results: Sequence[str]) -> Scores:
    """As released: the first line that was said, matched either way, against aliases already normalised."""
    said, aliases = results[0].strip().split("\n")[0], doc["aliases"]
    return {"exact_match": match.code_icra(said, aliases), "f1": match.f1(said, aliases)}
