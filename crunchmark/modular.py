"""Attention whose queries and keys, and values, have fewer dimensions than its heads had; MLPs as narrow.

A rotary pair keeps the frequency it had: cosines and sines are gathered per key-value head.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from crunchmark.edits import matrix, put
from crunchmark.heads import PARTS, attention, by_role, channels_of, heads_of
from crunchmark.interface import Skip
from crunchmark.shrunk import add_bias, keep_channels
from crunchmark.view import View

INDEX = torch.uint8  # of the number of a pair in its head


@dataclass(frozen=True)
class Modular:
    """Sizes of the attention of one block, per head."""

    groups: int
    queries: int  # query heads per group
    pairs: int  # rotary pairs of q and k
    plain: int  # their dimensions without rotation
    values: int
    layers: tuple[str, ...]  # of q, k, v or the fused layer, then o; relative to the attention

    @property
    def split(self) -> list[int]:
        """Rows of q, k, v."""
        wide = 2 * self.pairs + self.plain
        return [self.groups * self.queries * wide, self.groups * wide, self.groups * self.values]


@dataclass
class Weights:
    """Attention by group: q (G, g, d, D), k and v (G, d, D), o (G, d, g, D); biases without D."""

    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor
    q_bias: Tensor
    k_bias: Tensor
    v_bias: Tensor


def forward(attn: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """The forward of every family's attention, with its own sizes."""
    sizes: Modular = attn.modular
    q, k, v = _projected(attn, sizes, hidden_states)  # (B, heads, T, dimensions)
    if sizes.pairs:
        cos, sin = (t[..., attn.pairs.long()].transpose(1, 2) for t in kwargs["position_embeddings"])
        q = _turned(q, cos.repeat_interleave(sizes.queries, 1), sin.repeat_interleave(sizes.queries, 1))
        k = _turned(k, cos, sin)
    past = kwargs.get("layer_past", kwargs.get("past_key_values"))
    if past is not None:
        k, v = past.update(k, v, attn.layer_idx)
    eager = inspect.getmodule(type(attn)).eager_attention_forward  # type: ignore[union-attr]
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(attn.config._attn_implementation, eager)
    window = {"sliding_window": attn.config.sliding_window} if _slides(attn) else {}
    mask = kwargs.get("attention_mask")
    out, weights = attend(attn, *_even(q, k, v), mask, dropout=0.0, scaling=attn.scaling, **window)
    out = out[..., : sizes.values].reshape(*hidden_states.shape[:-1], -1)  # (B, T, heads * values)
    return attn.get_submodule(sizes.layers[-1])(out), weights


def _even(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
    """The same (..., dimensions), the narrower with zeros behind: no fused kernel takes unequal widths."""
    wide = max(k.shape[-1], v.shape[-1])
    return [x if x.shape[-1] == wide else F.pad(x, (0, wide - x.shape[-1])) for x in (q, k, v)]


def _slides(attn: Any) -> bool:
    """Whether this layer looks at a window only."""
    return getattr(attn, "sliding_window", getattr(attn.config, "sliding_window", None)) is not None


def _projected(attn: Any, sizes: Modular, x: Tensor) -> list[Tensor]:
    """q, k, v of x (B, T, D), each (B, heads, T, dimensions)."""
    rows = torch.cat([attn.get_submodule(name)(x) for name in sizes.layers[:-1]], -1)
    heads = (sizes.groups * sizes.queries, sizes.groups, sizes.groups)
    return [
        part.unflatten(-1, (n, -1)).transpose(1, 2)
        for part, n in zip(rows.split(sizes.split, -1), heads, strict=True)
    ]


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs of x (..., first halves, second halves, rest) turned by (..., pairs)."""
    wide = cos.shape[-1]
    a, b, rest = x.split([wide, wide, x.shape[-1] - 2 * wide], -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


def check_modular(view: View) -> None:
    """Refuse attention that does more than project and rotate.

    Raises:
        Skip: queries and keys are normed per head, so that a dimension can not go alone.
    """
    for i in range(len(view.blocks)):
        known = {id(p) for site in view.sites(i) for p in site.module.parameters()}
        if any(id(p) not in known for p in attention(view, i).parameters()):
            raise Skip(
                f"{view.model.config.model_type} norms queries and keys per head: "
                "without some dimensions the others change"
            )


def rotary(view: View, i: int) -> int:
    """Dimensions of a head that are rotated in pairs."""
    attn = attention(view, i)
    if hasattr(attn, "rotary_ndims"):
        return int(attn.rotary_ndims)
    return heads_of(view, i).width if getattr(attn.config, "rope_parameters", None) else 0


@torch.no_grad()
def weights_of(view: View, i: int) -> Weights:
    """The attention of block i, float64; missing biases are zero."""
    heads, sites = heads_of(view, i), by_role(view, i)
    found: dict[str, Tensor] = {}
    for part in PARTS:
        module: Any = sites["qkv" if "qkv" in sites else part].module
        rows, w = heads.rows(part, torch.arange(heads.groups)), _near(matrix(module))
        shape = (heads.groups, heads.queries, heads.width) if part == "q" else (heads.groups, heads.width)
        bias = w.new_zeros(len(w)) if module.bias is None else _near(module.bias.detach().double())
        found |= {part: w[rows].view(*shape, -1), f"{part}_bias": bias[rows].view(shape)}
    o = _near(matrix(sites["o"].module))  # (D, heads * d)
    o = o.view(len(o), heads.groups, heads.queries, heads.width).permute(1, 3, 2, 0)
    return Weights(o=o, **found)


def _near(tensor: Tensor) -> Tensor:
    """On the CPU, if it is anywhere."""
    return tensor if tensor.is_meta else tensor.cpu()


@torch.no_grad()
def install(view: View, i: int, new: Weights, pairs: Tensor) -> None:
    """Give block i this attention; the bias of v must be in that of o already.

    pairs: (G, pairs) numbers of the rotary pairs that are left.
    """
    sites, attn = by_role(view, i), attention(view, i)
    groups, queries, wide = new.q.shape[:3]
    prefix = f"{view.family.attn}."
    names = [view.family.roles[r].removeprefix(prefix) for r in (*_readers(sites), "o")]
    plain = wide - 2 * pairs.shape[1]
    attn.modular = Modular(groups, queries, pairs.shape[1], plain, new.v.shape[1], tuple(names))
    rows = [t.flatten(0, -2) for t in (new.q, new.k, new.v)]
    biases = [new.q_bias.flatten(), new.k_bias.flatten(), rows[2].new_zeros(len(rows[2]))]
    if "qkv" in sites:
        module: Any = sites["qkv"].module
        put(module, torch.cat(rows), None if module.bias is None else torch.cat(biases))
    else:
        for role, w, b in zip(PARTS, rows, biases, strict=True):
            module = sites[role].module
            put(module, w, None if module.bias is None else b)
        module.bias = None  # that of v, which comes last
    end: Any = sites["o"].module
    put(end, new.o.permute(3, 0, 2, 1).flatten(1))
    attn.forward = MethodType(forward, attn)
    path = f"{view.family.blocks}.{i}.{view.family.attn}"
    attn.register_buffer("pairs", pairs.to(INDEX).to(end.weight.device) if plain < wide else None)
    view.model.crunchmark_added = view.added() | ({f"{path}.pairs"} if plain < wide else set())


def _readers(sites: Mapping[str, Any]) -> tuple[str, ...]:
    return ("qkv",) if "qkv" in sites else PARTS


def fold_values(view: View, i: int) -> None:
    """The bias of v into that of o: rows of a softmax sum to one."""
    old, site = weights_of(view, i), by_role(view, i)["o"]
    if has_value_bias(view, i):
        per_query = old.v_bias[:, :, None, None] * old.o  # (G, d, g, D)
        add_bias(view, site, per_query.sum((0, 1, 2)))


def has_value_bias(view: View, i: int) -> bool:
    """Whether v, or the fused layer, has a bias."""
    sites = by_role(view, i)
    return sites["qkv" if "qkv" in sites else "v"].bias is not None


def record(view: View, dense: int) -> None:
    """Note the shape the model has now; dense: bytes of the blocks' weights before."""
    rows = []
    for i in range(len(view.blocks)):
        sizes: Modular = attention(view, i).modular
        rows.append([channels_of(view, i), sizes.pairs, sizes.plain, sizes.values])
    edit = {"kind": "modular", "blocks": rows, "nominal": view.scope_bytes("blocks") / dense}
    view.model.crunchmark_edits = [*getattr(view.model, "crunchmark_edits", []), edit]


def rebuild(model: Any, edit: Mapping[str, Any]) -> None:
    """Bring a fresh model into the shape the edit left; its numbers are loaded afterwards."""
    view = View(model)
    dense = view.scope_bytes("blocks")
    for i, (channels, pairs, plain, values) in enumerate(edit["blocks"]):
        keep_channels(view, i, torch.arange(channels))
        fold_values(view, i)
        old, heads = weights_of(view, i), heads_of(view, i)
        wide = 2 * pairs + plain
        new = Weights(
            old.q[:, :, :wide], old.k[:, :wide], old.v[:, :values], old.o[:, :values],
            old.q_bias[..., :wide], old.k_bias[..., :wide], old.v_bias[..., :values],
        )  # fmt: skip
        install(view, i, new, torch.zeros(heads.groups, pairs))
    record(view, dense)
