# ruff: noqa: E501
"""A made-up study whose rows have the shape of real ones: knowledge falls first, perplexity last."""

import hashlib
import math
import random
from collections import defaultdict

from crunchmark.store import Store

TASKS = {
    "nano_factoid": ("exact_match", 0.0, 0.97, 0.30),
    "nano_mcr": ("acc", 0.25, 0.96, 0.36),
    "nano_icra_closed": ("exact_match", 0.05, 0.06, 0.30),
    "nano_icra_open": ("exact_match", 0.05, 0.93, 0.52),
    "nano_summ": ("facts", 0.0, 0.88, 0.55),
    "nano_needle": ("exact_match", 0.02, 0.95, 0.58),
    "nano_ppl": ("perplexity", None, 1.52, 0.60),
}
METHODS = {
    "svd": -0.12, "svd_llm": 0.0, "slicegpt": -0.04, "magnitude": -0.02, "wanda": 0.05,
    "sparsegpt": 0.1, "rtn": 0.12, "gptq": 0.2, "modegpt": 0.03,
}  # fmt: skip
BUDGETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
DENSE_SCOPE, DENSE_FILE = 3_500_000, 4_300_000


def score(task, budget, strength, rng):
    metric, chance, top, knee = TASKS[task]
    loss = 1 / (1 + math.exp(-(budget - knee - strength) / 0.055)) if budget else 0.0
    if metric == "perplexity":
        return top * math.exp(2.5 * loss + 0.25 * budget) if budget else top
    return min(1, max(0, chance + (top - chance) * (1 - loss) + (rng.gauss(0, 0.012) if budget else 0)))


def state(metric, value, dense, stderr):
    gap = (value - dense) / dense if metric == "perplexity" else (dense - value) / dense
    width = 1.96 * stderr / dense
    return "match" if gap + width < 0.05 else "fail" if gap - width > 0.05 else "undecided"


def cell_facts(study, method, budget, seed, model):
    removed = 0.0 if method == "dense" else max(0, budget - 0.004)
    scope = round(DENSE_SCOPE * (1 - removed))
    return {
        "study": study, "model": model, "method": method, "knobs": "", "budget": budget, "accounting": "bytes",
        "cell": hashlib.sha256(f"{model}{method}{budget}{seed}".encode()).hexdigest()[:16], "calib_seed": seed,
        "achieved_bytes": removed, "achieved_nominal": removed * 1.1, "scope_bytes": scope,
        "dense_scope_bytes": DENSE_SCOPE, "file_bytes": scope + DENSE_FILE - DENSE_SCOPE,
        "dense_file_bytes": DENSE_FILE, "bits_scope": 16 * (1 - removed), "bits_model": 16 * (1 - 0.8 * removed),
        "simulated": method == "magnitude", "compress_seconds": 3.2, "peak_memory_bytes": 3.1e8,
        "method_deterministic": True, "reason": "", "nearest_budget": None,
    }  # fmt: skip


def scores(facts, strength, tasks, rng):
    for task in tasks:
        metric, chance, dense, _ = TASKS[task]
        value = score(task, facts["budget"], strength, rng)
        ppl = metric == "perplexity"
        stderr = 0.004 * value if ppl else math.sqrt(max(value * (1 - value), 1e-4) / 500)
        kind = "dense" if facts["method"] == "dense" else state(metric, value, dense, stderr)
        yield {
            **facts, "task": task, "metric": metric, "headline": True, "n": 500, "value": value, "stderr": stderr,
            "chance": chance, "higher_is_better": not ppl, "dense": dense, "delta": value - dense, "state": kind,
            "low": value - dense - 2 * stderr, "high": value - dense + 2 * stderr, "p_value": 0.2,
            "protocol": f"{task}-v1", "eval_seconds": 1.5,
        }  # fmt: skip


def rows(study="demo", methods=METHODS, budgets=BUDGETS, tasks=TASKS, seeds=(0,), model="nano"):
    rng = random.Random(0)
    out = list(scores(cell_facts(study, "dense", 0.0, 0, model), 0, tasks, rng))
    for method in methods:
        for budget in budgets:
            for seed in seeds:
                facts = cell_facts(study, method, budget, seed, model)
                gone = {("gptq", 0.1): "unreachable", ("slicegpt", 0.7): "skipped"}.get((method, budget))
                if gone:
                    near = 0.0625 if gone == "unreachable" else None
                    reason = "" if near else "slicegpt covers compensate"
                    out.append({**facts, "state": gone, "reason": reason, "nearest_budget": near})
                else:
                    out += scores(facts, METHODS[method], tasks, rng)
    return out


def put(root, study, rows):
    store, cells = Store(root), defaultdict(list)
    for row in rows:
        cells[row["cell"]].append(row)
    for key, group in cells.items():
        measured = [row for row in group if "task" in row]
        facts = {name: value for name, value in group[0].items() if name not in ("task", "metric")}
        if measured:
            del facts["state"]
        store.put_cell(study, key, facts)
        for row in measured:
            store.put_task(study, key, row["task"], {"rows": [row], "seconds": 1.5})
