"""FLAP: delete what fluctuates least, keep its mean as a bias (An et al., AAAI 2024, arXiv:2312.11983)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crunchmark import (
    Calibration,
    InputMean,
    InputNorm,
    Layer,
    ModelMethod,
    Plan,
    Shrinker,
    Skip,
    View,
    flag,
    fraction,
    one_of,
)

METRICS = ("WIFV", "IFV", "WIFN")
STRUCTURES = ("AL-AM", "AL-MM", "UL-UM", "UL-MM")


@dataclass(frozen=True)
class FLAP(ModelMethod):
    """Groups of heads and channels of all blocks compete by standardised scores; a bias keeps their means.

    metric: WIFV, the variance of an input times its column's squared norm; IFV, the variance; WIFN, Wanda's.
    structure: AL, blocks compete, or UL, all lose the same share; AM, heads and channels compete (UM: lose
        the same share), or MM, `heads` says how much of the heads goes.
    heads: with MM, the share of head groups that goes (UL: of each block, in whole groups); channels pay the
        rest.
    compensate: add the means of deleted inputs, as biases that count.
    """

    metric: str = "WIFV"
    structure: str = "AL-AM"
    heads: float = 0.2
    compensate: bool = True

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        one_of("method.metric", self.metric, METRICS)
        one_of("method.structure", self.structure, STRUCTURES)
        fraction("method.heads", self.heads, zero=True, one=True)
        flag("method.compensate", self.compensate)

    @property
    def covers(self) -> tuple[str, ...]:  # type: ignore[override]
        """Where blocks compete, it decides itself what to take where."""
        return ("allocate", "compensate") if self.structure.startswith("AL") else ("compensate",)

    def check(self, view: View, plan: Plan) -> None:
        """One group and one channel of every block stay, and biases that are new."""
        self.shrinker(view, plan).check()

    def shrinker(self, view: View, plan: Plan) -> Shrinker:
        """What counts and cuts."""
        return Shrinker(view, plan, "flap", biases=self.compensate)

    @torch.no_grad()
    def compress(self, view: View, plan: Plan, calib: Calibration) -> None:
        """Score the dense model, then delete everywhere at once."""
        if plan.budget == 0:
            return
        if calib.inputs != "dense":
            raise Skip(f"FLAP scores the dense model as a whole; calib.inputs={calib.inputs}; valid: dense")
        shrinker = self.shrinker(view, plan)
        scores: list[list[Tensor]] = []
        means: list[list[Tensor]] = []

        def visit(i: int, ends: list[Layer]) -> None:
            scores.append(shrinker.pooled(i, [_standard(self.score(layer)) for layer in ends]))
            means.append([layer[InputMean].value for layer in ends] if self.compensate else [])

        shrinker.each(calib, (InputNorm, InputMean), visit)
        counts = shrinker.counts(self.order(shrinker, [s for pair in scores for s in pair]))
        for i, (pooled, constants) in enumerate(zip(scores, means, strict=True)):
            shrinker.cut(i, pooled, counts, constants)
        shrinker.done()

    def score(self, layer: Layer) -> Tensor:
        """How much an input of the layer matters beyond its mean, (in,)."""
        energy, inputs = layer[InputNorm], layer[InputMean]
        if self.metric == "WIFN":
            return layer.weight.abs().mean(0) * energy.value
        n = energy.tokens
        variance = (energy.sums - inputs.sums.square() / n) / max(1, n - 1)  # (in,), in float64: a difference
        variance = variance.clamp(min=0).float()
        return variance * layer.weight.square().sum(0) if self.metric == "WIFV" else variance

    def order(self, shrinker: Shrinker, scores: Sequence[Tensor]) -> list[Tensor]:
        """Which part of which pool is kept before which, lowest first."""
        order = shrinker.even()
        if self.structure.startswith("AL"):
            order = [-s.double().sort(descending=True).values for s in scores]
        return shrinker.fixed_share(order, "groups", 1 - self.heads) if "MM" in self.structure else order


def _standard(scores: Tensor) -> Tensor:
    """Zero mean and unit deviation within a layer."""
    return (scores - scores.mean()) / scores.std().clamp(min=1e-12)
