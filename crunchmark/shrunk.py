"""A model with fewer heads and MLP channels: ordinary dense layers, smaller, and counted part by part."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from crunchmark.budget import Plan
from crunchmark.calib import Calibration
from crunchmark.edits import matrix, put, settle
from crunchmark.heads import attention, by_role, channels_of, heads_of
from crunchmark.interface import Layer
from crunchmark.parts import Pool, Scales, check_reach, even, fill
from crunchmark.stats import Stat
from crunchmark.view import Site, View
from crunchmark.walk import walk_known

MLP = ("gate", "up", "down")
ENDS = ("o", "down")  # the layers that end a branch


class Shrinker:
    """Deletes groups of heads and MLP channels of a dense model until it is as small as its plan.

    what: who asks, for the message when the plan is out of reach.
    biases: o and down get biases where they have none, and these count.
    """

    def __init__(self, view: View, plan: Plan, what: str, biases: bool = False) -> None:
        self.view, self.plan, self.what = view, plan, what
        self.dense = view.scope_bytes("blocks")
        self.scales = Scales.of(view, plan)
        blocks = range(len(view.blocks))
        self.pools = [pool for i in blocks for pool in _pools(view, i, self.scales)]
        self.fixed = self.scales.beside(view, self.pools) + biases * self.scales.new_biases(view)

    def even(self) -> list[Tensor]:
        """The order that keeps the same share of every pool, or the plan's share of every block."""
        return even(self.pools, self.view, self.plan)

    def fixed_share(self, order: Sequence[Tensor], kind: str, share: float) -> list[Tensor]:
        """An order in which that share of all parts of a kind comes first, and the rest of them last.

        kind: "groups" or "channels".
        """
        chosen = torch.cat([o for o, pool in zip(order, self.pools, strict=True) if pool.kind == kind])
        count = round(share * len(chosen))
        bound = chosen.sort().values[count - 1] if count else -torch.inf
        return [
            torch.where(o <= bound, -torch.inf, torch.inf) if pool.kind == kind else o
            for o, pool in zip(order, self.pools, strict=True)
        ]

    def check(self) -> None:
        """Raise Unreachable where one group and one channel of every block are too much."""
        need = self.fixed + sum(pool.cost for pool in self.pools)
        check_reach(self.what, need, self.scales, self.view, self.plan)

    def counts(self, order: Sequence[Tensor]) -> list[int]:
        """How many of each pool are kept; pools are the groups and the channels of every block in turn.

        order: as `fill` takes it.

        Raises:
            Unreachable: one group and one channel of every block are too much.
        """
        self.check()
        return fill(self.pools, order, self.scales.limit - self.fixed)

    def each(
        self, calib: Calibration, needs: Sequence[type[Stat]], visit: Callable[[int, list[Layer]], None]
    ) -> None:
        """Visit the blocks in order, each with the layers whose inputs are to be deleted: o, then down."""

        def ends(i: int, sites: list[Site], stats: Mapping[str, Mapping[type[Stat], Stat]]) -> None:
            found = {s.role: Layer(s.name, s.weight().cpu(), stats[s.name]) for s in sites if s.role in ENDS}
            visit(i, [found[role] for role in ENDS])

        walk_known(self.view, calib, needs, ends, ENDS)

    def pooled(self, i: int, scores: Sequence[Tensor]) -> list[Tensor]:
        """Scores (in,) of the inputs of o and of down as those of groups (their mean) and of channels."""
        heads, channels = scores
        return [heads.view(heads_of(self.view, i).groups, -1).mean(1), channels]

    def cut(
        self, i: int, pooled: Sequence[Tensor], counts: Sequence[int], constants: Sequence[Tensor] = ()
    ) -> None:
        """Keep the groups and the channels of block i with the highest scores.

        counts: of all pools.
        constants: what the inputs (in,) of o and of down become where they are deleted, by way of the bias.
        """
        kept = [best(s, n) for s, n in zip(pooled, counts[2 * i : 2 * i + 2], strict=True)]
        sites, inputs = by_role(self.view, i), [heads_of(self.view, i).kept("o", kept[0]), kept[1]]
        for role, left, value in zip(ENDS, inputs, constants, strict=bool(constants)):
            gone = value.double().index_fill(0, left, 0.0)  # (in,)
            weight = matrix(sites[role].module)
            add_bias(self.view, sites[role], weight @ gone.to(weight.device))
        keep_groups(self.view, i, kept[0])
        keep_channels(self.view, i, kept[1])

    def done(self) -> None:
        """Note what was done, and round to what is stored."""
        record(self.view, self.dense)
        settle(self.view.model, self.plan.dtype)


def best(scores: Tensor, count: int) -> Tensor:
    """Where the `count` highest scores are, in order; of equals the first."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def _pools(view: View, i: int, scales: Scales) -> Iterator[Pool]:
    """The groups of heads and the MLP channels of block i."""
    sites, groups, channels = by_role(view, i), heads_of(view, i).groups, channels_of(view, i)
    costs = {role: scales.numbers(site) for role, site in sites.items()}
    for role in ENDS:  # lose columns, so that their biases stay
        costs[role] = sites[role].shape[0] * sites[role].shape[1]
    mlp = sum(costs[role] for role in sites if role in MLP)
    yield Pool(i, "groups", groups, scales.each * (sum(costs.values()) - mlp) // groups)
    yield Pool(i, "channels", channels, scales.each * mlp // channels)


@torch.no_grad()
def keep_groups(view: View, i: int, groups: Tensor) -> None:
    """Keep these groups of heads (kept,) of block i: rows of q, k, v, columns of o."""
    heads, attn = heads_of(view, i), attention(view, i)
    for role, site in by_role(view, i).items():
        if role == "o":
            put(site.module, matrix(site.module)[:, heads.kept(role, groups)])
        elif role not in MLP:
            _keep_rows(site.module, heads.kept(role, groups))
    count = len(groups) * heads.queries
    for name, value in {"num_heads": count, "split_size": count * heads.width}.items():
        if hasattr(attn, name):
            setattr(attn, name, value)


@torch.no_grad()
def keep_channels(view: View, i: int, channels: Tensor) -> None:
    """Keep these channels (kept,) of the MLP of block i."""
    for role, site in by_role(view, i).items():
        if role == "down":
            put(site.module, matrix(site.module)[:, channels])
        elif role in MLP:
            _keep_rows(site.module, channels)


def _keep_rows(module: Any, rows: Tensor) -> None:
    bias = None if module.bias is None else module.bias.detach()[rows]
    put(module, matrix(module)[rows], bias)


@torch.no_grad()
def add_bias(view: View, site: Site, value: Tensor) -> None:
    """Add value (out,) to the layer's bias, which is made where there is none and then counts."""
    module: Any = site.module
    if module.bias is None:
        view.model.crunchmark_added = view.added() | {f"{site.name}.bias"}
        module.bias = nn.Parameter(value.to(module.weight), requires_grad=module.weight.requires_grad)
    else:
        module.bias.add_(value.to(module.bias))


def record(view: View, dense: int) -> None:
    """Note the shape the model has now; dense: bytes of the blocks' weights before."""
    rows = [
        [heads_of(view, i).groups, channels_of(view, i), *_biased(view, i)] for i in range(len(view.blocks))
    ]
    edit = {"kind": "shrunk", "blocks": rows, "nominal": view.scope_bytes("blocks") / dense}
    view.model.crunchmark_edits = [*getattr(view.model, "crunchmark_edits", []), edit]


def _biased(view: View, i: int) -> list[bool]:
    """Whether o and down have biases that the model did not have."""
    sites, added = by_role(view, i), view.added()
    return [f"{sites[role].name}.bias" in added for role in ENDS]


def rebuild(model: Any, edit: Mapping[str, Any]) -> None:
    """Bring a fresh model into the shape the edit left; its numbers are loaded afterwards."""
    view = View(model)
    dense = view.scope_bytes("blocks")
    for i, (groups, channels, *biased) in enumerate(edit["blocks"]):
        keep_groups(view, i, torch.arange(groups))
        keep_channels(view, i, torch.arange(channels))
        for role, new in zip(ENDS, biased, strict=True):
            if new:
                site = by_role(view, i)[role]
                add_bias(view, site, torch.zeros(site.shape[0]))
    record(view, dense)
