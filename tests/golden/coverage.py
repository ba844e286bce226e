"""How often 95 % intervals cover the truth, and how often a loss on the margin is called a match or a fail.

python -m tests.golden.coverage --check     simulate, print the table, exit 1 where it left the kept figures
python -m tests.golden.coverage --write     the same, then keep them in coverage.json
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import norm

from analysis.crossed import Metric, summarise
from crunchmark.paired import compare, interval_of

GOLDEN = Path(__file__).with_name("coverage.json")
KINDS = {"perplexity": "exp", "p95": "p95"}
LARGE = 1_000_000


def flips(n, rng, truth=0.9, gain=0.03):
    """0/1 items: dense has `truth` right, the other loses 5 % of the share, some flips cancel."""
    u = rng.random(n)
    lost = 0.05 * truth + gain
    dense = (u < truth).astype(float)
    return np.where(u < lost, 0.0, np.where((u >= truth) & (u < truth + gain), 1.0, dense)), dense


def rare(n, rng):
    """0/1 items of a parent that is hardly ever wrong, none gained."""
    return flips(n, rng, truth=0.99, gain=0.0)


def sixths(n, rng):
    """Shares of facts covered: most items unchanged, some lose one to three of six."""
    dense = rng.binomial(6, 0.92, n) / 6
    drop = np.where(rng.random(n) < 0.2, rng.integers(1, 4, n) / 6, 0.0)
    return np.maximum(0.0, dense - drop), dense


def overlap(n, rng):
    """Scores like ROUGE: spread out, all move a little."""
    dense = rng.beta(2, 5, n)
    return np.clip(dense * 0.95 + rng.normal(0, 0.08, n), 0, 1), dense


def nats(n, rng):
    """Nats per token of windows: skewed losses."""
    dense = rng.gamma(9, 0.2, n)
    return dense - 0.05 + rng.gamma(2, 0.05, n), dense


def waits(n, rng):
    """Latencies with a tail."""
    dense = rng.gamma(20, 1.0, n)
    return dense * 1.05 + rng.normal(0, 0.5, n), dense


PAIRED = {
    "flips": flips,
    "rare flips": rare,
    "sixths": sixths,
    "overlap": overlap,
    "perplexity": nats,
    "p95": waits,
}


def truth_of(make: Callable[..., Any], kind: str) -> tuple[float, float]:
    """Value and dense value of endless items."""
    score, dense = make(LARGE, np.random.default_rng(99))
    if kind == "p95":
        return float(np.quantile(score, 0.95)), float(np.quantile(dense, 0.95))
    pair = float(score.mean()), float(dense.mean())
    return (math.exp(pair[0]), math.exp(pair[1])) if kind == "exp" else pair


def paired(name, n, trials, seed=0):
    """Delta against dense, the margin put where the truth is."""
    make, kind = PAIRED[name], KINDS.get(name, "mean")
    now, before = truth_of(make, kind)
    higher, rng, weight = kind == "mean", np.random.default_rng(seed), np.ones(n)
    margin = abs(now / before - 1)
    found = [compare(*make(n, rng), weight, kind, higher, margin) for _ in range(trials)]
    return _rates(now - before, [vars(one) for one in found])


def share(value, n, trials, seed=0):
    """Interval of one share."""
    rng, weight = np.random.default_rng(seed), np.ones(n)
    found = [interval_of((rng.random(n) < value).astype(float), weight, "mean") for _ in range(trials)]
    return {"covers": float(np.mean([low <= value <= high for low, high in found]))}


def seeds(kind, k, spread, trials, seed=0, n=200):
    """Seeds on the same items; `spread`: their standard deviation relative to the items' error, about."""
    rng, weight = np.random.default_rng(seed), np.ones(n)
    base = float(norm.cdf(1 / math.sqrt(1.36)))
    found = []
    for _ in range(trials):
        if kind == "flips":
            item = rng.normal(0, 1, n)
            dense = (item + rng.normal(0, 0.6, n) > -1).astype(float)
            shift = rng.normal(0, spread * 0.1, k)[:, None] - 0.2
            scores = (item + rng.normal(0, 0.6, (k, n)) + shift > -1).astype(float)
            truth = float(norm.cdf(0.8 / math.sqrt(1.36 + (spread * 0.1) ** 2))) - base
        else:
            dense, base, truth = 1 + rng.normal(0, 0.3, n), 1.0, -0.03
            moved = rng.normal(0, 0.05, n) + rng.normal(0, spread * 0.008, k)[:, None]
            scores = dense + truth + moved + rng.normal(0, 0.1, (k, n))
        found.append(summarise(scores, dense, weight, Metric("mean", True, -truth / base)))
    return _rates(truth, found)


def _rates(truth, found):
    return {
        "covers": float(np.mean([one["low"] <= truth <= one["high"] for one in found])),
        "match": float(np.mean([one["state"] == "match" for one in found])),
        "fail": float(np.mean([one["state"] == "fail" for one in found])),
    }


def simulate(trials: int) -> dict[str, dict[str, float]]:
    """Every figure by name."""
    found = {f"share {p}, n={n}": share(p, n, trials) for p in (0.5, 0.9, 0.98) for n in (50, 400)}
    found |= {f"{name}, n={n}": paired(name, n, trials) for name in PAIRED for n in (63, 200)}
    for k in (3, 5):
        for kind in ("flips", "mean"):
            for spread in (0, 1, 3):
                found[f"{k} seeds, {kind}, spread {spread}"] = seeds(kind, k, spread, trials)
    return found


def show(found: dict[str, dict[str, float]], trials: int) -> Table:
    """The table; bold where the interval leaves 93 to 97 % or an error 2.5 % by more than chance."""
    slack = 2 * math.sqrt(0.025 * 0.975 / trials)
    table = Table(
        "case", "95 % covers", "match on the margin", "fail on the margin", title=f"{trials} trials"
    )
    for name, rates in found.items():
        bad = not 0.93 - slack <= rates["covers"] <= 0.97 + slack
        texts = [f"[bold]{rates['covers']:.3f}[/]" if bad else f"{rates['covers']:.3f}"]
        for key in ("match", "fail"):
            rate = rates.get(key)
            text = "" if rate is None else f"{rate:.3f}"
            texts.append(f"[bold]{text}[/]" if rate is not None and rate > 0.025 + slack else text)
        table.add_row(name, *texts)
    return table


def main() -> int:
    """Simulate, show, and check or write."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--trials", type=int, default=2000)
    options.add_argument("--write", action="store_true")
    options.add_argument("--check", action="store_true")
    chosen = options.parse_args()
    found = simulate(chosen.trials)
    Console(width=None if sys.stdout.isatty() else 110).print(show(found, chosen.trials))
    if chosen.write:
        GOLDEN.write_text(json.dumps({"trials": chosen.trials, "rates": found}, indent=1) + "\n")
        return 0
    kept = json.loads(GOLDEN.read_text())["rates"]
    near = 3 * math.sqrt(0.05 * 0.95 * 2 / chosen.trials)
    moved = [
        f"{n} {key}" for n, rates in found.items() for key in rates if abs(rates[key] - kept[n][key]) > near
    ]
    sys.stdout.writelines(f"left what was kept: {one}\n" for one in moved)
    return int(bool(moved))


if __name__ == "__main__":
    sys.exit(main())
