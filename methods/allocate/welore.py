"""WeLore's ranks (arXiv:2407.11239): one threshold for all normalised singular values."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch

from crunchmark import Allocator, Plan, Trial, directions, fraction, goal_of, leading


@dataclass(frozen=True)
class WeLore(Allocator):
    """Keep what lies above k in (s - min s) / (max s - min s); k is the lowest that the budget pays for.

    least_cut: layers that would lose no more than this share of their rank stay dense (the paper's
        min_ratio: 0 to compress, 0.4999 before it fine-tunes).
    """

    least_cut: float = 0.0

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        fraction("allocate.least_cut", self.least_cut, zero=True)

    def allocate(self, trial: Trial, layers: Mapping[str, tuple[int, int]], total: int) -> Plan:
        """Scan the breakpoints, the normalised values themselves, downward."""
        values, paid = {}, {}
        for name, (out, wide) in layers.items():
            s = directions(trial.layer(name), "identity").energy.sqrt()  # (k,)
            values[name] = (s - s[-1]) / (s[0] - s[-1]).clamp(min=1e-300)
            ranks = torch.arange(len(s) + 1)  # (k + 1,)
            factors = ranks * (out + wide)
            thin = (1 - ranks / len(s) > self.least_cut) & (factors < out * wide)
            paid[name] = torch.where(thin, factors, out * wide)
        costs = {name: cost.diff() for name, cost in paid.items()}
        ranks_of = leading(values, costs, goal_of(trial, layers) / 2)
        return trial.fit({name: float(paid[name][r]) / prod(layers[name]) for name, r in ranks_of.items()})
