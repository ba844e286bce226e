"""A model with fewer blocks, or blocks with fewer branches."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from crunchmark.budget import Plan, Room, dense_bytes
from crunchmark.families import GROUPS
from crunchmark.gone import Gone, GoneAttention
from crunchmark.interface import Layer, Method, Skip
from crunchmark.parts import Scales, check_reach, share_of
from crunchmark.terms import Term, Zero
from crunchmark.view import Site, View

BRANCHES = ("attn", "mlp")
SAME = 9  # digits of a share: the rest is what sums of floats are off
Part = tuple[int, str]  # block, branch
Unit = tuple[Part, ...]  # what goes together


@dataclass(frozen=True)
class Without(Method):
    """Layers that are there or are not: what deleting a unit is, seen layer by layer."""

    unit: str = "block"

    def sizes(self, shape: tuple[int, int], room: Room) -> Sequence[int]:
        """Nothing or all."""
        return (0, dense_bytes(shape))

    def compress(self, layer: Layer, room: Room) -> Term:
        """Nothing."""
        return Zero(layer.shape)


class Dropper:
    """Deletes blocks, or single branches, of a dense model until it is as small as its plan.

    what: who asks, for the message when the plan is out of reach.
    """

    def __init__(self, view: View, plan: Plan, what: str, unit: str) -> None:
        check_droppable(view)
        self.view, self.plan, self.what = view, plan, what
        self.units = units(view, unit)
        self.scales = Scales.of(view, plan)
        self.costs = {one: self._cost(one) for one in self.units}
        self.weight = self.scales.beside(view, ()) or self.scales.each * view.scope_bytes("blocks") // 2

    def _cost(self, one: Unit) -> int:
        """Bytes that go with a unit."""
        if not self.scales.whole:
            return self.scales.each * sum(
                a * b for part in one for a, b in (s.shape for s in self.sites(part))
            )
        block = self.view.blocks[one[0][0]]
        modules = [m for part in one for m in taken(self.view, *part).values()]
        found = {p for m in ([block] if len(one) == len(BRANCHES) else modules) for p in m.parameters()}
        return self.scales.each * sum(p.numel() for p in found)

    def sites(self, part: Part) -> list[Site]:
        """The linear layers of a branch."""
        return [s for s in self.view.sites(part[0]) if branch_of(s.role) == part[1]]

    def enough(self, gone: Iterable[Unit]) -> bool:
        """Whether the model is small enough without these."""
        return self.weight - sum(self.costs[one] for one in gone) <= self.scales.limit

    def first(self, order: Sequence[Unit]) -> list[Unit]:
        """As many of these, in order, as must go; the last one is never asked for."""
        count = next((n for n in range(len(order)) if self.enough(order[:n])), len(order) - 1)
        return list(order[:count])

    @property
    def shares(self) -> dict[Unit, float] | None:
        """What an allocator left of every unit; None where none was asked, or left the same of all."""
        if "allocator" not in self.plan.notes:
            return None
        sites = {one: [s for part in one for s in self.sites(part)] for one in self.units}
        found = {one: round(share_of(own, self.plan), SAME) for one, own in sites.items()}
        return found if len(set(found.values())) > 1 else None

    def check(self) -> None:
        """Raise Unreachable where the smallest unit alone is too much."""
        least = self.weight - sum(self.costs.values()) + min(self.costs.values())
        check_reach(self.what, least, self.scales, self.view, self.plan)

    def drop(self, gone: Sequence[Unit]) -> None:
        """Delete these units; where the only one left is too much, the smallest stays in its place.

        Raises:
            Unreachable: that is too much, too.
        """
        self.check()
        if not self.enough(gone):
            smallest = min(self.units, key=self.costs.__getitem__)
            gone = [one for one in self.units if one != smallest]
        dense = self.view.scope_bytes("blocks")
        kept = dense - sum(dense_bytes(s.shape) for one in gone for part in one for s in self.sites(part))
        drop(self.view, [part for one in gone for part in one], kept / dense)


def units(view: View, unit: str) -> list[Unit]:
    """What goes together, in order: whole blocks ("block") or their branches ("branch")."""
    blocks = [tuple((i, branch) for branch in BRANCHES) for i in range(len(view.blocks))]
    return blocks if unit == "block" else [(part,) for block in blocks for part in block]


def branch_of(role: str) -> str:
    """The branch a layer belongs to."""
    return "attn" if GROUPS[role] in ("attn_in", "o_in") else "mlp"


def check_droppable(view: View) -> None:
    """Refuse models whose blocks are not the same whatever their number.

    Raises:
        Skip: attention is scaled by the number of its block.
    """
    if getattr(view.model.config, "scale_attn_by_inverse_layer_idx", False):
        raise Skip("attention is scaled by the number of its block, so that blocks can not move up")


def _stand_ins(view: View, i: int, branch: str) -> dict[str, nn.Module]:
    """Path in block i -> what takes the place of the module there, when that branch goes."""
    family, block = view.family, view.blocks[i]
    if branch == "attn":
        number = int(block.get_submodule(family.attn).layer_idx)  # type: ignore[arg-type]
        found: dict[str, nn.Module] = {family.attn: GoneAttention(number)}
    elif family.mlp:
        found = {family.mlp: Gone()}
    else:
        found = {family.roles["up"]: nn.Identity(), "activation_fn": nn.Identity()}
        found |= {family.roles["down"]: Gone()}
    if family.norm_attn != family.norm_mlp:  # a norm of its own, which nobody reads any more
        found[family.norm_attn if branch == "attn" else family.norm_mlp] = nn.Identity()
    return found


def taken(view: View, i: int, branch: str) -> dict[str, nn.Module]:
    """What goes with a branch of block i, by path."""
    return {path: view.blocks[i].get_submodule(path) for path in _stand_ins(view, i, branch)}


def _detach(view: View, i: int, branch: str) -> dict[str, nn.Module]:
    """Take a branch of block i away; what was there, by path."""
    before = taken(view, i, branch)
    for path, module in _stand_ins(view, i, branch).items():
        view.blocks[i].set_submodule(path, module)
    return before


@contextmanager
def without(view: View, parts: Iterable[Part]) -> Iterator[None]:
    """Inside, these branches add nothing."""
    away: list[tuple[int, dict[str, nn.Module]]] = []
    try:
        for i, branch in parts:
            away.append((i, _detach(view, i, branch)))
        yield
    finally:
        for i, before in reversed(away):
            for path, module in before.items():
                view.blocks[i].set_submodule(path, module)


def drop(view: View, parts: Iterable[Part], nominal: float) -> None:
    """Delete branches for good; a block that loses all of them goes, and the others move up.

    nominal: the share kept in the paper's own count.
    """
    gone = set(parts)
    whole = [i for i in range(len(view.blocks)) if all((i, branch) in gone for branch in BRANCHES)]
    single = sorted((i, branch) for i, branch in gone if i not in whole)
    for i, branch in single:
        _detach(view, i, branch)
    _renumber(view, [i for i in range(len(view.blocks)) if i not in whole])
    left = [[i - sum(k < i for k in whole), branch] for i, branch in single]
    edit = {"kind": "dropped", "parts": left, "nominal": nominal}
    view.model.crunchmark_edits = [*getattr(view.model, "crunchmark_edits", []), edit]


def _renumber(view: View, kept: list[int]) -> None:
    """Keep these blocks, and tell them, the cache and the config how many there are."""
    config, blocks = view.model.config, view.blocks
    parent, _, name = view.family.blocks.rpartition(".")
    setattr(view.model.get_submodule(parent), name, nn.ModuleList(blocks[i] for i in kept))
    for new, old in enumerate(kept):
        for module in blocks[old].modules():
            if hasattr(module, "layer_idx"):
                setattr(module, "layer_idx", new)  # noqa: B010
    types = getattr(config, "layer_types", None)
    config.num_hidden_layers = len(kept)
    if types:
        config.layer_types = [types[i] for i in kept]


def rebuild(model: Any, edit: Mapping[str, Any]) -> None:
    """Take away the branches the edit left out; blocks the config says already."""
    drop(View(model), [(i, branch) for i, branch in edit["parts"]], float(edit["nominal"]))
