"""A study with items in a store: scores are planted per cell, rows come from the core's own statistics."""

import hashlib
import math

import numpy as np

from analysis import kick_data, verdicts
from crunchmark import paired
from crunchmark.store import Store

N = 300
METRICS = {"ppl_nano": "perplexity", "nano_mcr": "acc", "nano_summ": "covered"}
BUDGETS = (0.1, 0.2, 0.3, 0.4, 0.5)
DENSE_BYTES = 1_000_000
HIGH = (1.0, 1.0, 1.0, 1.0, 1.0)
PPL = (3.0, 3.0, 3.0, 3.0, 3.0)
DENSE = {"nano_factoid": 1.0, "nano_mcr": 1.0, "nano_icra_open": 1.0, "ppl_nano": 3.0}
CALIBRATED = {"sparsegpt": 128, "wanda": 128, "magnitude": None}


def metric_of(task):
    return METRICS.get(task.removesuffix("_k2").removesuffix("_k4"), "exact_match")


def items(task, value, n=N, draw=0, metric=None, extra=None):
    """Items whose mean is the value: the first so many are right, so that cells of one task nest."""
    metric = metric or metric_of(task)
    if metric == "perplexity":
        wave = 0.2 * np.sin(np.arange(64))
        return [
            [f"{task}/{i}", metric, float(math.log(value) + w - wave.mean()), 100.0, {}]
            for i, w in enumerate(wave)
        ]
    if metric in ("distinct", "fluency"):
        scores = value + np.sin(np.arange(n) + draw)
    else:
        scores = (np.arange(n) < round(value * n)).astype(float)
    told = {"prediction": "yes", "target": "yes"}
    return [
        [f"{task}/{i}", metric, float(s), 1.0, {**told, **(extra(i) if extra else {})}]
        for i, s in enumerate(scores)
    ]


def rows(task, now, dense, parent, protocol="p1"):
    """One row per metric, compared with dense as the core does."""
    found = []
    for metric in dict.fromkeys(item[1] for item in now):
        mine = [item for item in now if item[1] == metric]
        theirs = [item for item in dense if item[1] == metric]
        score, weight = (np.array([item[k] for item in mine], dtype=float) for k in (2, 3))
        before = np.array([item[2] for item in theirs], dtype=float)
        kind, higher = ("exp", False) if metric == "perplexity" else ("mean", True)
        value, error = paired.value_of(score, weight, kind), paired.error_of(score, weight, kind)
        row = {"task": task, "metric": metric, "n": len(mine), "value": value, "stderr": error, "kind": kind}
        row |= {"higher_is_better": higher, "headline": metric == now[0][1], "protocol": protocol}
        row["chance"] = 0.25 if metric == "acc" else None if metric == "perplexity" else 0.0
        c = paired.compare(score, before, weight, kind, higher)
        row |= {k: getattr(c, k) for k in vars(c)}
        found.append(row | ({"state": "dense"} if parent else {}))
    return found


class Maker:
    """Cells of one study, written as the core writes them."""

    def __init__(self, root, study="demo", model="nano", size=DENSE_BYTES):
        self.store, self.study, self.model, self.size = Store(root), study, model, size
        self.dense = {}
        self.key = 0

    def cell(
        self, method, budget=0.0, seed=0, setting="", calib=None, accounting="bytes", share=None, knobs=None
    ):
        run = int(setting.split(":")[1]) if ":" in setting else 0
        config = {"method": {"_target_": f"methods.{method}", "run": run, **(knobs or {})}}
        if calib:
            config["calib"] = {"n": calib, "path": "calib.txt"}
        self.key += 1
        facts = {
            "study": self.study, "model": self.model, "method": method, "budget": budget,
            "accounting": accounting,
            "cell": hashlib.sha256(f"{self.model}{self.key}".encode()).hexdigest(), "calib_seed": seed,
            "setting": setting, "config": config, "achieved_nominal": budget if share is None else share,
            "achieved_bytes": budget, "file_bytes": self.size * (1 - budget), "dense_file_bytes": self.size,
            "written": float(self.key),
        }  # fmt: skip
        self.store.put_cell(self.study, facts["cell"], facts)
        return facts["cell"]

    def task(self, cell, task, found, parent=False, protocol="p1"):
        if parent:
            self.dense[task] = found
        data = {
            "rows": rows(task, found, self.dense[task], parent, protocol),
            "items": found,
            "protocol": protocol,
        }
        self.store.put_task(self.study, cell, task, data)

    def parent(self, values, **more):
        cell = self.cell("dense")
        for task, value in values.items():
            self.task(cell, task, items(task, value, **more), parent=True)
        return cell

    def curve(self, method, values, seeds=(0,), calib=None, budgets=BUDGETS, **more):
        """Cells along budgets: values is task -> one value per budget."""
        for i, budget in enumerate(budgets):
            for seed in seeds:
                cell = self.cell(method, budget, seed, calib=calib, **more)
                for task, line in values.items():
                    self.task(cell, task, items(task, line[i], draw=seed))


def plant(root, factoid, ppl=None, mcr=None, opened=None, seeds=(0, 1, 2), methods=CALIBRATED):
    make = Maker(root)
    make.parent(DENSE)
    lines = {"nano_factoid": factoid, "nano_mcr": mcr, "nano_icra_open": opened, "ppl_nano": ppl}
    values = {task: line for task, line in lines.items() if line}
    for method in methods:
        calib = CALIBRATED[method]
        make.curve(method, values, seeds if calib else (0,), calib)
    return make


def verdict(root, name, model="nano"):
    claim = next(claim for claim in verdicts.claims() if claim.id == name)
    return verdicts.decide(claim, kick_data.study("demo", root), model)
