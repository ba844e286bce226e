"""No judge at all: what can be counted offline, on every machine the same."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from crunchmark.task import Metric
from tasks.common import safe_batch
from tasks.kick.judge.base import Case, Judge, Score

TOLD = {  # name: more is better; they have no margin: 5 % of what dense repeats is no goal
    "agree_f1": True,
    "agree_exact": True,
    "distinct": True,
    "distinct_2": True,
    "length": True,
    "repetition": False,
}
Turns = Sequence[tuple[Sequence[int], Sequence[int]]]  # (prompt ids, answer ids) of a talk
RUN = 4  # words of a run that counts as repeated when it was there before


@dataclass(frozen=True)
class Proxies(Judge):
    """ROUGE-L against the gold text, facts stated, and how close to the dense parent's own answer.

    The headline is `covered` where a case has facts, else `rouge_l` where it has a gold text, else
    `answer_ppl`: the perplexity, under the judged model, of what the dense parent answered.
    """

    def protocol(self) -> dict[str, Any]:
        """Its version: raised when a formula changes."""
        return {"judge": "proxies", "version": 1}

    def metrics(self, kind: str, gold: bool = False, facts: bool = False) -> dict[str, Metric]:
        """Headline first; distances from dense are told, not judged against a margin."""
        found = {"covered": Metric("covered", chance=0.0)} if facts else {}
        found |= {"rouge_l": Metric("rouge_l")} if gold else {}
        found["answer_ppl"] = Metric("answer_ppl", kind="exp", higher_is_better=False)
        return found | {
            name: Metric(name, higher_is_better=better, margin=None) for name, better in TOLD.items()
        }

    def judge(self, cases: Sequence[Case], model: Any, tokenizer: Any) -> Iterator[Score]:
        """All of it, case by case; an empty dense answer has no perplexity."""
        losses = answer_losses(model, [case.turns for case in cases])
        for case, (loss, tokens) in zip(cases, losses, strict=True):
            found = told(case)
            if case.facts:
                found["covered"] = covered(case.facts, "\n".join(case.answer))
            if case.gold is not None:
                found["rouge_l"] = rouge_l(case.gold, "\n".join(case.answer))
            for name, value in found.items():
                yield Score(case.id, name, value)
            per_token = loss / tokens if tokens else None
            yield Score(case.id, "answer_ppl", per_token, float(tokens) if tokens else 1.0)


def told(case: Case) -> dict[str, float]:
    """Agreement with the dense answer, and how varied the answer is: distinct tokens grow with length."""
    mine, theirs = words("\n".join(case.answer)), words("\n".join(case.reference))
    pairs = list(zip(case.ids, case.ids[1:], strict=False))
    return {
        "agree_f1": f1(mine, theirs),
        "agree_exact": float(mine == theirs),
        "distinct": float(len(set(case.ids))),
        "distinct_2": len(set(pairs)) / len(pairs) if pairs else 0.0,
        "length": float(len(case.ids)),
        "repetition": repetition(mine),
    }


def words(text: str) -> list[str]:
    """Lower-case words."""
    return re.findall(r"\w+", text.lower())


def f1(mine: Sequence[str], theirs: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over words as often as they occur; 1 where both are empty."""
    if not mine or not theirs:
        return float(mine == theirs)
    both = sum(min(mine.count(word), theirs.count(word)) for word in set(mine))
    return 2 * both / (len(mine) + len(theirs))


def repetition(said: Sequence[str], run: int = RUN) -> float:
    """Share of the runs of words that were said before; 0 where the text is shorter than two runs."""
    runs = [tuple(said[i : i + run]) for i in range(len(said) - run + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def covered(facts: Sequence[str], answer: str) -> float:
    """Share of the facts whose words stand in the answer, next to each other."""
    said = f" {' '.join(words(answer))} "
    return sum(f" {' '.join(words(fact))} " in said for fact in facts) / len(facts)


def rouge_l(gold: str, answer: str) -> float:
    """F-measure of the longest common subsequence of stemmed words (Lin, 2004)."""
    from rouge_score.rouge_scorer import RougeScorer  # it loads nltk, a second that most runs do not need

    scored = RougeScorer(["rougeL"], use_stemmer=True).score(gold, answer)
    return float(scored["rougeL"].fmeasure)


def answer_losses(model: Any, talks: Sequence[Turns]) -> list[tuple[float, int]]:
    """Nats the model gives each talk's answers, each answer after its own prompt; and their tokens."""
    rows = [(place, *turn) for place, turns in enumerate(talks) for turn in turns if turn[1]]
    rows.sort(key=lambda row: len(row[1]) + len(row[2]))
    found = [(0.0, 0)] * len(talks)
    size = safe_batch(model, len(rows[-1][1]) + len(rows[-1][2])) if rows else 1
    for start in range(0, len(rows), size):
        group = rows[start : start + size]
        losses = _losses(model, [(prompt, answer) for _, prompt, answer in group])
        for (place, _, answer), loss in zip(group, losses, strict=True):
            found[place] = (found[place][0] + loss, found[place][1] + len(answer))
    return found


@torch.no_grad()
def _losses(model: Any, turns: Turns) -> list[float]:
    """One batch, padded on the right where no token looks."""
    width, device = max(len(p) + len(a) for p, a in turns), next(model.parameters()).device
    ids = torch.tensor([[*p, *a, *[0] * (width - len(p) - len(a))] for p, a in turns], device=device)
    logits = model(input_ids=ids, use_cache=False).logits
    found = []
    for row, target, (prompt, answer) in zip(logits, ids, turns, strict=True):
        begin, end = len(prompt), len(prompt) + len(answer)
        loss = F.cross_entropy(row[begin - 1 : end - 1].float(), target[begin:end], reduction="sum")
        found.append(float(loss))
    return found
