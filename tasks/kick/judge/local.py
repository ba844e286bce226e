"""A judge on this machine: any causal LM; its score is what it expects the rating to be."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from crunchmark.checks import number
from crunchmark.keys import key_of
from crunchmark.machine import check_device
from crunchmark.models import ModelSpec, dtype_of
from crunchmark.task import Metric
from tasks.kick.generate import fits, prompt_ids
from tasks.kick.judge.base import HIGH, LOW, Case, Judge, Score, aspects, prompts, question, rated


@dataclass(frozen=True)
class LocalJudge(Judge):
    """Expected rating 1..10 under the judge's next-token distribution, both orders averaged.

    Nothing is sampled and nothing is parsed. It is in memory beside the judged model.

    path, revision: a folder or hub id.
    compute: dtype it runs in.
    device: where it runs; null: where the judged model is.
    mass: probability that must lie on ratings at all; below, there is no score.
    """

    path: str = ""
    revision: str | None = None
    compute: str = "float32"
    device: str | None = None
    mass: float = 0.01

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: mass, compute or device is out of range, or the path is missing.
        """
        if not isinstance(self.path, str) or not self.path:
            raise ValueError(f"judge.path={self.path!r} is missing; valid: a folder or hub id")
        number("judge.mass", self.mass)
        if self.mass > 1:
            raise ValueError(f"judge.mass={self.mass!r} is out of range; valid: 0 to 1")
        if self.device is not None:
            check_device(self.device)
        dtype_of("judge.compute", self.compute)

    @cached_property
    def spec(self) -> ModelSpec:
        """Its files."""
        return ModelSpec(self.path, revision=self.revision)

    def protocol(self) -> dict[str, Any]:
        """Its weights and what it is asked."""
        own = {"model": self.spec.fingerprint, "compute": self.compute, "mass": self.mass}
        return {"judge": "local", "version": 1, "prompts": key_of(prompts=prompts()), **own}

    def metrics(self, kind: str, gold: bool = False, facts: bool = False) -> dict[str, Metric]:
        """One per aspect."""
        return rated(kind)

    def judge(self, cases: Sequence[Case], model: Any, tokenizer: Any) -> Iterator[Score]:
        """Load the judge, rate everything, let it go."""
        own, judge = self.spec.tokenizer(), self.spec.load()
        device = self.device or next(model.parameters()).device
        judge.to(device, dtype_of("judge.compute", self.compute))
        for case in cases:
            for aspect in aspects(case.kind):
                yield self._score(judge, own, case, aspect)

    def _score(self, judge: Any, tokenizer: Any, case: Case, aspect: str) -> Score:
        """The mean of the two orders; None where one of them has none."""
        found = [self._order(judge, tokenizer, case, aspect, first) for first in (True, False)]
        extra: dict[str, Any] = {"judge": self.spec.title, "rated_mass": min(mass for _, mass in found)}
        if any(math.isnan(value) for value, _ in found):
            return Score(case.id, f"judge_{aspect}", None, extra=extra | {"flags": ["unjudged"]})
        return Score(case.id, f"judge_{aspect}", sum(value for value, _ in found) / 2, extra=extra)

    def _order(self, judge: Any, tokenizer: Any, case: Case, aspect: str, first: bool) -> tuple[float, float]:
        """Expected rating in one order and the probability of any rating; nan where it is too small."""
        which = 2 if first else 1
        ask = str(prompts()["rating"]).format(which=which, aspect=aspect, low=LOW, high=HIGH)
        if tokenizer.chat_template:
            begun = tokenizer(ask.strip(), add_special_tokens=False)["input_ids"]
            ids = prompt_ids(tokenizer, [question(case, first)]) + list(begun)
        else:
            ids = prompt_ids(tokenizer, [question(case, first) + ask], style="raw")
        tails = rating_ids(tokenizer)
        if not fits(judge, len(ids) + max(map(len, tails.values()))):
            return math.nan, 0.0
        chances = spread(judge, ids, tails)
        mass = sum(chances.values())
        if not mass >= self.mass:
            return math.nan, mass
        return sum(rating * p for rating, p in chances.items()) / mass, mass


def rating_ids(tokenizer: Any) -> dict[int, list[int]]:
    """What says each rating after a word: a space and the number; 10 may begin with the token of 1."""
    word = tokenizer("a", add_special_tokens=False)["input_ids"]  # what begins a text is spelled otherwise
    return {
        rating: list(tokenizer(f"a {rating}", add_special_tokens=False)["input_ids"][len(word) :])
        for rating in range(LOW, HIGH + 1)
    }


@torch.no_grad()
def spread(model: Any, ids: list[int], tails: Mapping[int, Sequence[int]]) -> dict[int, float]:
    """Probability that the model goes on with each tail; a tail that begins another is without it."""
    device = next(model.parameters()).device
    logits = model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0, -1]
    chances, found = logits.double().softmax(-1), dict[int, float]()
    for token in {tail[0] for tail in tails.values()}:
        group = {key: tail[1:] for key, tail in tails.items() if tail[0] == token}
        longer = {key: rest for key, rest in group.items() if rest}
        deeper = spread(model, [*ids, token], longer) if longer else {}
        here = float(chances[token])
        left = here * (1 - sum(deeper.values()))
        found |= {key: here * deeper[key] if key in deeper else left for key in group}
    return found
