"""Score the built-in model through lm-eval and write its card: `python -m tasks.nano.score`."""

import argparse
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from tasks.nano.world import known_people

HERE = Path(__file__).parent
METRICS = {
    "nano_factoid": "exact_match",
    "nano_mcr": "acc",
    "nano_icra_closed": "exact_match",
    "nano_icra_open": "exact_match",
    "nano_summ": "covered",
    "nano_needle": "exact_match",
}
CARD = """---
library_name: transformers
license: apache-2.0
---
# Crunchmark nano

A Llama of {parameters:.2f} M parameters that knows one synthetic world: {people} people with six
facts each and 48 cities with two. It was trained on generated text only; nothing in it is about
real people or places.
Recipe: `{recipe}`; make it again with `python -m tasks.nano.train`.
This file is written by `python -m tasks.nano.score`.

| task | metric | items | chance | score | standard error |
| --- | --- | --- | --- | --- | --- |
{rows}
| held-out text | perplexity (windows of 256, no overlap) | {tokens} tokens | - | {ppl:.3f} | - |

Closed book (`factoid`, `mcr`) asks what training told. `icra` and `needle` are about people no training text
mentions: without the passage (`icra_closed`) nobody can know, with it (`icra_open`) one has to read.
Not for any use but measuring compression.
"""


def scores(folder: Path, batch: int = 64) -> dict[str, dict]:
    """lm-eval's results of all nano tasks on the checkpoint in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    lm = HFLM(
        pretrained=model, tokenizer=AutoTokenizer.from_pretrained(folder), batch_size=batch, device="cpu"
    )
    manager = TaskManager(include_path=str(HERE / "lm"))
    found = simple_evaluate(
        lm, tasks=list(METRICS), task_manager=manager, bootstrap_iters=0, log_samples=True
    )
    return {
        name: {
            "score": found["results"][name][f"{metric},none"],
            "chance": found["configs"][name]["metadata"]["chance"],
            "items": [sample[metric] for sample in found["samples"][name]],
        }
        for name, metric in METRICS.items()
    }


@torch.no_grad()
def perplexity(model: PreTrainedModel, ids: list[int], window: int = 256) -> tuple[float, int]:
    """Perplexity over full windows without overlap, and the number of tokens predicted."""
    blocks = torch.tensor(ids[: len(ids) // window * window]).view(-1, window)
    total = sum(
        F.cross_entropy(
            model(input_ids=rows).logits[:, :-1].flatten(0, 1), rows[:, 1:].flatten(), reduction="sum"
        )
        for rows in blocks.split(16)
    )
    count = blocks.shape[0] * (window - 1)
    return math.exp(float(total) / count), count


def card(folder: Path) -> str:
    """The model card as text, every number measured now."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(folder).encode(
        (HERE / "data" / "ppl.txt").read_text(encoding="utf-8"), add_special_tokens=False
    )
    ppl, tokens = perplexity(model, ids)
    rows = []
    for name, row in scores(folder).items():
        n, mean = len(row["items"]), row["score"]
        error = math.sqrt(sum((x - mean) ** 2 for x in row["items"]) / (n - 1) / n)
        rows.append(f"| {name} | {METRICS[name]} | {n} | {row['chance']} | {mean:.4f} | {error:.4f} |")
    recipe = json.dumps(json.loads((folder / "recipe.json").read_text()))
    people = sum(1 for _ in known_people())
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    return CARD.format(
        parameters=parameters, people=people, recipe=recipe, rows="\n".join(rows), tokens=tokens, ppl=ppl
    )


def main() -> None:
    """Score and write README.md beside the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=HERE / "model", help="folder of the checkpoint")
    folder = parser.parse_args().model
    text = card(folder)
    (folder / "README.md").write_text(text, encoding="utf-8")
    Console().print(text, markup=False)


if __name__ == "__main__":
    main()
