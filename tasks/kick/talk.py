"""Talks of one or more turns with a model, judged beside the dense parent's talk on the same questions."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from crunchmark.checks import one_of
from crunchmark.files import read_json, write_json
from crunchmark.task import Item, Metric, PairedTask
from crunchmark.tensorfile import damaged
from tasks.common import check_items, digest
from tasks.kick.generate import STYLES, Answer, Decode, fits, generate, prompt_ids, stops_of
from tasks.kick.judge import Case, Judge, Score
from tasks.kick.judge.proxies import Proxies

ANSWERS = "answers.json"
SHOWN = 400  # characters of a question or an answer that go on the record
Said = dict[str, list[Answer]]  # talk id -> an answer per turn; an id that is missing did not fit


@dataclass(frozen=True)
class Talk:
    """Questions of one item, turn by turn, and what is known about good answers.

    kind: which of the judge's prompts fits.
    expected: the right answer of every turn, where there is one.
    """

    id: str
    turns: tuple[str, ...]
    group: str
    kind: str
    asked: str
    gold: str | None = None
    facts: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Talks(PairedTask):
    """Asks turn by turn: the prompt of a turn holds the model's own answers to the turns before.

    A talk whose prompts and budgets may be longer than the context is not asked: it has no score and the flag
    `too_long`. Whether it is depends on the tokenizer and the questions only, so that it is the same for a
    model and its dense parent; never is a prompt cut.
    """

    name: str
    judge: Judge = field(default_factory=Proxies)
    decode: Decode = field(default_factory=Decode)
    style: str = "chat"  # or raw: the text as it is, without roles
    limit: int | None = None
    batch: int | str = "auto"

    def __post_init__(self) -> None:
        check_items(self.limit, self.batch)
        one_of(f"{self.name}.style", self.style, STYLES)
        if not isinstance(self.decode, Decode):
            raise ValueError(f"{self.name}.decode={self.decode!r} is none; valid: an entry with a _target_")
        if not isinstance(self.judge, Judge):
            raise ValueError(f"{self.name}.judge={self.judge!r} is no judge; valid: an entry with a _target_")

    @abstractmethod
    def load(self) -> Sequence[Talk]:
        """All talks, in a fixed order.

        Raises:
            ValueError: the data are not here, or something is wrong with them.
        """

    def own_metrics(self) -> dict[str, Metric]:
        """Metrics that need no judge; they come before the judge's."""
        return {}

    def own_scores(self, talk: Talk, said: Sequence[Answer]) -> dict[str, float]:
        """Their scores."""
        return {}

    @cached_property
    def talks(self) -> Sequence[Talk]:
        """The talks that are asked.

        Raises:
            ValueError: there are none, or two have the same id.
        """
        found = self.load()[: self.limit]
        if not found:
            raise ValueError(f"{self.name}: there are no items; valid: data with at least one")
        ids = [talk.id for talk in found]
        twice = next((key for key in ids if ids.count(key) > 1), None)
        if twice is not None:
            raise ValueError(f"{self.name}: two items have the id {twice!r}; valid: ids that differ")
        return found

    @property
    def judges(self) -> list[Judge]:
        """The judge, and what can be counted without one."""
        return [self.judge] if isinstance(self.judge, Proxies) else [self.judge, Proxies()]

    def protocol(self) -> str:
        """Digest of questions, decoding, style and judges."""
        talks = [{**vars(talk), "extra": dict(talk.extra)} for talk in self.talks]
        parts = {"talks": talks, "decode": vars(self.decode), "style": self.style, "version": 1}
        return digest(parts | {"judges": [judge.protocol() for judge in self.judges]})

    def metrics(self) -> Mapping[str, Metric]:
        """Own ones, the judge's, then those that need none."""
        found = self.own_metrics()
        gold, facts = self.talks[0].gold is not None, bool(self.talks[0].facts)
        for judge in self.judges:
            found |= judge.metrics(self.talks[0].kind, gold=gold, facts=facts)
        return found

    def remember(self, model: Any, tokenizer: Any, folder: Path) -> None:
        """The dense parent's answers."""
        said = self.answers(model, tokenizer)
        write_json(folder / ANSWERS, {key: [vars(a) for a in each] for key, each in said.items()})

    def beside(self, model: Any, tokenizer: Any, folder: Path) -> Iterator[Item]:
        """The model's answers, scored, and judged beside the parent's.

        Raises:
            ValueError: no talk fits the model's context, or a judge gave no score at all.
        """
        theirs = _read(folder / ANSWERS)
        mine = self.answers(model, tokenizer)
        if not mine:
            raise ValueError(
                f"{self.name}: none of {len(self.talks)} items fits the model's context with "
                f"max_new_tokens={self.decode.max_new_tokens}; valid: fewer new tokens or shorter items"
            )
        said = [talk for talk in self.talks if talk.id in mine]
        cases = [self._case(t, mine[t.id], theirs[t.id], tokenizer) for t in said if t.id in theirs]
        own = (Score(t.id, k, v) for t in said for k, v in self.own_scores(t, mine[t.id]).items())
        judged = self._judged(cases, model, tokenizer)
        found = {(score.id, score.metric): score for score in chain(own, judged)}
        for talk in self.talks:
            tokens = self._longest(talk, tokenizer) - len(talk.turns) * self.decode.max_new_tokens
            for place, name in enumerate(self.metrics()):
                more = {"prompt_tokens": tokens} | (self._shown(talk, mine) if place == 0 else {})
                yield self._item(
                    talk, found.get((talk.id, name), Score(talk.id, name, None)), mine, theirs, more
                )

    def _judged(self, cases: Sequence[Case], model: Any, tokenizer: Any) -> Iterator[Score]:
        """Scores of all judges.

        Raises:
            ValueError: one gave none at all, which is a failure to mend and no result to keep.
        """
        for judge in self.judges:
            scores = list(judge.judge(cases, model, tokenizer))
            if scores and all(score.score is None for score in scores):
                raise ValueError(
                    f"{self.name}.judge gave none of {len(cases)} items a score that can be read; valid: "
                    "a judge that gives both answers the ratings it is asked for, in every order"
                )
            yield from scores

    def answers(self, model: Any, tokenizer: Any) -> Said:
        """An answer per turn of every talk that fits, turn by turn."""
        said: Said = {t.id: [] for t in self.talks if fits(model, self._longest(t, tokenizer))}
        decode = replace(self.decode, stop=stops_of(tokenizer, self.decode.stop, self.style))
        for turn in range(max(len(talk.turns) for talk in self.talks)):
            talks = [t for t in self.talks if t.id in said and turn < len(t.turns)]
            prompts = {t.id: self._prompt(t, said[t.id], tokenizer) for t in talks}
            for key in [k for k, ids in prompts.items() if not fits(model, len(ids) + decode.max_new_tokens)]:
                del said[key], prompts[key]  # an answer may be longer once it is encoded again
            named = [(f"{key}/{turn}", ids) for key, ids in prompts.items()]
            for key, answer in zip(
                prompts, generate(model, tokenizer, named, decode, self.batch), strict=True
            ):
                said[key].append(answer)
        return said

    def _longest(self, talk: Talk, tokenizer: Any) -> int:
        """Tokens of the last prompt with nothing answered, and of all answers at their longest."""
        messages = [m for turn in talk.turns for m in (turn, "")][:-1]
        prompt = len(prompt_ids(tokenizer, messages, self.style))
        return prompt + len(talk.turns) * self.decode.max_new_tokens

    def _prompt(self, talk: Talk, said: Sequence[Answer], tokenizer: Any) -> list[int]:
        """The talk so far and its next question."""
        messages = [m for turn, a in zip(talk.turns, said, strict=False) for m in (turn, a.text)]
        return prompt_ids(tokenizer, [*messages, talk.turns[len(said)]], self.style)

    def _case(self, talk: Talk, mine: list[Answer], theirs: list[Answer], tokenizer: Any) -> Case:
        """What a judge sees."""
        turns = [
            (tuple(self._prompt(talk, theirs[:i], tokenizer)), answer.ids) for i, answer in enumerate(theirs)
        ]
        return Case(
            id=talk.id,
            kind=talk.kind,
            asked=talk.asked,
            reference=tuple(a.text for a in theirs),
            answer=tuple(a.text for a in mine),
            gold=talk.gold,
            facts=talk.facts,
            turns=tuple(turns),
            ids=tuple(i for answer in mine for i in answer.ids),
        )

    @staticmethod
    def _shown(talk: Talk, mine: Said) -> dict[str, Any]:
        """What was asked and said, short; on the record once, beside the headline."""
        found: dict[str, Any] = {"question": talk.asked[:SHOWN]}
        found |= {"target": " | ".join(talk.expected)} if talk.expected else {}
        said = mine.get(talk.id)
        return found if said is None else found | {"prediction": [answer.text[:SHOWN] for answer in said]}

    def _item(self, talk: Talk, score: Score, mine: Said, theirs: Said, more: Mapping[str, Any]) -> Item:
        """One score and why it may be missing."""
        given = dict(score.extra)
        flags = list(given.pop("flags", ()))
        if talk.id not in mine:
            flags.append("too_long")
        elif talk.id not in theirs:
            flags.append("no_reference")
        elif any(answer.cut for answer in mine[talk.id]):
            flags.append("cut")
        extra = {"group": talk.group, **talk.extra, **more, **given, "flags": flags}
        return Item(f"{self.name}/{talk.id}", score.metric, score.score, score.weight, extra)


def _read(path: Path) -> Said:
    """The parent's answers; without them every item would quietly have no reference.

    Raises:
        ValueError: they are damaged or gone; names the folder to delete.
    """
    try:
        before = read_json(path)
    except ValueError as error:
        raise damaged(path, error) from None
    if before is None:
        raise damaged(path, FileNotFoundError("it is not there"))
    return {key: [Answer(tuple(a["ids"]), a["text"], a["cut"]) for a in each] for key, each in before.items()}
