"""When is an answer right? Normalisers and matchers of LLM-KICK (arXiv:2310.01382), repaired and as released.

`equal`, `contains` and `f1` are ours; names that begin with `code_` do what the released code does, defects
included, and are held to it by tests/golden/kick_parity.py.
"""

import re
import string
from collections import Counter
from collections.abc import Iterable

LETTERS = "ABCD"
_QUOTES = "‘’´`"
_BLANKED = str.maketrans(dict.fromkeys(string.punctuation + _QUOTES, " "))
_ARTICLES = re.compile(r"\b(?:an?|the)\b")
_LETTER = re.compile(rf"[(\[]?([{LETTERS}])(?:[)\].:,]|\s*$)")


def normal(text: str) -> str:
    """TriviaQA's normal form: lower case, punctuation as spaces, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_BLANKED)).split())


def equal(said: str, aliases: Iterable[str]) -> float:
    """1.0 if the answer is one of the aliases in normal form; nothing said is never right."""
    words = normal(said)
    return float(bool(words) and words in {normal(alias) for alias in aliases})


def contains(said: str, aliases: Iterable[str]) -> float:
    """1.0 if the answer holds an alias as whole words; an alias that holds the answer does not count."""
    text = f" {normal(said)} "
    return float(any(words and f" {words} " in text for words in map(normal, aliases)))


def f1(said: str, aliases: Iterable[str]) -> float:
    """The best harmonic mean of precision and recall over the words shared with an alias."""
    return max((_f1(normal(said).split(), normal(alias).split()) for alias in aliases), default=0.0)


def letter(said: str) -> str | None:
    """The letter of "B", "(B)" or "B. Paris"; None where the answer opens otherwise: "A man" is no choice."""
    found = _LETTER.match(said.strip())
    return found[1] if found else None


def code_factoid(output: str, aliases: Iterable[str]) -> float:
    """Released factoid rule: spaces deleted, an alias anywhere in the output, and that holds the prompt."""
    text = _squeezed(output)
    return float(any(_squeezed(alias) in text for alias in aliases))


def code_icra(said: str, aliases: Iterable[str]) -> float:
    """Released ICRA rule: one contains the other, whichever way, so that nothing said is always right."""
    text = normal(said)
    return float(any(words in text or text in words for words in map(normal, aliases)))


def code_letter(output: str) -> str:
    """Released multiple-choice rule: the last character of prompt and answer."""
    return output[-1:]


def _squeezed(text: str) -> str:
    return text.strip().replace(" ", "").lower()


def _f1(said: list[str], gold: list[str]) -> float:
    shared = sum((Counter(said) & Counter(gold)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(said), shared / len(gold)
    return 2 * precision * recall / (precision + recall)
