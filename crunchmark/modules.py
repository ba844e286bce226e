"""Attention and MLPs of a model made narrower inside, within a plan; heads stay."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from crunchmark.budget import Plan
from crunchmark.calib import Calibration
from crunchmark.edits import put, settle
from crunchmark.heads import by_role, channels_of, heads_of
from crunchmark.interface import Layer
from crunchmark.modular import Weights, check_modular, fold_values, has_value_bias, install, record, rotary
from crunchmark.parts import Pool, Scales, check_reach, fill
from crunchmark.shrunk import MLP, keep_channels
from crunchmark.stats import Stat
from crunchmark.view import Site, View
from crunchmark.walk import walk

Visit = Callable[[int, Mapping[str, Layer]], None]
READ = ("q", "qkv", "down")  # the layers whose inputs say what may go


class Narrower:
    """Narrows the insides of the blocks of a dense model until it is as small as its plan.

    what: who asks, for the message when the plan is out of reach.

    Raises:
        Skip: attention of this family does more than project and rotate.
    """

    def __init__(self, view: View, plan: Plan, what: str) -> None:
        check_modular(view)
        self.view, self.plan, self.what = view, plan, what
        self.dense = view.scope_bytes("blocks")
        self.scales = Scales.of(view, plan)
        blocks = range(len(view.blocks))
        self.pools = [pool for i in blocks for pool in self._pools(i)]
        self.fixed = sum(self._beside(i) for i in blocks)

    @property
    def share(self) -> float:
        """What is kept of all together."""
        return (self.scales.limit - self.fixed) / sum(pool.size * pool.cost for pool in self.pools)

    def _pools(self, i: int) -> Iterator[Pool]:
        """What can be kept or not: channels, rotary pairs, other dimensions of q and k, those of v."""
        sites, heads, scales = by_role(self.view, i), heads_of(self.view, i), self.scales
        mlp = sum(scales.numbers(s) for role, s in sites.items() if role in MLP and role != "down")
        channels, width = channels_of(self.view, i), sites["o"].shape[0]
        yield Pool(i, "channels", channels, scales.each * (mlp // channels + sites["down"].shape[0]))
        rows = {"q": heads.groups * heads.queries, "k": heads.groups, "v": heads.groups}  # of a dimension
        bias = {part: n * self._biased(sites, part) for part, n in rows.items()}
        both = (rows["q"] + rows["k"]) * width  # or of v and o
        turned, plain = rotary(self.view, i), scales.each * (both + bias["q"] + bias["k"])
        index = 0 if scales.nominal else heads.groups  # a byte each
        pools = (("pairs", turned // 2, 2 * plain + index), ("plain", heads.width - turned, plain))
        yield from (Pool(i, kind, size, cost) for kind, size, cost in pools if size)
        yield Pool(i, "values", heads.width, scales.each * (both + bias["v"]))

    def _biased(self, sites: Mapping[str, Site], part: str) -> bool:
        """Whether rows of q, k or v keep biases that are weighed; v's own goes into that of o."""
        kept = sites["qkv"] if "qkv" in sites else sites[part]
        return self.scales.whole and kept.bias is not None and (part != "v" or "qkv" in sites)

    def _beside(self, i: int) -> int:
        """Bytes that are weighed and stay: biases of o and down, norms, a bias that o gets."""
        sites, block, each = by_role(self.view, i), self.view.blocks[i], self.scales.each
        weights = {id(s.module.weight) for s in sites.values()}
        moving = {id(s.bias) for role, s in sites.items() if role not in ("o", "down")}
        still = [p.numel() for p in block.parameters() if id(p) not in weights | moving]
        new = has_value_bias(self.view, i) and sites["o"].bias is None and not self.scales.nominal
        return each * (self.scales.whole * sum(still) + new * sites["o"].shape[0])

    def counts(self, keeps: Sequence[float]) -> list[dict[str, int]]:
        """How much of each kind is kept, per block, when blocks keep these shares of all kinds.

        Shares are scaled together to what the plan has.

        Raises:
            Unreachable: one of each is too much.
        """
        need = self.fixed + sum(pool.cost for pool in self.pools)
        check_reach(self.what, need, self.scales, self.view, self.plan)
        order = [torch.arange(p.size).double() / p.size / max(keeps[p.block], 1e-9) for p in self.pools]
        found: list[dict[str, int]] = [{"pairs": 0, "plain": 0} for _ in self.view.blocks]
        for pool, n in zip(self.pools, fill(self.pools, order, self.scales.limit - self.fixed), strict=True):
            found[pool.block][pool.kind] = n
        return found

    def each(self, calib: Calibration, needs: Sequence[type[Stat]], visit: Visit) -> None:
        """Visit the blocks in order, each with its layers by role; those of READ have statistics."""

        def layers(i: int, sites: list[Site], stats: Mapping[str, Mapping[type[Stat], Stat]]) -> None:
            visit(i, {s.role: Layer(s.name, s.weight().cpu(), stats[s.name]) for s in sites})

        walk(self.view, calib, needs, layers, roles=READ)

    def narrow(self, i: int, channels: Tensor, down: Tensor, attention: Weights, pairs: Tensor) -> None:
        """Give block i these channels, this down (out, kept), this attention and these rotary pairs."""
        fold_values(self.view, i)
        keep_channels(self.view, i, channels)
        put(by_role(self.view, i)["down"].module, down)
        install(self.view, i, attention, pairs)

    def done(self) -> None:
        """Note what was done, and round to what is stored."""
        record(self.view, self.dense)
        settle(self.view.model, self.plan.dtype)
