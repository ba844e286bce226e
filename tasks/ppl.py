"""Perplexity of a text over windows, by a protocol that has an id: two ids never share a table."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from crunchmark.calib import context, json_rows
from crunchmark.checks import whole
from crunchmark.hub import resolve, texts
from crunchmark.interface import Item, Metric, Task
from tasks.common import check_items, digest, safe_batch


@dataclass
class Perplexity(Task):
    """Token perplexity, and word perplexity if asked for; one item per window.

    A window's first token has no context and is not predicted, the last window may be shorter, and nothing
    else is left out. With `bos` the text starts with the tokenizer's BOS token, once, if it has one.
    """

    name: str = "ppl"
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
    words: bool = False

    def __post_init__(self) -> None:
        check_items(self.limit, self.batch)
        whole(f"{self.name}.window", self.window, least=2)
        whole(f"{self.name}.stride", self.step)
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

    def protocol(self) -> str:
        """Window and stride to read, then the digest of all that decides the numbers besides the model."""
        parts = {
            "text": hashlib.sha256(self.text.encode("utf-8")).hexdigest(),
            "join": self.join if self.dataset or self._lines else None,
            **({"words": True} if self.words else {}),
            "window": self.window,
            "stride": self.step,
            "bos": self.bos,
            "normalised": "token",
            "limit": self.limit,
            "version": 1,
        }
        return f"ppl-w{self.window}-s{self.step}-{digest(parts)}"

    def metrics(self) -> Mapping[str, Metric]:
        """Token perplexity first, it is the headline."""
        names = ("perplexity", "word_perplexity") if self.words else ("perplexity",)
        return {name: Metric(name, kind="exp", higher_is_better=False) for name in names}

    def run(self, model: Any, tokenizer: Any) -> Iterator[Item]:
        """Score window by window.

        Raises:
            ValueError: The window is longer than the model's context, or the text is too short.
        """
        longest = context(model.config)
        if longest is not None and self.window > longest:
            raise ValueError(f"{self.name}.window={self.window} > the model's context; valid: 2 to {longest}")
        ids = self._ids(tokenizer)
        plan = spans(len(ids), self.window, self.step)
        if not plan:
            raise ValueError(f"{self.name}: {len(ids)} tokens are too few for a window; valid: 2 or more")
        total = sum(count for _, _, count in plan)
        per_token = len(self.text.split()) / total
        device = next(model.parameters()).device
        size = safe_batch(model, self.window) if self.batch == "auto" else int(self.batch)
        todo = iter(plan[: self.limit])
        while group := list(islice(todo, size)):
            for (begin, end, count), nll in zip(group, _losses(model, ids.to(device), group), strict=True):
                yield from self._items(begin, end, count, nll, per_token, len(ids))

    def _ids(self, tokenizer: Any) -> torch.Tensor:
        ids = tokenizer(self.text, add_special_tokens=False, verbose=False)["input_ids"]
        start = [tokenizer.bos_token_id] if self.bos and tokenizer.bos_token_id is not None else []
        return torch.tensor(start + ids)

    def _items(
        self, begin: int, end: int, count: int, nll: float, per_token: float, tokens: int
    ) -> Iterator[Item]:
        """The window's items; the text's words are shared out over its predicted tokens."""
        extra = {"begin": begin, "end": end, "text_tokens": tokens}
        yield Item(f"{self.name}/{begin:08d}", "perplexity", nll / count, count, extra)
        if self.words:
            weight = count * per_token
            yield Item(f"{self.name}/{begin:08d}", "word_perplexity", nll / weight, weight, extra)


def spans(tokens: int, window: int, stride: int) -> list[tuple[int, int, int]]:
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


@torch.no_grad()
def _losses(model: Any, ids: torch.Tensor, group: list[tuple[int, int, int]]) -> list[float]:
    """Summed negative log-likelihood of each span's predicted tokens; shorter spans are run by themselves."""
    lengths = {end - begin for begin, end, _ in group}
    if len(lengths) > 1:
        cut = next(i for i, (b, e, _) in enumerate(group) if e - b != group[0][1] - group[0][0])
        return _losses(model, ids, group[:cut]) + _losses(model, ids, group[cut:])
    block = torch.stack([ids[begin:end] for begin, end, _ in group])
    logits = model(input_ids=block, use_cache=False).logits
    found = []
    for row, target, (_, _, count) in zip(logits, block, group, strict=True):
        loss = F.cross_entropy(row[-count - 1 : -1].float(), target[-count:], reduction="none")
        found.append(float(loss.double().sum()))
    return found
