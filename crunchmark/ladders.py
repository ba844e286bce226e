"""What allocators share: levels a unit of layers can be at, what a goal pays for, shares around a mean."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp

import torch
from torch import Tensor

from crunchmark.budget import SLACK, dense_bytes
from crunchmark.interface import Trial
from crunchmark.stats import InputNorm

Shapes = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Level:
    """What the layers of a unit keep, and what that costs."""

    keeps: Mapping[str, float]
    nbytes: float  # of the unit's dense bytes (nominal: in the paper's own count)


def goal_of(trial: Trial, layers: Shapes) -> float:
    """Bytes that all layers keep together (nominal: in the paper's own count)."""
    return trial.share * sum(dense_bytes(shape) for shape in layers.values())


def levels(trial: Trial, layers: Shapes, unit: Sequence[str], shares: Iterable[float]) -> list[Level]:
    """The levels next below some shares (or the smallest), and the dense one; ascending, each once."""
    sizes = {name: trial.sizes(name) for name in unit}
    found = {}
    for share in (*shares, 1.0):
        keeps = {name: share if sizes[name] is None else _below(sizes[name] or (), share) for name in unit}
        nbytes = sum(keep * dense_bytes(layers[name]) for name, keep in keeps.items())
        found[round(nbytes)] = Level(keeps, nbytes)
    return [found[nbytes] for nbytes in sorted(found)]


def reaching(shares: Sequence[float], trial: Trial) -> Sequence[float]:
    """The shares, and where the budget keeps less than all of them, what it keeps."""
    return (trial.share, *shares) if trial.share < min(shares) else shares


def _below(sizes: Sequence[float], share: float) -> float:
    return sizes[max(0, bisect_right(sizes, share + 1e-9) - 1)]


def magnitudes(trial: Trial, names: Sequence[str]) -> Tensor:
    """|W| * ||x|| of all weights of these layers, (weights,): what Wanda prunes by (arXiv:2306.11695)."""
    found = [trial.layer(name) for name in names]
    return torch.cat([(x.weight.abs() * x[InputNorm].value).flatten() for x in found])


def per_block(trial: Trial, shares: Sequence[float]) -> dict[str, float]:
    """One share for all layers of a block."""
    return {n: share for names, share in zip(trial.blocks, shares, strict=True) for n in names}


def entropic(scores: Sequence[float], mean: float, eps: float, cap: float) -> list[float]:
    """Shares to remove: n mean softmax(-score / eps), at most cap (MoDeGPT, arXiv:2408.09632).

    What lies above cap goes to the others; a mean above cap lifts it.
    """
    cap = max(cap, mean)
    full: set[int] = set()
    while True:
        rest = [i for i in range(len(scores)) if i not in full]
        if not rest:
            return [cap] * len(scores)
        least = min(scores[i] for i in rest)  # of these, so that not all of them underflow
        pull = {i: exp((least - scores[i]) / eps) for i in rest}
        scale = (len(scores) * mean - cap * len(full)) / sum(pull.values())
        over = {i for i in rest if scale * pull[i] > cap + 1e-12}
        if not over:
            return [cap if i in full else scale * pull[i] for i in range(len(scores))]
        full |= over


def leading(gains: Mapping[str, Tensor], costs: Mapping[str, Tensor], goal: float) -> dict[str, int]:
    """How many directions of each layer a goal pays for, taken over all layers by falling gain.

    Args:
        gains: (k,) by layer, descending.
        costs: (k,) by layer, what one direction more costs.
        goal: what all may cost.
    """
    names = list(gains)
    owners = torch.cat([torch.full_like(gains[name], i, dtype=torch.long) for i, name in enumerate(names)])
    order = torch.cat([gains[name] for name in names]).argsort(descending=True, stable=True)
    spent = torch.cat([costs[name] for name in names]).double()[order].cumsum(0)
    counts = owners[order[: int((spent <= goal + SLACK).sum())]].bincount(minlength=len(names))
    return dict(zip(names, counts.tolist(), strict=True))


def around(share: float, scores: Sequence[float], width: float, least: float) -> list[float]:
    """Shares of that mean, spread over 2 * width by rising score, then clipped to [least, 1].

    share + 2 width minmax(score) - the mean of that (arXiv:2310.05175); equal scores give equal shares.
    """
    low, high = min(scores), max(scores)
    if low == high:
        return [share] * len(scores)
    spread = [2 * width * (score - low) / (high - low) for score in scores]
    mean = sum(spread) / len(spread)
    return [min(1.0, max(least, share + s - mean)) for s in spread]
