"""Wanda-sp: whole heads and MLP channels by Wanda's score, the baseline of FLAP (arXiv:2312.11983)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crunchmark import Calibration, InputNorm, Layer, ModelMethod, Plan, Shrinker, View


@dataclass(frozen=True)
class WandaSP(ModelMethod):
    """The same share of key-value groups and of channels goes in every block; what stays is as it was.

    Wanda (arXiv:2306.11695) scores single weights by |W_ij| ||X_j||; here the mean over i scores input j of
    the layer that ends a branch, and a group of heads has the mean of its inputs.
    """

    covers = ("compensate",)

    def check(self, view: View, plan: Plan) -> None:
        """One group and one channel of every block stay."""
        self.shrinker(view, plan).check()

    @staticmethod
    def shrinker(view: View, plan: Plan) -> Shrinker:
        """What counts and cuts."""
        return Shrinker(view, plan, "wanda_sp")

    @torch.no_grad()
    def compress(self, view: View, plan: Plan, calib: Calibration) -> None:
        """Block by block: with compressed inputs, later blocks see what is left of earlier ones."""
        if plan.budget == 0:
            return
        shrinker = self.shrinker(view, plan)
        counts = shrinker.counts(shrinker.even())

        def visit(i: int, ends: list[Layer]) -> None:
            shrinker.cut(i, shrinker.pooled(i, [self.score(layer) for layer in ends]), counts)

        shrinker.each(calib, (InputNorm,), visit)
        shrinker.done()

    @staticmethod
    def score(layer: Layer) -> Tensor:
        """mean_i |W_ij| ||X_j||_2, (in,)."""
        return layer.weight.abs().mean(0) * layer[InputNorm].value
