"""A model whose residual stream is narrower than it was: norms without weights, shortcuts, cut linears.

A block is one or two steps x <- x @ shortcut + sum of branch(norm(x)): attention, then the MLP; or both
at once where the family adds them in parallel. Blocks keep their class and the names of their parts.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from crunchmark.edits import absorb, centre, keep_width, matrix, put, unweigh
from crunchmark.interface import Skip
from crunchmark.view import Site, View

STEPS = {False: (("attn",), ("mlp",)), True: (("attn", "mlp"),)}  # parallel -> branches of every step
READS = {"attn_in": "attn", "mlp_in": "mlp"}  # input group -> branch whose norm it reads
WRITES = {"o": "attn", "down": "mlp"}  # role -> branch it ends


@dataclass(frozen=True)
class Layout:
    """Names inside a block that `forward` goes by."""

    steps: tuple[tuple[str, ...], ...]
    norms: tuple[str, str]  # attn, mlp
    attn: str
    mlp: tuple[str, ...]  # modules applied in turn


def forward(block: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The forward of every block: its steps in turn, on what is left of the stream."""
    if block.shortcut_0 is not None:
        hidden_states = hidden_states[..., : len(block.shortcut_0)]  # embeddings come with zeros behind
    for k in range(len(block.layout.steps)):
        hidden_states = _step(block, k, hidden_states, args, kwargs)
    return hidden_states


def _step(block: Any, k: int, x: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """Take x @ shortcut + the step's branches; no shortcut is the identity."""
    layout, shortcut = block.layout, getattr(block, f"shortcut_{k}")
    out = x if shortcut is None else x @ shortcut
    for branch in layout.steps[k]:
        if branch == "attn":
            names = list(inspect.signature(type(block).forward).parameters)[2:]  # self, hidden_states
            y = block.get_submodule(layout.norms[0])(x)
            out = (
                out + block.get_submodule(layout.attn)(y, **dict(zip(names, args, strict=False)), **kwargs)[0]
            )
        else:
            y = block.get_submodule(layout.norms[1])(x)
            for name in layout.mlp:
                y = block.get_submodule(name)(y)
            out = out + y
    return out


@dataclass(frozen=True)
class Step:
    """One addition to the residual stream: who reads it before, who writes it after."""

    index: int  # of the block
    k: int  # of the step in its block
    block: Any
    readers: tuple[Site, ...]
    writers: tuple[Site, ...]
    last: bool  # nothing but the head comes after it

    def run(self, block: nn.Module, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """This step alone, in the shape `Stream.forward` calls."""
        return _step(block, self.k, x, args, kwargs)

    @property
    def shortcut(self) -> Tensor | None:
        """The matrix (in, out) on the residual stream; None: as it is."""
        found: Tensor | None = getattr(self.block, f"shortcut_{self.k}")
        return found

    def bypass(self, value: Tensor) -> None:
        """Make `value` (in, out) the step's shortcut."""
        like: Any = self.readers[0].module
        self.block.register_buffer(f"shortcut_{self.k}", value.to(like.weight).contiguous().clone())


def steps(view: View) -> Iterator[Step]:
    """The steps of all blocks, in order."""
    blocks, plan = view.blocks, STEPS[view.family.parallel]
    for i, block in enumerate(blocks):
        sites = view.sites(i)
        for k, branches in enumerate(plan):
            readers = tuple(s for s in sites if READS.get(s.group) in branches)
            writers = tuple(s for s in sites if WRITES.get(s.role) in branches)
            last = i == len(blocks) - 1 and k == len(plan) - 1
            yield Step(i, k, block, readers, writers, last)


def check_sliceable(view: View) -> int:
    """Width of the residual stream.

    Raises:
        Skip: the stream can not be rotated without changing the model.
    """
    if view.family.post_norms:
        raise Skip(
            f"{view.model.config.model_type} norms a branch's output before adding it: "
            "the gain can not be fused, so a rotation of the residual stream changes the model"
        )
    widths = {int(e.weight.shape[1]) for e in view.embeddings if isinstance(e.weight, Tensor)}
    if widths != {view.sites(0)[0].shape[1]}:
        raise Skip(f"embeddings {sorted(widths)} wide are projected before the first block; they must not be")
    return widths.pop()


def sliced_size(view: View, width: int, scope: str) -> int:
    """Numbers stored when the (dense) model is cut to `width`.

    scope "blocks": weights, shortcuts and biases that are new; "model": every tensor, head untied.
    """
    full, whole, total = check_sliceable(view), scope == "model", 0
    for step in steps(view):
        out, norms = full if step.last else width, view.norms(step.index)
        total += width * out + sum(s.shape[1] * out for s in step.writers)
        total += out * sum(whole and s.bias is not None for s in step.writers)
        for s in step.readers:
            total += s.shape[0] * (width + _biased(s.module, norms[READS[s.group]], whole))
    if whole:
        head: Any = view.head
        total += head.out_features * (full + _biased(head, view.final_norm, True))
        total += sum(width * int(e.weight.shape[0]) for e in view.embeddings if isinstance(e.weight, Tensor))
        gone = [view.head, view.final_norm, *view.embeddings, *(s.module for s in view.all_sites())]
        gone += [n for i in range(len(view.blocks)) for n in view.norms(i).values()]
        known = {id(p) for m in gone for p in m.parameters()}
        total += sum(int(p.numel()) for p in view.model.parameters() if id(p) not in known)
    return total


def _biased(module: Any, norm: Any, whole: bool) -> int:
    """1 if a bias counts: a new one always, one that was there in the whole model."""
    return int(whole if module.bias is not None else getattr(norm, "bias", None) is not None)


def fuse(view: View) -> None:
    """Norms into the linears behind them, head untied, blocks in steps; the model computes what it did."""
    full, family, model = check_sliceable(view), view.family, view.model
    model.config.tie_word_embeddings = False
    put(view.head, matrix(view.head))  # a copy of its own
    absorb(view.head, view.final_norm, family.norm)
    added = {f"{s.name}.bias" for s in view.all_sites() if s.bias is None}
    for step in steps(view):
        norms = view.norms(step.index)
        for site in step.readers:
            absorb(site.module, norms[READS[site.group]], family.norm)
        for site in step.writers if family.norm == "layer" else ():
            centre(site.module)
    for embedding in view.embeddings:
        if family.norm == "layer":
            centre(embedding)
        keep_width(embedding, full)
    for i, block in enumerate(view.blocks):
        _restep(view, i, block, full)
    unweigh(model, family.final_norm, full)
    added -= {f"{s.name}.bias" for s in view.all_sites() if s.bias is None}
    model.crunchmark_added = added | {f"{family.blocks}.{s.index}.shortcut_{s.k}" for s in steps(view)}


def _restep(view: View, i: int, block: Any, full: int) -> None:
    """Weightless norms and the forward by steps, without shortcuts yet."""
    family = view.family
    for path in dict.fromkeys((family.norm_attn, family.norm_mlp)):
        unweigh(block, path, full)
    mlp = (family.mlp,) if family.mlp else (family.roles["up"], "activation_fn", family.roles["down"])
    block.layout = Layout(STEPS[family.parallel], (family.norm_attn, family.norm_mlp), family.attn, mlp)
    for k in range(len(block.layout.steps)):
        block.register_buffer(f"shortcut_{k}", None)
    block.forward = MethodType(forward, block)


def cut(view: View, width: int) -> None:
    """Keep the first `width` coordinates of the (fused, rotated) stream; behind the last step all stay."""
    full = int(view.head.in_features)  # type: ignore[arg-type]
    for embedding in view.embeddings:
        put(embedding, matrix(embedding)[:, :width])
    for step in steps(view):
        out = full if step.last else width
        for site in step.readers:
            put(site.module, matrix(site.module)[:, :width])
        for site in step.writers:
            put(
                site.module,
                matrix(site.module)[:out],
                None if site.bias is None else site.bias[:out].detach(),
            )
        old = step.shortcut
        step.bypass(torch.eye(width, out) if old is None else old[:width, :out])
    done = getattr(view.model, "crunchmark_edits", [])
    view.model.crunchmark_edits = [*done, {"kind": "sliced", "width": width, "nominal": width / full}]


def rebuild(model: Any, edit: Mapping[str, Any]) -> None:
    """Bring a fresh model into the shape the edit left; its numbers are loaded afterwards."""
    with torch.no_grad():
        view = View(model)
        fuse(view)
        cut(view, int(edit["width"]))
