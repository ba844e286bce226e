"""Prompts that fit the model's context: shots go first, then the left of the question; every cut is counted.

Evidence is a window of tokens; questions without an alias in it have no place in an open-book test.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

from crunchmark.checks import Malformed
from tasks.kick.match import contains
from tasks.samples import room

JOINT = 2  # tokens that joining evidence and question may cost


class Fit:
    """The cuts one model needs, by "task/id" of the document."""

    def __init__(self, lm: Any) -> None:
        self.lm = lm
        self.cuts: dict[str, list[str]] = defaultdict(list)
        self.evidence: dict[str, bool] = {}  # whether the window holds an alias

    @contextmanager
    def on(self, task: Any, limit: int | None) -> Iterator[None]:
        """Inside, the task's prompts fit and its documents have their evidence.

        Raises:
            Malformed: No document's window holds an alias, or the answer alone is longer than the context.
        """
        if self.room(task) < 1:
            raise Malformed(
                f"generation_kwargs={task.get_config('generation_kwargs')} leaves no room for a prompt; "
                f"valid: fewer new tokens than the context of {self.lm.max_length}"
            )
        data, rule = task.dataset, _rule(task)
        if "window" in rule:
            task.dataset = {**data, task.get_config("test_split"): self._open(task, limit)}
        task.fewshot_context = partial(self._prompt, task, task.fewshot_context)
        if "new_per_token" in rule:
            task.construct_requests = partial(self._requests, task, task.construct_requests)
        try:
            yield
        finally:
            task.dataset = data
            for name in ("fewshot_context", "construct_requests"):
                vars(task).pop(name, None)

    def room(self, task: Any) -> int:
        """Tokens a prompt of the task may have."""
        rule, asked = _rule(task), task.get_config("generation_kwargs")
        if "new_per_token" in rule:
            return int(self.lm.max_length) // (1 + rule["new_per_token"])
        choices = task.get_config("doc_to_choice") or []
        longest = max((len(self._encode(f" {choice}")) for choice in choices), default=0)
        return min(
            rule.get("context", self.lm.max_length), room(self.lm, asked), self.lm.max_length - longest
        )

    def _prompt(
        self, task: Any, build: Callable[..., str], doc: Mapping[str, Any], num_fewshot: int, **how: Any
    ) -> str:
        """The prompt with as many shots as fit; where none do, its end."""
        most, text = self.room(task), ""
        for shots in range(num_fewshot, -1, -1):
            text = build(doc, shots, **how)
            if self._count(text) <= most:
                break
        cuts = self.cuts[_key(task, doc)]
        if shots < num_fewshot:
            cuts.append("fewer_shots")
        if self._count(text) > most:
            cuts.append("truncated")
            text = self._tail(text, most)
        return text

    def _requests(self, task: Any, build: Callable[..., Any], doc: Any, ctx: str, **how: Any) -> Any:
        """As many new tokens as the prompt's length allows."""
        asked = build(doc, ctx, **how)
        count = self._count(ctx) * _rule(task)["new_per_token"]
        asked.arguments = (ctx, asked.arguments[1] | {"max_gen_toks": count})
        return asked

    def _open(self, task: Any, limit: int | None) -> Any:
        """The documents whose window of evidence holds an alias."""
        from datasets import Dataset

        docs = [self._window(task, doc) for doc in islice(task.eval_docs, limit)]
        kept = [doc for doc in docs if contains(doc["evidence"], doc["aliases"])]
        held = {doc["id"] for doc in kept}
        self.evidence |= {_key(task, doc): doc["id"] in held for doc in docs}
        if not kept:
            raise Malformed(
                f"none of {len(docs)} questions has an alias in the first {_rule(task)['window']} tokens of "
                f"evidence, or in what fits the context of {self.lm.max_length}"
            )
        return Dataset.from_list(kept)

    def _window(self, task: Any, doc: Mapping[str, Any]) -> dict[str, Any]:
        """The document with the first tokens of its evidence."""
        wanted = _rule(task)["window"]
        bare = task.fewshot_context({**doc, "evidence": ""}, num_fewshot=0)
        most = max(0, min(wanted, self.room(task) - self._count(bare) - JOINT))
        spans = self._spans(doc["evidence"])
        if most < min(wanted, len(spans)):
            self.cuts[_key(task, doc)].append("truncated")
        return {**doc, "evidence": doc["evidence"][: spans[:most][-1][1]] if spans[:most] else ""}

    def _tail(self, text: str, most: int) -> str:
        """The end of a text that has at most so many tokens, special ones counted."""
        spans = self._spans(text)
        for start, _ in spans[max(0, len(spans) - most) :]:
            if self._count(text[start:]) <= most:
                return text[start:]
        return ""

    def _count(self, text: str) -> int:
        return len(self.lm.tok_encode(text))

    def _encode(self, text: str) -> list[int]:
        return self.lm.tok_encode(text, add_special_tokens=False)

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Where each token begins and ends in the text, (start, end) in characters.

        Raises:
            Malformed: The tokenizer can not say.
        """
        if not self.lm.tokenizer.is_fast:
            raise Malformed(
                f"{type(self.lm.tokenizer).__name__} does not say where tokens lie; valid: a fast one"
            )
        return self.lm.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)[
            "offset_mapping"
        ]


def _rule(task: Any) -> Mapping[str, Any]:
    return task.get_config("metadata") or {}


def _key(task: Any, doc: Mapping[str, Any]) -> str:
    return f"{task.task_name}/{doc['id']}"
