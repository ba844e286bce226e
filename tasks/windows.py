"""Windows over any text: which tokens a task sees, which of them it predicts, and how an id names it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import torch

from crunchmark.calib import context, json_rows
from crunchmark.checks import flag, whole
from crunchmark.hub import resolve, texts
from tasks.common import check_items, safe_batch

Span = tuple[int, int, int]  # begin, end, predicted: the last `predicted` tokens of text[begin:end]


@dataclass
class Windows:
    """A text cut into windows.

    A window's first token has no context and is not predicted, the last window may be shorter, and nothing
    else is left out. With `bos` the text starts with the tokenizer's BOS token, once, if it has one.
    """

    name: str = "text"
    path: str | None = None  # text file, or jsonl with `field` in each line
    dataset: str | None = None  # or a data set: a folder, one below CRUNCHMARK_DATA, or a hub id
    config: str | None = None
    revision: str | None = None
    split: str = "test"
    field: str = "text"
    window: int = 2048
    stride: int | None = None  # None: the window, no overlap
    bos: bool = False
    join: str = "\n\n"  # between the rows of a jsonl or data set
    limit: int | None = None  # windows
    batch: int | str = "auto"

    def __post_init__(self) -> None:
        check_items(self.limit, self.batch)
        whole(f"{self.name}.window", self.window, least=2)
        whole(f"{self.name}.stride", self.step)
        flag(f"{self.name}.bos", self.bos)
        if self.step > self.window:
            raise ValueError(f"{self.name}.stride={self.stride} is out of range; valid: 1 to {self.window}")
        if bool(self.path) == bool(self.dataset):
            raise ValueError(
                f"{self.name}.path={self.path!r}, {self.name}.dataset={self.dataset!r}; valid: one of them, "
                f"as task.{self.name}.path=FILE.txt (or .jsonl) or task.{self.name}.dataset=NAME, other null"
            )

    @property
    def step(self) -> int:
        """Tokens from one window's start to the next's."""
        return self.window if self.stride is None else self.stride

    @cached_property
    def text(self) -> str:
        """The whole text, rows joined.

        Raises:
            ValueError: It is not here, is no text, or has rows without the field.
        """
        if self.dataset:
            where = (self.config, self.split, self.field, self.revision)
            try:
                return self.join.join(texts(self.dataset, *where))
            except ValueError as error:
                raise ValueError(f"{self.name}: {error}") from None
        file = resolve(self.path or "")
        try:
            text = file.read_bytes().decode("utf-8")
        except OSError as error:
            raise ValueError(f"{self.name}.path={self.path!r}: no text at {file}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.name}.path={self.path!r} is no utf-8 text: {error.reason}") from None
        return self.join.join(json_rows(self.path or "", text, self.field)) if self._lines else text

    @property
    def _lines(self) -> bool:
        """Whether the text is the field of a file's JSON lines."""
        return Path(self.path or "").suffix == ".jsonl"

    def described(self) -> dict[str, Any]:
        """What decides the windows, for a protocol id."""
        return {
            "text": hashlib.sha256(self.text.encode("utf-8")).hexdigest(),
            "join": self.join if self.dataset or self._lines else None,
            "window": self.window,
            "stride": self.step,
            "bos": self.bos,
            "limit": self.limit,
        }

    def ids(self, tokenizer: Any) -> torch.Tensor:
        """The text's token ids (tokens,)."""
        ids = tokenizer(self.text, add_special_tokens=False, verbose=False)["input_ids"]
        start = [tokenizer.bos_token_id] if self.bos and tokenizer.bos_token_id is not None else []
        return torch.tensor(start + ids)

    def spans(self, model: Any, ids: torch.Tensor) -> list[Span]:
        """All windows of the text, whatever the limit.

        Raises:
            ValueError: The window is longer than the model's context, or the text is too short.
        """
        longest = context(model.config)
        if longest is not None and self.window > longest:
            raise ValueError(f"{self.name}.window={self.window} > the model's context; valid: 2 to {longest}")
        plan = spans(len(ids), self.window, self.step)
        if not plan:
            raise ValueError(f"{self.name}: {len(ids)} tokens are too few for a window; valid: 2 or more")
        return plan

    def groups(self, model: Any, plan: list[Span]) -> Iterator[list[Span]]:
        """The windows up to the limit, as many of one length together as the model takes at a time."""
        size = safe_batch(model, self.window) if self.batch == "auto" else int(self.batch)
        todo = iter(plan[: self.limit])
        while group := list(islice(todo, size)):
            yield from _even(group)


def block(ids: torch.Tensor, group: list[Span], device: torch.device) -> torch.Tensor:
    """The group's tokens (windows, window) on the device."""
    return torch.stack([ids[begin:end] for begin, end, _ in group]).to(device)


def _even(group: list[Span]) -> Iterator[list[Span]]:
    """The group in runs of equal length."""
    for _, run in groupby(group, key=lambda span: span[1] - span[0]):
        yield list(run)


def spans(tokens: int, window: int, stride: int) -> list[Span]:
    """Windows as (begin, end, predicted): the last `predicted` tokens of each, no token predicted twice."""
    found, done = [], 0
    for begin in range(0, tokens, stride):
        end = min(begin + window, tokens)
        count = min(end - done, end - begin - 1)
        if count > 0:
            found.append((begin, end, count))
        done = end
        if end == tokens:
            break
    return found
