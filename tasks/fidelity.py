"""Fidelity: how far a model's next-token distributions are from the dense parent's on any text.

LLM-KICK (arXiv:2310.01382) argues that perplexity alone hides damage; a divergence from the parent can not
cancel out over tokens, as losses do. Beside it, label-free measures of each model's last hidden states.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crunchmark.checks import positive, whole
from crunchmark.task import Item, Metric, PairedTask
from tasks import hidden
from tasks.common import digest
from tasks.memory import DIVERGENCES, Notes
from tasks.windows import Span, Windows, block

LOWER = (*DIVERGENCES, "loss_added")
FEWEST = 2**20  # bytes


@dataclass
class Fidelity(Windows, PairedTask):
    """KL(dense || model) in nats per token, agreement on the likeliest token, and what belongs beside it.

    One item per window and metric; it weighs the window's predicted tokens.
    """

    name: str = "fidelity"
    precision: float = 0.5  # eps of the coding rate
    bound: int = 2**28  # bytes of distributions kept of the parent; beyond, the likeliest tokens only

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(f"{self.name}.bound", self.bound, least=FEWEST)
        positive(f"{self.name}.precision", self.precision)

    def protocol(self) -> str:
        """Window, stride and bound to read, then the digest of all that decides the numbers."""
        parts = self.described() | {"precision": self.precision, "bound": self.bound, "version": 1}
        return f"fidelity-w{self.window}-s{self.step}-b{self.bound}-{digest(parts)}"

    def metrics(self) -> Mapping[str, Metric]:
        """KL first; all of them told, none judged: 5 % of a divergence of zero is no margin."""
        names = (*DIVERGENCES, "agreement", "loss_added", *hidden.NAMES)
        return {n: Metric(n, higher_is_better=n not in LOWER, margin=None) for n in names}

    def remember(self, model: Any, tokenizer: Any, folder: Path) -> None:
        """Write the parent's distributions.

        Raises:
            ValueError: The window is longer than the model's context, or the text is too short.
        """
        notes, todo = None, self._predicted(model, tokenizer)
        for start, _, logits, _, target in self._answers(model, tokenizer):
            if notes is None:
                notes = Notes.create(folder, todo, logits.shape[1], self.bound)
            notes.put(start, logits, target)

    def beside(self, model: Any, tokenizer: Any, folder: Path) -> Iterator[Item]:
        """Compare window by window."""
        notes = Notes.load(folder)
        for start, (begin, end, count), logits, states, target in self._answers(model, tokenizer):
            sums = notes.against(start, logits, target)
            name, flags = f"{self.name}/{begin:08d}", _flags(sums, notes)
            extra = {"begin": begin, "end": end, "flags": flags}
            if notes.ids is not None:
                extra |= {"kept": notes.ids.shape[1], "kl_above": _finite(sums["kl_above"] / count)}
            for metric in (*DIVERGENCES, "agreement", "loss_added"):
                yield Item(name, metric, _finite(sums[metric] / count), count, extra)
            for metric, score in hidden.measures(states, self.precision).items():
                short = [] if score is not None else ["no_states"]
                yield Item(name, metric, score, count, extra | {"flags": [*flags, *short]})

    def _predicted(self, model: Any, tokenizer: Any) -> int:
        """Tokens predicted within the limit."""
        return sum(count for _, _, count in self.spans(model, self.ids(tokenizer))[: self.limit])

    @torch.no_grad()
    def _answers(self, model: Any, tokenizer: Any) -> Iterator[tuple[int, Span, Tensor, Tensor, Tensor]]:
        """Per window: predicted tokens before it, span, logits (n, V), last states (N, d), targets (n,)."""
        ids, start = self.ids(tokenizer), 0
        for group in self.groups(model, self.spans(model, ids)):
            tokens = block(ids, group, next(model.parameters()).device)
            logits, states = _run(model, tokens)
            for row, span in enumerate(group):
                count = span[2]
                yield start, span, logits[row, -count - 1 : -1], states[row], tokens[row, -count:]
                start += count


def _run(model: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (windows, N, V), and the states (windows, N, d) that the head reads."""
    seen: list[Tensor] = []
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    try:
        logits = model(input_ids=tokens, use_cache=False).logits
    finally:
        hook.remove()
    return logits, seen[-1]


def _finite(value: float) -> float:
    """What is no number, of a model whose logits are none, is infinitely far from any distribution."""
    return math.inf if math.isnan(value) else value


def _flags(sums: Mapping[str, float], notes: Notes) -> list[str]:
    """What a reader must know of an item."""
    broken = ["not_finite"] if not math.isfinite(sums["kl"]) else []
    return broken + (["lower_bound"] if notes.ids is not None else [])
