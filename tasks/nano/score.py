"""Score the built-in model as every sweep does, and write its card: `python -m tasks.nano.score`."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from crunchmark.evaluate import rows
from crunchmark.task import Task
from tasks.lm import LmEval
from tasks.nano.world import known_people
from tasks.ppl import Perplexity

HERE = Path(__file__).parent
NAMES = ("factoid", "mcr", "icra_closed", "icra_open", "summ", "needle")
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

Closed book (`factoid`, `mcr`) asks what training told. `icra` and `needle` are about people no training text
mentions: without the passage (`icra_closed`) nobody can know, with it (`icra_open`) one has to read.
Not for any use but measuring compression.
"""


def tasks() -> dict[str, Task]:
    """The tasks of conf/task/kick_nano.yaml."""
    asked: dict[str, Task] = {f"nano_{name}": LmEval(f"nano_{name}", str(HERE / "lm")) for name in NAMES}
    return asked | {"ppl_nano": Perplexity("ppl_nano", str(HERE / "data" / "ppl.txt"), window=256)}


def scores(folder: Path) -> dict[str, Mapping[str, Any]]:
    """The headline row of every task, for the checkpoint in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = {}
    for name, task in tasks().items():
        items = list(task.run(model, tokenizer))
        found[name] = rows(name, task.protocol(), items, task.metrics(), None)[0]
    return found


def card(folder: Path) -> str:
    """The model card as text, every number measured now."""
    lines = []
    for name, row in scores(folder).items():
        chance = "-" if row["chance"] is None else f"{row['chance']:.4g}"
        score = f"{row['value']:.4f} | {row['stderr']:.4f}"
        lines.append(f"| {name} | {row['metric']} | {row['n']} | {chance} | {score} |")
    model = AutoModelForCausalLM.from_pretrained(folder)
    return CARD.format(
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
        people=sum(1 for _ in known_people()),
        recipe=json.dumps(json.loads((folder / "recipe.json").read_text())),
        rows="\n".join(lines),
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
