"""A judge behind any OpenAI-compatible endpoint; what it was paid for is kept, whatever happens."""

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crunchmark.cache import key_of
from crunchmark.checks import first_line, flag, number, one_of, positive, whole
from crunchmark.files import read_json, writable, write_json
from crunchmark.task import Metric
from tasks.kick.judge.base import Case, Judge, Score, prompts, rated
from tasks.kick.judge.replies import Ratings, combined, message, read, schema

ORDERS = {"both": (True, False), "reference_first": (True,), "answer_first": (False,)}
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
    retries: of 408, 409, 429, 5xx, timeouts and broken connections, with growing waits.
    parallel: requests under way at a time.
    least: share of the requests that must be answered; below, the task fails and can be asked again.
    folder: where replies are kept, by content.
    """

    model: str
    base_url: str
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
            ValueError: one is out of range, or the model or the address is missing.
        """
        for name in ("model", "base_url", "key_env", "folder"):
            if not isinstance(value := getattr(self, name), str) or not value:
                raise ValueError(f"judge.{name}={value!r} is missing; valid: a text")
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"judge.base_url={self.base_url!r} is no address; valid: http(s)://HOST/v1")
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
            ValueError: too few requests were answered; what was answered is kept.
        """
        asks = [ask for case in cases for ask in self._asks(case)]
        known = {ask.key: text for ask in asks if (text := self._known(ask)) is not None}
        todo = list({ask.key: ask for ask in asks if ask.key not in known}.values())
        if todo:
            client, reasons = self._client(), list[str]()
            known |= asyncio.run(self._send(client, todo, reasons))
            answered = sum(ask.key in known for ask in asks)
            if not answered or answered < self.least * len(asks):
                raise ValueError(
                    f"judge {self.model!r} at {self.base_url} answered {answered} of {len(asks)} requests "
                    f"({reasons[-1] if reasons else 'deadline'}); valid: an endpoint that answers; "
                    "what was answered is kept"
                )
        for case in cases:
            replies: dict[bool, list[Ratings | None]] = {}
            for ask in self._asks(case):
                text = known.get(ask.key)
                ratings = None if text is None else read(text, case.kind)
                replies.setdefault(ask.reference_first, []).append(ratings)
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

    def _known(self, ask: Ask) -> str | None:
        """The reply that was paid for before."""
        found = read_json(self._path(ask))
        return None if found is None else str(found["reply"])

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

    async def _send(self, client: Any, todo: Sequence[Ask], reasons: list[str]) -> dict[str, str]:
        """Replies by key; each is on disk as soon as it is here. Why others are missing goes to reasons."""
        from openai import OpenAIError

        end, gate, found = (
            time.monotonic() + self.deadline,
            asyncio.Semaphore(self.parallel),
            dict[str, str](),
        )

        async def one(ask: Ask) -> None:
            async with gate:
                patience = (self.retries + 1) * (
                    self.timeout + WAIT
                )  # a body that drips beats a read timeout
                left = max(0.0, min(end - time.monotonic(), patience))
                body = self._body(ask.case, ask.reference_first)
                try:
                    done = await asyncio.wait_for(client.chat.completions.create(**body), left)
                    text = _text(done)
                except TimeoutError:
                    reasons.append("no whole answer before the deadline")
                except (OpenAIError, ValueError) as error:
                    reasons.append(_reason(error).replace(client.api_key, "***"))
                else:
                    self._keep(ask, text, done)
                    found[ask.key] = text

        async with client:
            await asyncio.gather(*(one(ask) for ask in todo))
        return found

    def _keep(self, ask: Ask, text: str, done: Any) -> None:
        """Write a reply down."""
        record = {
            "reply": text,
            "model": self.model,
            "base_url": self.base_url,
            "case": ask.case.id,
            "reference_first": ask.reference_first,
            "vote": ask.vote,
            "tokens": getattr(getattr(done, "usage", None), "total_tokens", None),
        }
        with writable("judge.folder", Path(self.folder)):
            write_json(self._path(ask), record)


def _text(done: Any) -> str:
    """What a completion says.

    Raises:
        ValueError: the endpoint sent something else.
    """
    choices = getattr(done, "choices", None)
    said = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
    text = getattr(said, "content", None)
    if not isinstance(text, str):
        raise ValueError("it sent something that is no chat completion")
    return text


def _reason(error: BaseException) -> str:
    """One line about a request that failed."""
    status, text = getattr(error, "status_code", None), first_line(error)
    text = text.removeprefix(f"Error code: {status}").removeprefix(" - ")  # the client says it too
    return (f"HTTP {status}: {text}" if status else text)[:200].removesuffix(": ")
