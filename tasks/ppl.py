"""Perplexity of a text over windows, by a protocol that has an id: two ids never share a table."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from crunchmark.task import Item, Metric, Task
from tasks.common import digest
from tasks.windows import Span, Windows, block


@dataclass
class Perplexity(Windows, Task):
    """Token perplexity, and word perplexity if asked for; one item per window."""

    name: str = "ppl"
    words: bool = False

    def protocol(self) -> str:
        """Window and stride to read, then the digest of all that decides the numbers besides the model."""
        words = {"words": True} if self.words else {}
        parts = self.described() | words | {"normalised": "token", "version": 1}
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
        ids = self.ids(tokenizer)
        plan = self.spans(model, ids)
        total = sum(count for _, _, count in plan)
        per_token = len(self.text.split()) / total
        for group in self.groups(model, plan):
            for (begin, end, count), nll in zip(group, _losses(model, ids, group), strict=True):
                yield from self._items(begin, end, count, nll, per_token, len(ids))

    def _items(
        self, begin: int, end: int, count: int, nll: float, per_token: float, tokens: int
    ) -> Iterator[Item]:
        """The window's items; the text's words are shared out over its predicted tokens."""
        extra = {"begin": begin, "end": end, "text_tokens": tokens}
        yield Item(f"{self.name}/{begin:08d}", "perplexity", nll / count, count, extra)
        if self.words:
            weight = count * per_token
            yield Item(f"{self.name}/{begin:08d}", "word_perplexity", nll / weight, weight, extra)


@torch.no_grad()
def _losses(model: Any, ids: torch.Tensor, group: list[Span]) -> list[float]:
    """Summed negative log-likelihood of each span's predicted tokens; the spans are of one length."""
    tokens = block(ids, group, next(model.parameters()).device)
    logits = model(input_ids=tokens, use_cache=False).logits
    found = []
    for row, target, (_, _, count) in zip(logits, tokens, group, strict=True):
        loss = F.cross_entropy(row[-count - 1 : -1].float(), target[-count:], reduction="none")
        found.append(float(loss.double().sum()))
    return found
