"""Scales of channels that move between modules: one gives its outputs smaller, its readers take larger ones.

The model's function stays as it is; what changes is how much rounding of a reader hurts (AWQ,
arXiv:2306.00978).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from crunchmark.heads import PARTS, by_role, heads_of
from crunchmark.hooks import Call, recording
from crunchmark.terms import Dense
from crunchmark.view import Site, View
from crunchmark.walk import Stream

PROBE = 4.0  # scales that a trial fold has, and their inverses: powers of two, so that nothing is rounded
FOLDED = 0.01  # of what its block adds, an output may move in a trial: right folds 3e-7, wrong ones from 0.19


@dataclass(frozen=True)
class Gain:
    """The gain of a norm, and its shift."""

    module: Any
    one: float  # what the norm adds to its stored gain

    def exact(self, s: Tensor, dtype: torch.dtype) -> Tensor:
        """The scale nearest to s that is left when the smaller gain is stored in dtype; 1 where none is."""
        gain: Tensor = self.module.weight.float() + self.one
        found = gain / (self._stored(s, dtype) + self.one)
        return torch.where(found.isfinite() & (found > 0), found, 1.0)

    def _stored(self, s: Tensor, dtype: torch.dtype) -> Tensor:
        gain: Tensor = self.module.weight.float() + self.one
        return (gain / s - self.one).to(dtype).float()

    def divide(self, s: Tensor, dtype: torch.dtype) -> None:
        """Outputs over s; the shift is stored in dtype as well."""
        self.module.weight.copy_(self._stored(s, dtype))
        if getattr(self.module, "bias", None) is not None:
            self.module.bias.copy_((self.module.bias.float() / s).to(dtype))


@dataclass(frozen=True)
class Rows:
    """Some rows of a linear layer, biases with them."""

    site: Site
    rows: Tensor

    @property
    def module(self) -> Any:
        """The layer."""
        return self.site.module

    def exact(self, s: Tensor, dtype: torch.dtype) -> Tensor:
        """The scale itself: rows are yet to be rounded."""
        return s

    def divide(self, s: Tensor, dtype: torch.dtype) -> None:
        """Outputs over s; biases are stored in dtype."""
        weight, bias = self.site.weight(), self.site.bias
        weight[self.rows] /= s[:, None]
        self.site.install(Dense(weight, torch.float32))
        if bias is not None:
            bias[self.rows] = (bias[self.rows].float() / s).to(dtype).to(bias)


@dataclass(frozen=True)
class Fold:
    """Where a scale can move: from the inputs of `readers` to what gives them."""

    giver: Gain | Rows
    readers: tuple[Site, ...]
    inspected: nn.Module  # whose output tells how much a rounded reader hurts

    def apply(self, s: Tensor, dtype: torch.dtype) -> None:
        """Divide what is given by s (in,), multiply the columns that read it."""
        self.giver.divide(s, dtype)
        for site in self.readers:
            site.install(Dense(site.weight() * s, torch.float32))

    def output(self, call: Call) -> Tensor:
        """What the inspected module makes of a recorded call."""
        args, kwargs = call
        out = self.inspected(*args, **kwargs)
        found: Tensor = out[0] if isinstance(out, tuple) else out
        return found


def foldable(view: View, i: int, stream: Stream) -> list[Fold]:
    """The folds of block i that leave its output as it was, tried on the stream's first batch.

    Not so: an activation between the two that is not homogeneous, or a norm that feeds something else.

    Raises:
        ValueError: the output is not finite; names the block.
    """
    before = next(stream.forward(i)).float()
    if not before.isfinite().all():
        raise ValueError(f"{view.family.blocks}.{i}: outputs hold nan or inf; valid: finite activations")
    return [fold for fold in _candidates(view, i) if _holds(fold, i, stream, before)]


def _candidates(view: View, i: int) -> Iterator[Fold]:
    """Norm -> attention, values -> o, norm -> MLP, up -> down, where shapes allow."""
    sites, norms, block = by_role(view, i), view.norms(i), view.blocks[i]
    attn, mlp = (tuple(sites[r] for r in roles if r in sites) for roles in (("qkv", *PARTS), ("gate", "up")))
    one = float(view.family.norm == "rms1p")
    if norms["attn"] is norms["mlp"]:
        yield Fold(Gain(norms["attn"], one), (*attn, *mlp), block)
    else:
        yield Fold(Gain(norms["attn"], one), attn, block.get_submodule(view.family.attn))
    rows = heads_of(view, i).rows("v", torch.arange(heads_of(view, i).groups))
    if len(rows) == sites["o"].shape[1]:
        yield Fold(Rows(sites["qkv" if "qkv" in sites else "v"], rows), (sites["o"],), sites["o"].module)
    if norms["attn"] is not norms["mlp"]:
        inspected = mlp[0].module if view.family.mlp is None else block.get_submodule(view.family.mlp)
        yield Fold(Gain(norms["mlp"], one), mlp, inspected)
    rows = torch.arange(sites["up"].shape[0])
    yield Fold(Rows(sites["up"], rows), (sites["down"],), sites["down"].module)


def _holds(fold: Fold, i: int, stream: Stream, before: Tensor) -> bool:
    """Whether the block's output (B, T, D) stays, token by token, as a share of what the block adds."""
    s = torch.full_like(fold.readers[0].weight()[0], PROBE)  # (in,)
    s[::2] = 1 / PROBE
    modules = [fold.giver.module, *(site.module for site in fold.readers)]
    saved = [(p, p.clone()) for module in modules for p in module.parameters()]
    fold.apply(s, torch.float32)
    after = next(stream.forward(i)).float()
    for p, old in saved:
        p.copy_(old)
    moved = (after - before).norm(dim=-1) / (before - stream.hidden[0].float()).norm(dim=-1)  # (B, T)
    return bool(moved.median() <= FOLDED)


def sampled(
    stream: Stream, i: int, sites: Sequence[Site], count: int, advance: bool = False
) -> dict[str, Tensor]:
    """Every so many-th token's inputs (tokens, in) of block i's layers, by input group; some `count` tokens.

    advance: the block's outputs are the next one's inputs.
    """
    every = max(1, sum(h.shape[0] * h.shape[1] for h in stream.hidden) // count)
    first = {site.group: site for site in reversed(sites)}
    found: dict[str, list[Tensor]] = {group: [] for group in first}
    with ExitStack() as stack:
        calls = {g: stack.enter_context(recording(site.module)) for g, site in first.items()}

        def watched() -> Iterator[Tensor]:
            seen = 0
            for out in stream.forward(i):
                for group, made in calls.items():
                    x = made.pop()[0][0].flatten(0, -2)  # (tokens, in)
                    found[group].append(x[-seen % every :: every].float())
                seen += out.shape[0] * out.shape[1]
                yield out

        outputs = watched()
        if advance:
            stream.advance(outputs)
        for _ in outputs:
            pass
    return {group: torch.cat(parts) for group, parts in found.items()}
