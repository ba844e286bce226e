"""What lm-eval needs of us: the local files as data sets, and scores per item."""

import json
import string
from pathlib import Path

from datasets import Dataset

DATA = Path(__file__).resolve().parents[1] / "data"


def _rows(name: str) -> dict[str, Dataset]:
    lines = (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return {"test": Dataset.from_list([json.loads(line) for line in lines])}


def factoid(**_: object) -> dict[str, Dataset]:
    """Closed-book questions; lm-eval passes the task's metadata, which nothing here needs."""
    return _rows("factoid")


def mcr(**_: object) -> dict[str, Dataset]:
    """Closed-book questions with four choices."""
    return _rows("mcr")


def icra(**_: object) -> dict[str, Dataset]:
    """Passages about unseen people with a question each."""
    return _rows("icra")


def summ(**_: object) -> dict[str, Dataset]:
    """Passages to be summarised, with the facts a summary must cover."""
    return _rows("summ")


def needle(**_: object) -> dict[str, Dataset]:
    """One fact in a long text."""
    return _rows("needle")


def normal(text: str) -> str:
    """Lower case, no punctuation, no leading article, single spaces."""
    words = text.lower().translate(str.maketrans("", "", string.punctuation)).split()
    return " ".join(words[1:] if words[:1] in (["a"], ["an"], ["the"]) else words)


def exact(doc: dict, results: list[str]) -> dict[str, float]:
    """1.0 if the normalised generation is the normalised answer."""
    return {"exact_match": float(normal(results[0]) == normal(doc["answer"]))}


def covered(doc: dict, results: list[str]) -> dict[str, float]:
    """Share of the passage's facts about the subject that the summary states."""
    said = set(normal(results[0]).split())
    return {"covered": sum(normal(fact) in said for fact in doc["facts"]) / len(doc["facts"])}
