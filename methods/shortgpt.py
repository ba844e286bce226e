"""ShortGPT: delete the blocks that change hidden states least (Men et al., 2024, arXiv:2403.03853)."""

from dataclasses import dataclass
from functools import partial

import torch

from crunchmark import (
    Calibration,
    Dropper,
    ModelMethod,
    Plan,
    Skip,
    Unit,
    View,
    Without,
    angles,
    influence,
    one_of,
    settle,
    surprise,
    taken_greedily,
    without,
)

SCORES = ("influence", "window", "perplexity")


@dataclass(frozen=True)
class ShortGPT(ModelMethod):
    """Blocks go whole; what an allocator gave no room goes first, where it gives unequal shares.

    score: influence, 1 - cosine of a block's input and output, ranked once; window, the run of blocks that
        turns the last token least (Gromov et al., arXiv:2403.17887); perplexity, one after the other the
        one whose removal costs least on the calibration text (SLEB, arXiv:2402.09025). These two look at
        more than one block and take no allocator.
    unit: block, or branch: attention and MLP on their own, which is not in the paper.
    """

    score: str = "influence"
    unit: str = "block"

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        one_of("method.score", self.score, SCORES)
        one_of("method.unit", self.unit, ("block", "branch"))
        if (self.score, self.unit) == ("window", "branch"):
            raise ValueError("method.unit='branch' makes no run of blocks; valid with score=window: block")

    @property
    def covers(self) -> tuple[str, ...]:  # type: ignore[override]
        """A run of blocks, and what is cheapest after what went, can not follow a plan."""
        return ("compensate",) if self.score == "influence" else ("allocate", "compensate")

    @property
    def likeness(self) -> Without:
        """A layer that is there or not."""
        return Without(self.unit)

    def check(self, view: View, plan: Plan) -> None:
        """One unit stays."""
        self.dropper(view, plan).check()

    def dropper(self, view: View, plan: Plan) -> Dropper:
        """What counts and deletes."""
        return Dropper(view, plan, "shortgpt", self.unit)

    @torch.no_grad()
    def compress(self, view: View, plan: Plan, calib: Calibration) -> None:
        """Delete units until the plan is met."""
        if plan.budget == 0:
            return
        if calib.inputs != "dense":
            raise Skip(f"ShortGPT ranks the dense model; calib.inputs={calib.inputs}; valid: dense")
        dropper = self.dropper(view, plan)
        dropper.drop(self.choose(dropper, view, calib))
        settle(view.model, plan.dtype)

    def choose(self, dropper: Dropper, view: View, calib: Calibration) -> list[Unit]:
        """What goes."""
        if self.score == "window":
            n = len(dropper.first(dropper.units))
            turns = angles(view, calib, n)
            start = turns.index(min(turns))
            return dropper.units[start : start + n]
        if self.score == "perplexity":

            def cost(gone: list[Unit]) -> float:
                with without(view, [part for one in gone for part in one]):
                    return surprise(view, calib)

            return taken_greedily(dropper.units, dropper.enough, cost)
        found = calib.memo(f"influence {self.unit}", partial(influence, view, calib, self.unit))
        shares = dropper.shares or dict.fromkeys(found, 1.0)
        order = sorted(dropper.units, key=lambda one: (shares[one], found[one]))
        closed = min(sum(share == 0 for share in shares.values()), len(order) - 1)  # one stays
        return max(dropper.first(order), order[:closed], key=len)
