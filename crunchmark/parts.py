"""What parts of a model weigh in a plan's accounting, and how many of them fit."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crunchmark.budget import DENSE_BYTES, Plan, Unreachable, dense_bytes, within_reach
from crunchmark.view import Site, View


@dataclass(frozen=True)
class Pool:
    """Parts of one block that weigh the same: best first, some of them are kept, at least one."""

    block: int
    kind: str  # "groups", "channels"
    size: int  # how many there are
    cost: int  # bytes of one


@dataclass(frozen=True)
class Scales:
    """How a plan weighs parts.

    limit: bytes that may be left of what is weighed. each: bytes of a number.
    whole: everything in the blocks is weighed, else the linear layers' weights and new biases.
    nominal: the papers' count, weights alone.
    """

    limit: int
    each: int
    whole: bool
    nominal: bool

    @classmethod
    def of(cls, view: View, plan: Plan) -> "Scales":
        """For a (dense) model and its plan."""
        nominal, blocks = plan.accounting == "nominal", view.scope_bytes("blocks")
        if nominal:
            dense = view.scope_bytes(plan.scope)  # what rooms leave over is the plan's all the same
            return cls(int(blocks - plan.budget * dense + 1e-6), DENSE_BYTES, False, True)
        whole, each = plan.scope == "model", plan.dtype.itemsize
        beside = sum(p.numel() for block in view.blocks for p in block.parameters()) - blocks // DENSE_BYTES
        return cls(plan.total + whole * beside * each, each, whole, False)

    def numbers(self, site: Site) -> int:
        """Of a layer whose rows can go, biases with them."""
        return site.shape[0] * (site.shape[1] + (self.whole and site.bias is not None))

    def new_biases(self, view: View) -> int:
        """Bytes of biases for all o and down layers that have none."""
        missing = [s for s in view.all_sites() if s.role in ("o", "down") and s.bias is None]
        return 0 if self.nominal else self.each * sum(s.shape[0] for s in missing)

    def beside(self, view: View, pools: Sequence[Pool]) -> int:
        """Bytes that are weighed and are in none of these pools."""
        if not self.whole:
            return 0
        all_of_them = sum(p.numel() for block in view.blocks for p in block.parameters())
        return self.each * all_of_them - sum(pool.size * pool.cost for pool in pools)


def fill(pools: Sequence[Pool], order: Sequence[Tensor], limit: int) -> list[int]:
    """How many of each pool fit, taken by rising order; at least one each.

    A pool whose next part no longer fits is closed, and smaller ones go on: less than the smallest part
    that is not kept is left over.

    order: per pool (size,), not falling.
    """
    counts = [1] * len(pools)
    left = limit - sum(pool.cost for pool in pools)
    key = torch.cat([o[1:] for o in order])
    owner = torch.cat([torch.full((pool.size - 1,), k) for k, pool in enumerate(pools)])
    closed: set[int] = set()
    for k in owner[torch.argsort(key, stable=True)].tolist():
        if k not in closed and pools[k].cost <= left:
            counts[k] += 1
            left -= pools[k].cost
        else:
            closed.add(k)
    return counts


def even(pools: Sequence[Pool], view: View, plan: Plan) -> list[Tensor]:
    """The order that keeps the same share of every pool, or what an allocator's plan says of a block."""
    given = "allocator" in plan.notes
    shares = [share_of(view.sites(i), plan) if given else 1.0 for i in range(len(view.blocks))]
    return [torch.arange(p.size, dtype=torch.float64) / p.size / max(shares[p.block], 1e-9) for p in pools]


def share_of(sites: Sequence[Site], plan: Plan) -> float:
    """What these layers may keep of their weights."""
    dense = {site.name: dense_bytes(site.shape) for site in sites}
    rooms = {name: plan.rooms[name] for name in dense}
    kept = [r.nbytes if r.nominal is None else r.nominal * dense[name] for name, r in rooms.items()]
    return sum(kept) / sum(dense.values())


def check_reach(what: str, need: int, scales: Scales, view: View, plan: Plan) -> None:
    """Raise Unreachable, with the nearest budget, where `need` bytes are over the limit."""
    if need > scales.limit:
        beside = scales.limit - plan.total if scales.whole else 0
        whole = view.scope_bytes(plan.scope)
        outside = whole - view.scope_bytes("blocks")
        nearest = within_reach(need - beside, whole, outside)
        raise Unreachable(what, need, scales.limit, nearest)
