"""GQSA: whole groups pruned, the others rounded and tuned (Zeng et al., 2024, arXiv:2412.17560)."""

from collections.abc import Mapping
from dataclasses import dataclass

from crunchmark import (
    Calibration,
    Dense,
    Gram,
    GroupDraft,
    Layer,
    Method,
    ModelMethod,
    Plan,
    Room,
    Site,
    Term,
    Turn,
    View,
    check_groups,
    end_to_end,
    evenly,
    flag,
    groups_that_fit,
    least_groups,
    naming,
    number,
    one_of,
    reconstruct,
    sweep,
    turns,
    whole,
)


@dataclass(frozen=True)
class GroupPruned(Method):
    """The start of GQSA: a group's saliency is the sum of w_ij^2 / [H^-1]_jj, and rows keep equally many."""

    bits: int | None = None
    group: int = 16
    damp: float = 0.01
    obs_init: bool = False

    needs = (Gram,)

    def suits(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        """Groups must fill the rows of every layer."""
        check_groups(shapes, self.group)

    def least(self, shape: tuple[int, int], room: Room) -> int:
        """One group per row."""
        return least_groups(shape, room, self.group, self.bits)

    def compress(self, layer: Layer, room: Room) -> Term:
        """Rounded to the min-max grid of every kept group."""
        return self.draft(layer, room).term()

    def draft(self, layer: Layer, room: Room) -> GroupDraft:
        """The kept groups before they are rounded; dead inputs get no weight."""
        bits, kept = groups_that_fit(layer.shape, room, layer.name, self.group, self.bits)
        factor = layer[Gram].inverse(self.damp)
        weight = layer.weight.masked_fill(factor.dead, 0.0)  # (out, in)
        inverse = factor.upper.square().sum(0)  # (in,), the diagonal of H^-1
        score = (weight.square() / inverse).unflatten(1, (-1, self.group)).sum(-1)  # (out, groups)
        mask = evenly(score, kept)
        if self.obs_init:
            gone = ~mask.repeat_interleave(self.group, dim=1)  # (out, in)
            weight = sweep(weight, factor.upper, lambda left, _, j: left[:, 0].masked_fill(gone[:, j], 0.0))
        draft = GroupDraft(weight, mask, bits, self.group)
        draft.notes |= factor.notes
        return draft


@dataclass(frozen=True)
class GQSA(ModelMethod):
    """Stages two and three are no layer's: a block is tuned to its dense outputs, then the model to text.

    No code is released. Ours where the paper was not clear to us: [H^-1]_jj is not squared, rows are
    balanced, a block's targets are what it gave, while it was dense, for the same inputs.
    bits: of a code; null for 4, and more where every group fits. group: inputs kept or pruned together.
    damp: share of the mean Hessian diagonal added to it.
    obs_init: ours, make up for pruned groups in the kept ones before rounding.
    bqpo_steps: batches each block is tuned on; weights, scales and zeros train. 0: no such stage.
    bqpo_lr: of these. Both rates are for few steps on a small model: a thousand steps want 1e-5 to 1e-4.
    e2e_steps: batches the model is tuned on; scales and zeros train. 0: no such stage. e2e_lr: of these.
    """

    bits: int | None = None
    group: int = 16
    damp: float = 0.01
    obs_init: bool = False
    bqpo_steps: int = 16
    bqpo_lr: float = 1e-3
    e2e_steps: int = 8
    e2e_lr: float = 1e-3

    covers = ("compensate",)
    rooms = True

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        one_of("method.bits", self.bits, (None, *range(2, 9)))
        flag("method.obs_init", self.obs_init)
        whole("method.group", self.group)
        for name, steps in (("bqpo_steps", self.bqpo_steps), ("e2e_steps", self.e2e_steps)):
            whole(f"method.{name}", steps, least=0)
        rates = {"bqpo_lr": self.bqpo_lr, "e2e_lr": self.e2e_lr}
        for name, value in {"damp": self.damp, **rates}.items():
            number(f"method.{name}", value)

    @property
    def likeness(self) -> GroupPruned:
        """Stage one alone."""
        return GroupPruned(self.bits, self.group, self.damp, self.obs_init)

    def compress(self, view: View, plan: Plan, calib: Calibration) -> dict[str, Term]:
        """Block by block, then all together."""
        drafts: dict[str, GroupDraft] = {}
        terms: dict[str, Term] = {}
        for turn in turns(view, calib, (Gram,)):
            made = self.block(turn, plan.rooms)
            terms |= installed(turn.sites, made, plan)
            drafts |= made
        if self.e2e_steps and drafts:
            for draft in drafts.values():
                draft.freeze()
            nats = end_to_end(view, calib, drafts, self.e2e_lr, self.e2e_steps)
            for draft in drafts.values():
                draft.notes["nats"] = list(nats)
            terms |= installed([s for s in view.all_sites() if s.name in drafts], drafts, plan)
        return terms

    def block(self, turn: Turn, rooms: Mapping[str, Room]) -> dict[str, GroupDraft]:
        """Drafts of a block's layers, tuned to its outputs; layers with room for it stay dense."""
        made = {}
        for site in turn.sites:
            if not rooms[site.name].whole(site.shape):
                layer = Layer(site.name, site.weight().cpu(), turn.stats[site.name])
                with naming(site.name):
                    made[site.name] = self.likeness.draft(layer, rooms[site.name])
        if self.bqpo_steps and made:
            errors = reconstruct(turn, made, self.bqpo_lr, self.bqpo_steps)
            for draft in made.values():
                draft.notes["block_error"] = list(errors)
        return made


def installed(sites: list[Site], drafts: Mapping[str, GroupDraft], plan: Plan) -> dict[str, Term]:
    """The terms of these layers, put into the model."""
    terms: dict[str, Term] = {}
    for site in sites:
        draft = drafts.get(site.name)
        terms[site.name] = draft.term() if draft else Dense.of(site.weight(), plan.rooms[site.name])
        site.install(terms[site.name])
    return terms
