"""A judge behind any OpenAI-compatible endpoint; what it was paid for is kept, whatever happens."""

import asyncio
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crunchmark.checks import first_line, flag, number, one_of, positive, whole
from crunchmark.files import read_json, writable, write_json
from crunchmark.keys import key_of
from crunchmark.task import Metric
from tasks.kick.judge.base import Case, Judge, Score, prompts, rated
from tasks.kick.judge.replies import Ratings, combined, message, ratings_of, read, said, schema

ORDERS = {"both": (True, False), "reference_first": (True,), "answer_first": (False,)}
TEXTS = {  # settings without which nothing can be asked, and what they are
    "model": "the id of a model that the endpoint serves",
    "base_url": "http(s)://HOST/v1",
    "folder": "a folder",
}
WAIT = 10.0  # seconds between tries that the client may add to each


@dataclass(frozen=True)
class Ask:
    """One request: a case, an order, a vote."""

    case: Case
    reference_first: bool
    vote: int
    key: str  # of its content


@dataclass(frozen=True)
class ApiJudge(Judge):
    """Rates every answer beside the dense parent's, in both orders, `votes` times.

    model: pinned id; it is the judge's identity, so two servers that serve different weights need two ids.
    key_env: the environment variable that holds the key; the key itself is stored nowhere.
    structured: ask for a reply by JSON schema; false for endpoints that have no such thing.
    timeout, deadline: seconds, of one try and of all cases together.
    retries: of 408, 409, 429, 5xx, timeouts and broken connections, with growing waits; and of replies
        that cannot be read.
    parallel: requests under way at a time.
    least: share of the requests that must get a reply that can be read; below, the task fails and can be
        asked again.
    folder: where replies that can be read are kept, by content.
    """

    model: str = ""
    base_url: str = ""
    key_env: str = "OPENAI_API_KEY"
    votes: int = 1
    orders: str = "both"
    temperature: float = 0.0
    max_tokens: int = 512
    structured: bool = True
    timeout: float = 60.0
    deadline: float = 3600.0
    retries: int = 4
    parallel: int = 4
    least: float = 0.0
    folder: str = ".cache/crunchmark/judge"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: one is out of range or missing, or a key is where it would be stored.
        """
        for name, valid in TEXTS.items():
            if not isinstance(value := getattr(self, name), str) or not value:
                wrong = "no text" if value else "missing"
                raise ValueError(f"judge.{name}={value!r} is {wrong}; valid: {valid}")
        _check_address(self.base_url)
        if not isinstance(self.key_env, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key_env):
            # it may be the key itself, which no message may repeat
            raise ValueError("judge.key_env is no name; valid: the name of the variable that holds the key")
        one_of("judge.orders", self.orders, ORDERS)
        flag("judge.structured", self.structured)
        for name in ("votes", "max_tokens", "parallel"):
            whole(f"judge.{name}", getattr(self, name))
        whole("judge.retries", self.retries, least=0)
        for name in ("timeout", "deadline"):
            positive(f"judge.{name}", getattr(self, name))
        for name in ("temperature", "least"):
            number(f"judge.{name}", getattr(self, name))
        if self.least > 1:
            raise ValueError(f"judge.least={self.least!r} is out of range; valid: 0 to 1")

    def protocol(self) -> dict[str, Any]:
        """The model and what it is asked; not where it answers, nor how patiently."""
        names = ("model", "votes", "orders", "temperature", "max_tokens", "structured")
        own = {name: getattr(self, name) for name in names}
        return {"judge": "api", "version": 1, "prompts": key_of(prompts=prompts()), **own}

    def metrics(self, kind: str, gold: bool = False, facts: bool = False) -> dict[str, Metric]:
        """One per aspect."""
        return rated(kind)

    def judge(self, cases: Sequence[Case], model: Any, tokenizer: Any) -> Iterator[Score]:
        """Ask what is not in the folder yet, then score everything.

        Raises:
            ValueError: too few replies can be read; those are kept.
        """
        asks = [ask for case in cases for ask in self._asks(case)]
        known = {ask.key: ratings for ask in asks if (ratings := self._known(ask)) is not None}
        todo = list({ask.key: ask for ask in asks if ask.key not in known}.values())
        if todo:
            client, reasons = self._client(), list[str]()
            known |= asyncio.run(self._send(client, todo, reasons))
            answered = sum(ask.key in known for ask in asks)
            if not answered or answered < self.least * len(asks):
                raise ValueError(
                    f"judge {self.model!r} at {self.base_url} answered {answered} of {len(asks)} requests "
                    f"({reasons[-1] if reasons else 'deadline'}); valid: an endpoint that answers as asked; "
                    "what can be read is kept"
                )
        for case in cases:
            replies: dict[bool, list[Ratings | None]] = {}
            for ask in self._asks(case):
                replies.setdefault(ask.reference_first, []).append(known.get(ask.key))
            yield from combined(case, replies, self.model)

    def _asks(self, case: Case) -> list[Ask]:
        """Every order and vote of a case; the key is over all that the reply depends on."""
        found = []
        for first in ORDERS[self.orders]:
            body = self._body(case, first)
            found += [Ask(case, first, vote, key_of(vote=vote, **body)) for vote in range(self.votes)]
        return found

    def _body(self, case: Case, reference_first: bool) -> dict[str, Any]:
        """What is sent."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": message(case, reference_first)}],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        return body | ({"response_format": schema(case.kind)} if self.structured else {})

    def _path(self, ask: Ask) -> Path:
        return Path(self.folder) / f"{ask.key}.json"

    def _known(self, ask: Ask) -> Ratings | None:
        """The reply that was paid for before; one that cannot be read is as good as none."""
        with writable("judge.folder", Path(self.folder)):
            found = read_json(self._path(ask))
        return None if found is None else read(str(found["reply"]), ask.case.kind)

    def _client(self) -> Any:
        """The client; its own retries wait longer each time and heed Retry-After.

        Raises:
            ValueError: it is not installed, or there is no key.
        """
        try:
            from openai import AsyncOpenAI
        except ImportError:
            raise ValueError(
                "judge: the openai package is not installed; valid: pip install 'crunchmark-bench[judge]'"
            ) from None
        key = os.environ.get(self.key_env)
        if not key:
            raise ValueError(
                f"judge.key_env={self.key_env!r}: the environment variable is not set; valid: one that holds "
                "the endpoint's key (any text where it wants none)"
            )
        return AsyncOpenAI(
            api_key=key, base_url=self.base_url, timeout=self.timeout, max_retries=self.retries
        )

    async def _send(self, client: Any, todo: Sequence[Ask], reasons: list[str]) -> dict[str, Ratings]:
        """Ratings by key; each is on disk as soon as it is here. Why others are missing goes to reasons."""
        from openai import OpenAIError

        end, gate = time.monotonic() + self.deadline, asyncio.Semaphore(self.parallel)
        patience = (self.retries + 1) * (self.timeout + WAIT)  # a body that drips beats a read timeout
        found: dict[str, Ratings] = {}

        async def one(ask: Ask) -> None:
            async with gate:
                left = max(0.0, min(end - time.monotonic(), patience))
                try:
                    done, ratings = await asyncio.wait_for(self._rated(client, ask), left)
                except TimeoutError:
                    reasons.append("no whole answer before the deadline")
                except (OpenAIError, ValueError) as error:
                    reasons.append(_reason(error).replace(client.api_key, "***"))
                else:
                    self._keep(ask, done)
                    found[ask.key] = ratings

        async with client:
            await asyncio.gather(*(one(ask) for ask in todo))
        return found

    async def _rated(self, client: Any, ask: Ask) -> tuple[Any, Ratings]:
        """The first completion that can be read, and its ratings.

        Raises:
            ValueError: none of the tries brought one.
        """
        body, problem = self._body(ask.case, ask.reference_first), ValueError()
        for _ in range(self.retries + 1):
            try:
                done = await client.chat.completions.create(**body)
                return done, ratings_of(done, ask.case.kind)
            except ValueError as error:
                problem = error
        raise problem

    def _keep(self, ask: Ask, done: Any) -> None:
        """Write a reply down."""
        record = {
            "reply": said(done),
            "model": self.model,
            "base_url": self.base_url,
            "case": ask.case.id,
            "reference_first": ask.reference_first,
            "vote": ask.vote,
            "tokens": getattr(getattr(done, "usage", None), "total_tokens", None),
        }
        with writable("judge.folder", Path(self.folder)):
            write_json(self._path(ask), record)


def _check_address(address: str) -> None:
    """The address goes into rows and files, so that it may hold no key.

    Raises:
        ValueError: it may hold one, which no message may repeat, or it is none.
    """
    if set(address) & set("@?#"):
        raise ValueError(
            f"judge.base_url holds a user, a key or a query; valid: {TEXTS['base_url']} alone, "
            "and the key in the environment variable that judge.key_env names"
        )
    if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", address):
        raise ValueError(f"judge.base_url={address!r} is no address; valid: {TEXTS['base_url']}")


def _reason(error: BaseException) -> str:
    """One line about a request that failed."""
    status, text = getattr(error, "status_code", None), first_line(error)
    text = text.removeprefix(f"Error code: {status}").removeprefix(" - ")  # the client says it too
    return (f"HTTP {status}: {text}" if status else text)[:200].removesuffix(": ")
