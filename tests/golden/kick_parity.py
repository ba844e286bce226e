"""Matchers and prompts of `kick_code` beside LLM-KICK's released code, on strings that tell rules apart.

python -m tests.golden.kick_parity                           recompute ours, exit 1 where it disagrees
python -m tests.golden.kick_parity --write --reference DIR   run the released code, DIR a clone; kick.json

The released question answering ships no answers, only the mean of ten questions in two logs, so the strings
are ours. The released functions are taken out of their files at one commit and run as they are.
"""

import argparse
import ast
import json
import re
import string
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
from lm_eval.tasks import TaskManager
from lm_eval.utils import apply_template

from tasks.kick import match

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "kick.json"
COMMIT = "70f98d7552ec7ac593f269bda50617c9e42d8b4e"
FILES = {
    "factoid": "factoid_qa/main_freebase.py",
    "icra": "incontext_qa/main_icrqa.py",
    "normal": "incontext_qa/utils/triviaqa_evaluation.py",
    "mcr": "multiple_choice_qa/main_mmlu.py",
}
SAID = [
    "", " ", ".", "?!", "The", "the", "a", "an", "A", "s", "x", "0", "_", "the a an", "\n", "\u2019",
    "don\u2019t", "Paris", "paris.", " PARIS ", "Paris or Rome or Oslo", "It is Paris, I think", "Parisian",
    "comparison", "P aris", "I do not know", "no tea", "continental breakfast", "tin", "TIN!", "the Tin",
    "t i n", "The Queen\u2019s Head", "queen s head", "New_York", "new york city", "N.Y.", "newyork",
    "Please give answer to this question: where is Rome", "Based on these texts, answer these questions:",
    "Q: who?\nA: Rome", "1,000", "1000", "na\u00efve", "NA\u00cfVE", "Stra\u00dfe", "a Rome", "an hour",
    "the-end", "theatre", "`code`", "\u2018quoted\u2019", "B", " B", "Answer: B", "B.",
]  # fmt: skip
ALIASES = [
    ["Paris"], ["tin"], ["not"], ["The"], ["a"], ["", "x"], ["New York", "New York City", "NYC"],
    ["the queen's head"], ["Rome", "Roma"], ["s"], ["1,000"], ["Na\u00efve"], ["stra\u00dfe"], ["an hour"],
    ["theatre"], ["I do not know anything"],
]  # fmt: skip
ROW = {"question": "Which is it?", "choices": ["one", "2", "None of both", "d"], "answer": 1}
SUBJECT = "high_school_world_history"


def ours() -> dict[str, list[Any]]:
    """What our matchers and prompts make of the strings, in a fixed order."""
    pairs = [(said, aliases) for said in SAID for aliases in ALIASES]
    return {
        "normal": [match.normal(said) for said in SAID],
        "factoid": [match.code_factoid(said, aliases) for said, aliases in pairs],
        "icra": [match.code_icra(said, aliases) for said, aliases in pairs],
        "f1": [match.f1(said, aliases) for said, aliases in pairs],
        "letter": [match.code_letter(said) for said in SAID],
        "prompts": prompts(),
    }


def prompts() -> list[str]:
    """A multiple-choice prompt with one shot, and both in-context ones, as the yaml files write them."""
    folder = ROOT / "tasks/kick/lm"
    manager = TaskManager(include_path=str(folder), include_defaults=False)

    def config(name: str) -> dict[str, Any]:
        from lm_eval.tasks._yaml_loader import load_yaml

        return load_yaml(manager.task_index[name].yaml_path)

    mcr = config("kick_code_mcr")
    doc = ROW | {"subject": SUBJECT.replace("_", " ")}
    one = apply_template(mcr["doc_to_text"], doc)
    shot = f"{one} {apply_template(mcr['doc_to_target'], doc)}\n\n"
    closed = apply_template(config("kick_code_icra_closed")["doc_to_text"], ROW)
    opened = apply_template(config("kick_code_icra_open")["doc_to_text"], ROW | {"evidence": "Some text."})
    return [apply_template(mcr["description"], doc) + shot + one, closed, opened]


def released(repository: Path) -> dict[str, list[Any]]:
    """The same by the released code."""
    spaces: dict[str, Any] = {"re": re, "string": string, "Counter": Counter, "choices": list("ABCD")}
    for file in ("normal", "factoid", "icra", "mcr"):
        spaces[file] = _functions(repository, FILES[file], spaces | spaces.get("normal", {}))
    icra, mcr, pairs = (
        spaces["icra"],
        spaces["mcr"],
        [(said, aliases) for said in SAID for aliases in ALIASES],
    )
    most = icra["metric_max_over_ground_truths"]
    table = pd.DataFrame([[ROW["question"], *ROW["choices"], "B"]])
    mcr_prompt = mcr["gen_prompt"](table, SUBJECT, 1) + mcr["format_example"](table, 0, include_answer=False)
    example = {"question": ROW["question"]}
    return {
        "normal": [spaces["normal"]["normalize_answer"](said) for said in SAID],
        "factoid": [float(spaces["factoid"]["validate_response"](aliases, said)) for said, aliases in pairs],
        "icra": [float(most(icra["exact_match_score"], said, aliases)) for said, aliases in pairs],
        "f1": [float(most(icra["f1_score"], said, aliases)) for said, aliases in pairs],
        "letter": [mcr["pred"](said) for said in SAID],
        "prompts": [
            mcr_prompt,
            icra["gen_prompt"](example, include_context=False),
            "Some text.\n\n" + icra["gen_prompt"](example),
        ],
    }


def _functions(repository: Path, path: str, known: dict[str, Any]) -> dict[str, Any]:
    """The functions of a file, without its imports and `main`; `pred` is the line that reads the letter."""
    command = ["git", "-C", str(repository), "show", f"{COMMIT}:{path}"]
    tree = ast.parse(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    kept = [
        n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name not in ("main", "eval", "get_llm")
    ]
    space = dict(known)
    exec(compile(ast.Module(kept, []), path, "exec"), space)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pred":
            rule = compile(ast.Expression(node.value), path, "eval")
            space["pred"] = lambda output, rule=rule: eval(rule, {"output": output})
    return space


def differences(found: dict[str, list[Any]], reference: dict[str, list[Any]]) -> list[str]:
    """One line for each result that is not the reference's."""
    return [
        f"{rule} {i}: ours {mine!r}, released {theirs!r}"
        for rule, row in reference.items()
        for i, (mine, theirs) in enumerate(zip(found[rule], row, strict=True))
        if mine != theirs and not (isinstance(mine, float) and abs(mine - theirs) < 1e-12)
    ]


def main() -> int:
    """Check or write; the exit status is 1 where ours is not the released code's."""
    parser = argparse.ArgumentParser(description="matchers beside the released code's")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--reference", type=Path)
    args = parser.parse_args()
    golden = None if args.reference else json.loads(GOLDEN.read_text())["released"]
    reference = golden or released(args.reference)
    wrong = differences(ours(), reference)
    print(*wrong, f"{sum(map(len, reference.values()))} results, {len(wrong)} differ", sep="\n")
    if args.write:
        text = {"repository": "VITA-Group/llm-kick", "commit": COMMIT, "files": FILES}
        text |= {"said": SAID, "aliases": ALIASES, "row": ROW, "released": reference}
        GOLDEN.write_text(json.dumps(text, ensure_ascii=False, indent=1) + "\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
