"""Stored cells with items, so that they can be paired: made of what each item scored."""

from functools import cache

import numpy as np

from analysis.compare import __main__ as command
from crunchmark.paired import compare, error_of, interval_of, value_of
from crunchmark.store import Store

MADE = {"git": "a" * 40, "dirty": False, "versions": {"torch": "2.13.0"}, "machine": "x86_64", "threads": 1}
SETTING = {"model": "nano", "accounting": "bytes", "scope": "blocks", "calib_seed": 0, "written": 1.0}


def right(wrong, n=400):
    """0/1 scores of which the first so many are wrong."""
    return [0.0] * wrong + [1.0] * (n - wrong)


def cell(root, study, method, budget, scores, dense=None, protocol="v1", **facts):
    """Store a cell.

    scores: by task, of each item; a task named ppl is exp of their mean, of which less is better.
    dense: the parent's, in the same way; None: this is the parent.
    """
    key = facts.pop("key", f"{method}{budget:g}".replace(".", "") + "0" * 24)
    config = {"method": {"_target_": f"methods.{method}.X"}, "calib": {"n": facts.pop("n", 128)}}
    about = {"study": study, "cell": key, "method": method, "budget": budget, "config": config}
    size = {"file_bytes": round(4e6 * (1 - budget)), "dense_file_bytes": 4_000_000}
    store = Store(root)
    store.put_cell(study, key, {**SETTING, **MADE, **about, **size, **facts})
    for task, own in scores.items():
        items = [[f"{task}/{i}", "score", s, 1.0, {}] for i, s in enumerate(own)]
        row = {"task": task, "metric": "score", "protocol": protocol, "headline": True, "n": len(own)}
        row |= judged(task, tuple(own), dense and tuple(dense[task]))
        store.put_task(study, key, task, {"rows": [row], "items": items, "protocol": protocol})
    return key


@cache
def judged(task, own, parent):
    """The figures of a row."""
    kind, higher = ("exp", False) if task == "ppl" else ("mean", True)
    score, weight = np.array(own), np.ones(len(own))
    low, high = interval_of(score, weight, kind)
    told = {"value": value_of(score, weight, kind), "stderr": error_of(score, weight, kind)}
    told |= {"value_low": low, "value_high": high, "kind": kind, "higher_is_better": higher, "margin": 0.05}
    if parent is None:
        return {**told, "chance": 0.0, "state": "dense"}
    return {**told, "chance": 0.0, **vars(compare(score, np.array(parent), weight, kind, higher))}


DENSE = {"mcr": right(10), "ppl": [1.0 + 0.01 * (i % 7) for i in range(100)]}
GOOD = {"mcr": right(12), "ppl": [s + 0.01 for s in DENSE["ppl"]]}


def compared(root, *words):
    """What `python -m analysis.compare WORDS` finds."""
    return command.compared(command._options().parse_args([*words, "--store", str(root)]))
