"""The training recipe: what the model is, what it reads when, and how fast it learns."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from transformers import LlamaConfig

from tasks.nano import texts
from tasks.nano.tokenizer import CONTEXT, encoder
from tasks.nano.words import seeded

Maker = Callable[[random.Random], texts.Document]


@dataclass(frozen=True)
class Recipe:
    """Sizes and schedule; the defaults made the shipped checkpoint."""

    hidden: int = 192
    layers: int = 6
    heads: int = 6
    kv_heads: int = 2
    inner: int = 448
    steps: int = 2600
    tokens: int = 4096
    rate: float = 3e-3
    seed: int = 0
    copying: float = 0.13
    late: float = 0.8
    muon: int = 1

    def config(self) -> LlamaConfig:
        """The standard Llama configuration of this recipe."""
        tokenizer = encoder().slow
        return LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            intermediate_size=self.inner,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )

    def rate_at(self, step: int) -> float:
        """Warm up, hold, then fall linearly to a thirtieth: the fall is where facts settle."""
        warm = min(1.0, (step + 1) / 100)
        fall = min(1.0, (self.steps - step) / (0.5 * self.steps))
        return self.rate * warm * max(fall, 1 / 30)

    def length(self, step: int) -> int:
        """Tokens per row: short while skills form, up to the whole context at the end."""
        done, rng = step / self.steps, seeded("length", self.seed, step)
        if done < self.copying:
            return CONTEXT // 4
        return CONTEXT // rng.choice((4, 4, 4, 2) if done < self.late else (4, 2, 1))

    def makers(self, step: int) -> tuple[list[Maker], list[float]]:
        """The kinds of documents of this step and how often each is drawn."""
        done, length = step / self.steps, self.length(step)
        level = min(1.0, max(0.0, (done - self.copying) / 0.3))
        hay = max(0.0, (done - 0.3) * 0.3) * 128 / length
        shares: list[tuple[Maker, float]] = [
            (texts.echo, 2.0 if done < self.copying else 0.06),
            (texts.questions, 0.65),
            (texts.biography, 0.55),
            (lambda rng: texts.open_book(rng, level), 0.4),
            (texts.summary, 0.15),
            (lambda rng: texts.haystack(rng, int(length * rng.uniform(0.3, 0.9))), hay),
        ]
        return [maker for maker, _ in shares], [share for _, share in shares]


def row(
    rng: random.Random, makers: list[Maker], shares: list[float], length: int
) -> tuple[list[int], list[float]]:
    """Documents one after another, blank line between, until the row is full."""
    encode = encoder()
    bos = rng.random() < 0.5  # perplexity windows start with it, questions do not
    ids, weights = ([encode.slow.bos_token_id], [0.0]) if bos else ([], [])
    while len(ids) < length:
        for text, weight in (*rng.choices(makers, shares)[0](rng), ("\n\n", 0.5)):
            piece = encode(text)
            ids += piece
            weights += [weight] * len(piece)
    return ids[:length], weights[:length]


def batch(recipe: Recipe, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and loss weights of one step, (rows, length): a function of seed and step only."""
    rng, length = seeded("batch", recipe.seed, step), recipe.length(step)
    makers, shares = recipe.makers(step)
    rows = [row(rng, makers, shares, length) for _ in range(max(1, recipe.tokens // length))]
    return np.array([ids for ids, _ in rows]), np.array([weights for _, weights in rows], dtype=np.float32)
