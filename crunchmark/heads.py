"""Where the rows of q, k and v of every attention head are, and which MLP channels belong together."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from crunchmark.view import Site, View

PARTS = ("q", "k", "v")


@dataclass(frozen=True)
class Heads:
    """Attention of one block. A group is a key-value head with the query heads that read it."""

    width: int  # of a head
    groups: int
    queries: int  # query heads of a group
    fused: str  # as the family's row says: "", "stacked" or "heads"

    def rows(self, part: str, groups: Tensor) -> Tensor:
        """Rows of a part of these groups in the layer that holds it, group by group, (rows,)."""
        if self.fused == "heads":  # as many query heads as key-value heads
            return _runs(groups * len(PARTS) + PARTS.index(part), self.width)
        runs = _runs(groups, self.width * (self.queries if part == "q" else 1))
        sizes = (0, self.queries * self.groups, self.groups)  # in front of q, k, v
        before = sum(sizes[: PARTS.index(part) + 1]) * self.width
        return runs + before if self.fused else runs

    def kept(self, role: str, groups: Tensor) -> Tensor:
        """Rows of a layer (role q, k, v or qkv), or columns of o, that these groups hold, in order."""
        if role != "qkv":
            return _runs(groups, self.width * (self.queries if role in ("q", "o") else 1))
        if self.fused == "heads":
            return _runs(groups, len(PARTS) * self.width)
        return torch.cat([self.rows(part, groups) for part in PARTS])


def _runs(starts: Tensor, length: int) -> Tensor:
    """start * length + 0 .. length - 1 for every start, one after the other."""
    return (starts[:, None] * length + torch.arange(length)).flatten()


def by_role(view: View, i: int) -> dict[str, Site]:
    """The sites of block i by role."""
    return {site.role: site for site in view.sites(i)}


def heads_of(view: View, i: int) -> Heads:
    """The layout of attention in block i as it is now."""
    sites, attn = by_role(view, i), attention(view, i)
    width = int(getattr(attn, "head_dim", 0) or attn.head_size)
    queries = sites["o"].shape[1] // width
    groups = queries if "qkv" in sites else sites["k"].shape[0] // width
    return Heads(width, groups, queries // groups, view.family.fused)


def attention(view: View, i: int) -> Any:
    """The attention module of block i."""
    return view.blocks[i].get_submodule(view.family.attn)


def channels_of(view: View, i: int) -> int:
    """Width of the MLP of block i."""
    return by_role(view, i)["down"].shape[1]
