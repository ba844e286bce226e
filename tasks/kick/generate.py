"""Free answers of a model: one place for prompts, padding, stop strings and sampling.

Prompts are padded on the left and masked, so that a batch answers what each prompt would answer alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from crunchmark.calib import context
from crunchmark.checks import number, whole
from crunchmark.seeds import seed_of
from tasks.common import safe_batch

PLAIN = {"user": "User: {}\n", "assistant": "Assistant: {}\n"}  # where the tokenizer has no chat template
STYLES = ("chat", "raw")


@dataclass(frozen=True)
class Decode:
    """How answers are made.

    max_new_tokens: the budget of one answer.
    stop: the answer ends before the first of these.
    temperature: 0 is greedy; else sampled, each prompt alone with a seed of its own name.
    """

    max_new_tokens: int = 512
    stop: Sequence[str] = ()
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check, and take lists from a config as tuples.

        Raises:
            ValueError: a number is out of range, or a stop string is empty.
        """
        whole("max_new_tokens", self.max_new_tokens)
        number("temperature", self.temperature)
        whole("seed", self.seed, least=0)
        texts = isinstance(self.stop, Sequence) and not isinstance(self.stop, str)
        if not texts or not all(isinstance(s, str) and s for s in self.stop):
            raise ValueError(f"stop={self.stop!r} is no list of texts; valid: a list such as ['\\n']")
        object.__setattr__(self, "stop", tuple(self.stop))


@dataclass(frozen=True)
class Answer:
    """New tokens only: without end token, and without the stop string and what came with it."""

    ids: tuple[int, ...]
    text: str
    cut: bool  # the budget ended it


def prompt_ids(tokenizer: Any, messages: Sequence[str], style: str = "chat") -> list[int]:
    """Token ids of a talk that the model is to go on with.

    Args:
        tokenizer: Its chat template is used where it has one, else `User: ...`, `Assistant: ...`, one a line.
        messages: User and assistant by turns, the user first and last.
        style: "chat", or "raw": question and answer follow each other, questions on lines of their own.
    """
    if style == "raw":
        pairs = [a + b for a, b in zip(messages[::2], messages[1::2], strict=False)]
        return list(tokenizer("\n".join([*pairs, messages[-1]]), verbose=False)["input_ids"])
    roles = ["user" if place % 2 == 0 else "assistant" for place in range(len(messages))]
    if getattr(tokenizer, "chat_template", None):
        talk = [{"role": role, "content": said} for role, said in zip(roles, messages, strict=True)]
        text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    said = "".join(PLAIN[role].format(text) for role, text in zip(roles, messages, strict=True))
    return list(tokenizer(f"{said}Assistant:", verbose=False)["input_ids"])


def stops_of(tokenizer: Any, stop: Sequence[str], style: str) -> tuple[str, ...]:
    """The stop strings; without a chat template a model that goes on to speak for the user is stopped."""
    plain = style == "chat" and not getattr(tokenizer, "chat_template", None)
    return (*stop, "\nUser:") if plain else tuple(stop)


def fits(model: Any, tokens: int) -> bool:
    """Whether that many tokens are within the model's context."""
    longest = context(model.config.get_text_config())
    return longest is None or tokens <= longest


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[tuple[str, list[int]]],
    decode: Decode,
    batch: int | str = "auto",
) -> list[Answer]:
    """Answers to prompts (name, ids), in their order; prompts of like length share a batch.

    The name of a prompt seeds its sampling, so that no answer depends on its neighbours.
    """
    if not prompts:
        return []
    longest = max(len(ids) for _, ids in prompts) + decode.max_new_tokens
    size = safe_batch(model, longest) if batch == "auto" else int(batch)
    size = 1 if decode.temperature else size
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i][1]), i))
    found: dict[int, Answer] = {}
    for start in range(0, len(order), size):
        group = order[start : start + size]
        with torch.random.fork_rng(enabled=decode.temperature > 0):
            if decode.temperature:
                torch.manual_seed(seed_of(decode.seed, prompts[group[0]][0]))
            answers = _batch(model, tokenizer, [prompts[i][1] for i in group], decode)
        found |= dict(zip(group, answers, strict=True))
    return [found[i] for i in range(len(prompts))]


class _Stop(StoppingCriteria):
    """Ends a row where its new text holds a stop string; `ends` keeps the new tokens of each such row."""

    def __init__(self, tokenizer: Any, stop: Sequence[str], start: int) -> None:
        self.tokenizer, self.stop, self.start = tokenizer, stop, start
        self.tail = 4 * max(map(len, stop)) + 4  # tokens in which a stop string that just ended must lie
        self.ends: dict[int, int] = {}

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        new = input_ids[:, self.start :][:, -self.tail :]
        done = torch.zeros(len(new), dtype=torch.bool, device=new.device)
        for row, text in enumerate(self.tokenizer.batch_decode(new)):
            if row not in self.ends and any(s in text for s in self.stop):
                self.ends[row] = input_ids.shape[1] - self.start
            done[row] = row in self.ends
        return done


@torch.no_grad()
def _batch(model: Any, tokenizer: Any, prompts: list[list[int]], decode: Decode) -> list[Answer]:
    """One padded batch; every setting is given, because a checkpoint may bring others of its own."""
    ends = _end_ids(model, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), 0)
    width = max(map(len, prompts))
    device = next(model.parameters()).device
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    stop = _Stop(tokenizer, decode.stop, width) if decode.stop else None
    sampled = {"do_sample": True, "temperature": decode.temperature, "top_k": 0, "top_p": 1.0}
    config = GenerationConfig(
        max_new_tokens=decode.max_new_tokens,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        eos_token_id=ends or None,
        pad_token_id=pad,
        **(sampled if decode.temperature else {"do_sample": False}),
    )
    criteria = StoppingCriteriaList([stop] if stop else [])
    own, model.generation_config = model.generation_config, GenerationConfig()  # else it fills what is None
    try:
        out = model.generate(ids, attention_mask=mask, generation_config=config, stopping_criteria=criteria)
    finally:
        model.generation_config = own
    rows = out[:, width:].tolist()
    return [
        _answer(tokenizer, r, ends, stop.ends.get(i) if stop else None, decode) for i, r in enumerate(rows)
    ]


def _end_ids(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: the tokenizer's and those of the checkpoint's generation settings."""
    own = model.generation_config.eos_token_id
    own = own if isinstance(own, list) else [own]
    return sorted({i for i in (*own, tokenizer.eos_token_id) if i is not None})


def _answer(
    tokenizer: Any, ids: list[int], ends: Sequence[int], stopped: int | None, decode: Decode
) -> Answer:
    """Cut at the end token or before the stop string, whichever came first."""
    ended = next((place for place, token in enumerate(ids) if token in ends), None)
    cut = ended is None and stopped is None
    ids = ids[: min(x for x in (ended, stopped, len(ids)) if x is not None)]
    text = tokenizer.decode(ids, skip_special_tokens=True)
    places = [text.find(s) for s in decode.stop if s in text]
    if not places:
        return Answer(tuple(ids), text, cut)
    text = text[: min(places)]
    while ids and len(tokenizer.decode(ids, skip_special_tokens=True)) > len(text):
        ids = ids[:-1]
    return Answer(tuple(ids), text, cut=False)
