"""Directions of all layers in one queue, by the energy a weight of them buys (optimal for convex errors)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from crunchmark import Allocator, Plan, Trial, flag, goal_of, leading


@dataclass(frozen=True)
class Greedy(Allocator):
    """Gain of a direction: S^2 / N / (out + in); a layer whose factors outgrow its weight is dense.

    S^2: energies of the directions that a low-rank method projects on; of W C W^T for others that know the
        Gram C of inputs, else of W W^T. What a repair needs to know makes no difference.
    relative: N is the layer's whole energy, so that relative errors add up; else 1.
    """

    relative: bool = True

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        flag("allocate.relative", self.relative)

    def allocate(self, trial: Trial, layers: Mapping[str, tuple[int, int]], total: int) -> Plan:
        """The best directions until the budget is used."""
        gains, paid = {}, {}
        for name, (out, wide) in layers.items():
            energy = trial.spectrum(name)  # (k,)
            whole = float(energy.sum()) if self.relative else 1.0
            gains[name] = energy / max(whole, 1e-300) / (out + wide)
            ranks = torch.arange(len(energy) + 1)  # (k + 1,)
            paid[name] = (ranks * (out + wide)).clamp(max=out * wide)
        costs = {name: cost.diff() for name, cost in paid.items()}
        ranks_of = leading(gains, costs, goal_of(trial, layers) / 2)
        keeps = {
            name: float(paid[name][r]) / (out * wide)
            for (name, r), (out, wide) in zip(ranks_of.items(), layers.values(), strict=True)
        }
        return trial.fit(keeps)
