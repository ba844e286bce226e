"""Where LLM-KICK's questions come from: FreebaseQA, MMLU and TriviaQA as rows that prompts are written from.

The yaml files of tasks/kick/lm name these functions and say under `metadata` which rows: it is all protocol.
"""

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset

from crunchmark.checks import Malformed, first_line
from crunchmark.hub import DATA, data_root, resolve
from tasks.kick.match import LETTERS
from tasks.kick.subjects import GROUP

Row = dict[str, Any]
FREEBASE, TRIVIA, MMLU = "FreebaseQA", "mandarjoshi/trivia_qa", "cais/mmlu"
_given: ContextVar[str | None] = ContextVar("given", default=None)
_root: ContextVar[Path | None] = ContextVar("root", default=None)


@contextmanager
def given(path: str | None) -> Iterator[None]:
    """Inside, data are read from here, or from the data root as seen from where we stand now.

    The place is no part of a protocol, what lies there is.
    """
    root = data_root()
    tokens = (
        _given.set(None if path is None else str(resolve(path))),
        _root.set(None if root is None else root.absolute()),
    )
    try:
        yield
    finally:
        _given.reset(tokens[0])
        _root.reset(tokens[1])


def factoid(
    split: str,
    sample: int,
    seed: int | None = None,
    aliases: str = "union",
    prompt: str | None = None,
    **_: object,
) -> dict[str, Dataset]:
    """FreebaseQA's questions.

    Args:
        split: train, dev or eval.
        sample: How many questions.
        seed: Draws them; None takes the first of the file.
        aliases: union of all answers of all parses, or first answer of the first parse.
        prompt: Template with {question}, for a matcher that looks at the prompt.

    Raises:
        FileNotFoundError: The file is not there; says how to give it.
        Malformed: It is not of FreebaseQA's format; names the field.
    """
    file = _freebase(split)
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Malformed(f"{file.name} is no JSON file: {error}") from None
    rows = [_question(one, aliases, file.name) for one in _get(told, "Questions", file.name)]
    for row in rows:
        row |= {"prompt": prompt.format(question=row["question"])} if prompt else {}
    return {"test": _dataset(draw(rows, sample, seed), file.name)}


def mcr(seed: int | None = None, missing: Iterable[str] = (), **_: object) -> dict[str, Dataset]:
    """MMLU, all subjects: the questions, and those that serve as shots.

    Args:
        seed: Shuffles the questions, so that a limit is a sample of all subjects; None: subject by subject.
        missing: Options that the released code reads as "nan".

    Raises:
        Malformed: A row lacks a field, or its subject is unknown.
    """
    found, gone = _load(MMLU, "all"), frozenset(missing)
    rows = _options(_get(found, "test", MMLU), gone)
    return {
        "test": _dataset(draw(rows, len(rows), seed), MMLU),
        "dev": _dataset(_options(_get(found, "dev", MMLU), gone), MMLU),
    }


def icra(
    config: str,
    sample: int,
    seed: int | None = None,
    evidence: bool = False,
    chars: int | None = None,
    once: bool = True,
    **_: object,
) -> dict[str, Dataset]:
    """TriviaQA's validation questions.

    Args:
        config: The data set's configuration, rc or rc.nocontext.
        sample: How many questions.
        seed: Draws them; None takes the first.
        evidence: Whether the first page of Wikipedia and the first of the web come along.
        chars: Where evidence is cut.
        once: Keep one row of a question that is there twice, for its two sources.

    Raises:
        Malformed: A row lacks a field, or there are no rows.
    """
    rows: list[Row] = []
    count: Counter[str] = Counter()
    for row in _get(_load(TRIVIA, config), "validation", TRIVIA):
        key = str(_get(row, "question_id", TRIVIA))
        count[key] += 1
        if count[key] == 1 or not once:
            text = {"evidence": _pages(row)[:chars]} if evidence else {}
            rows.append(_trivia(row) | {"id": key if count[key] == 1 else f"{key}#{count[key]}"} | text)
    return {"test": _dataset(draw(rows, sample, seed), TRIVIA)}


def draw(rows: list[Row], count: int, seed: int | None) -> list[Row]:
    """So many of the rows: the first without a seed, else in an order that the seed decides."""
    return rows[:count] if seed is None else random.Random(seed).sample(rows, min(count, len(rows)))


def _freebase(split: str) -> Path:
    """The file of a split: given itself, in the given folder, or in the data root."""
    name, root = f"FreebaseQA-{split}.json", _root.get()
    place = Path(_given.get() or (root or Path()) / FREEBASE)
    file = place / name if place.is_dir() else place
    if file.is_file():
        return file
    raise FileNotFoundError(
        f"no {name}; valid: task.NAME.path=FILE or FOLDER, or {DATA}/{FREEBASE}/{name} "
        f"({DATA} is {str(root) if root else 'not set'})"
    )


def _question(one: Mapping[str, Any], aliases: str, where: str) -> Row:
    parses = _get(one, "Parses", where)
    answers = [answer for parse in parses for answer in _get(parse, "Answers", where)]
    named = [
        _get(answer, "AnswersName", where) for answer in (answers if aliases == "union" else answers[:1])
    ]
    names = list(dict.fromkeys(name for group in named for name in group))
    if not names:
        raise Malformed(f"{where}: question {one.get('Question-ID')!r} has no answer")
    return {
        "id": str(_get(one, "Question-ID", where)),
        "question": _get(one, "RawQuestion", where),
        "aliases": names,
        "target": names[0],
    }


def _options(rows: Iterable[Mapping[str, Any]], missing: frozenset[str]) -> list[Row]:
    found, count = [], Counter[str]()
    for row in rows:
        subject, choices = _get(row, "subject", MMLU), _get(row, "choices", MMLU)
        if subject not in GROUP:
            raise Malformed(f"{MMLU}: subject {subject!r} is unknown; valid: {', '.join(GROUP)}")
        if len(choices) != len(LETTERS) or _get(row, "answer", MMLU) not in range(len(LETTERS)):
            raise Malformed(f"{MMLU}: a question of {subject!r} has no four choices with one answer")
        found.append(
            {
                "id": f"{subject}/{count[subject]}",
                "group": GROUP[subject],
                "subject": subject.replace("_", " "),
                "question": _get(row, "question", MMLU).strip(),
                "choices": ["nan" if choice in missing else choice for choice in choices],
                "answer": row["answer"],
            }
        )
        count[subject] += 1
    return found


def _trivia(row: Mapping[str, Any]) -> Row:
    answer = _get(row, "answer", TRIVIA)
    return {
        "question": _get(row, "question", TRIVIA),
        "aliases": list(_get(answer, "normalized_aliases", TRIVIA)),
        "target": _get(answer, "value", TRIVIA),
    }


def _pages(row: Mapping[str, Any]) -> str:
    """The first Wikipedia page, then the first web page."""
    wiki = _get(_get(row, "entity_pages", TRIVIA), "wiki_context", TRIVIA)
    web = _get(_get(row, "search_results", TRIVIA), "search_context", TRIVIA)
    return "".join([*wiki[:1], *web[:1]])


def _load(name: str, config: str) -> Any:
    """The splits of a configuration; a relative name is a folder of the data root, where lm-eval stands.

    A file that is given is the validation split.

    Raises:
        FileNotFoundError: They can not be had; says how to give them.
    """
    path = _given.get()
    try:
        if path and Path(path).is_file():
            kind = "parquet" if path.endswith(".parquet") else "json"
            return load_dataset(kind, data_files={"validation": path})
        return load_dataset(path or name, config)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"data set {path or name!r} ({config}) can not be loaded (offline and not stored?): "
            f"{first_line(error)}; valid: task.NAME.path=FILE or FOLDER, or {DATA}/{name}"
        ) from error


def _get(row: Mapping[str, Any], field: str, where: str) -> Any:
    if not isinstance(row, Mapping) or field not in row:
        there = ", ".join(row) if isinstance(row, Mapping) else type(row).__name__
        raise Malformed(f"{where} has no field {field!r}; it has: {there}")
    if row[field] is None:
        raise Malformed(f"{where} has {field}=null; valid: a value in every row")
    return row[field]


def _dataset(rows: list[Row], where: str) -> Dataset:
    if not rows:
        raise Malformed(f"{where} holds no questions")
    twice = next((key for key, n in Counter(row["id"] for row in rows).items() if n > 1), None)
    if twice is not None:
        raise Malformed(f"{where} has the id {twice!r} twice")
    return Dataset.from_list(rows)
