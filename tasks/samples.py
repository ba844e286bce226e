"""What one logged sample of lm-eval says: its score, its chance, and what was said and cut."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Sample = Mapping[str, Any]
TOLD = ("depth", "length", "group")  # of a document: where in the text, or in which part of the test
SPARE = 8  # special tokens a tokenizer may add


def score(value: Any, rule: str) -> tuple[float | None, float, str] | None:
    """A sample's value as (score, weight, kind), by the name of lm-eval's aggregation; None: not per item.

    The score is None where the rule leaves out what is not a number.
    """
    if rule in ("weighted_perplexity", "bits_per_byte"):
        loglik, count = value
        if rule == "bits_per_byte":
            return -loglik / count / math.log(2), float(count), "mean"
        return -loglik / count, float(count), "exp"
    if rule == "bypass" or not isinstance(value, bool | int | float | np.bool_ | np.number):
        return None
    if rule == "perplexity":
        return -float(value), 1.0, "exp"
    gone = rule == "nanmean" and math.isnan(value)
    return None if gone else float(value), 1.0, "mean"


def chance(task: Any, metric: str, doc: Any) -> float | None:
    """What a blind guess scores: the yaml's metadata.chance (of each metric), or one over the choices."""
    stated = (task.get_config("metadata") or {}).get("chance")
    if isinstance(stated, Mapping):
        stated = stated.get(metric)
    if stated is not None:
        return float(stated)
    plain = task.get_config("output_type") == "multiple_choice" and task.get_config("process_results") is None
    return 1 / len(task.doc_to_choice(doc)) if plain and metric.startswith("acc") else None


def mean(values: Sequence[float | None]) -> float | None:
    """The mean, None as soon as one is not known."""
    known_values = [value for value in values if value is not None]
    return sum(known_values) / len(values) if values and len(known_values) == len(values) else None


def extra(row: Sample, doc: Any, flags: Sequence[str], longest: int = 200) -> dict[str, Any]:
    """What was said and what was asked for, short; flags; what the document says of itself."""
    said = [one for one in row["filtered_resps"] if isinstance(one, tuple | list)] or row["filtered_resps"]
    if len(said) > 1 and all(isinstance(one, tuple | list) for one in said):
        prediction: Any = max(range(len(said)), key=lambda i: said[i][0])
    else:
        prediction = str(said[0])[:longest]
    target = row["target"]
    found = {
        "prediction": prediction,
        "target": target if isinstance(target, int | float) else str(target)[:longest],
    }
    found |= {"question": text} if (text := question(row)) else {}
    found |= {key: doc[key] for key in TOLD if isinstance(doc, Mapping) and key in doc}
    return found | ({"flags": list(flags)} if flags else {})


def question(row: Sample, longest: int = 240) -> str:
    """The end of the prompt, from its last blank line on; a text that is itself scored asks nothing."""
    prompt, *answer = row["arguments"][0]
    if not answer or not isinstance(prompt, str):
        return ""
    text = " ".join(prompt.rstrip().rpartition("\n\n")[2].split())
    return text if len(text) <= longest else "…" + text[1 - longest :]


def truncated(lm: Any, row: Sample) -> bool:
    """Whether lm-eval cut one of the sample's prompts to the model's context."""
    counts: dict[str, int] = {}  # choices share their context
    return any(len(args) > 1 and _over(lm, args[0], args[1], counts) for args in row["arguments"])


def room(lm: Any, asked: str | Mapping[str, Any]) -> int:
    """Tokens that a prompt may have before lm-eval cuts it, by what follows: a text, or settings."""
    from lm_eval.models.utils import normalize_gen_kwargs

    if isinstance(asked, str):
        return int(lm.max_length) + 1
    return int(lm.max_length - normalize_gen_kwargs(dict(asked), lm.max_gen_toks)["max_gen_toks"])


def _over(lm: Any, context: str, asked: str | Mapping[str, Any], counts: dict[str, int]) -> bool:
    """No tokenizer makes more tokens than bytes, so that most prompts need not be tokenised again."""
    most, more = room(lm, asked) - SPARE, asked if isinstance(asked, str) else ""
    if len((context + more).encode()) <= most:
        return False
    if context not in counts:
        counts[context] = len(lm.tok_encode(context))
    if counts[context] + len(more.encode()) <= most:
        return False
    return len(lm.tok_encode(context + more)) > most + SPARE
