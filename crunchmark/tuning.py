"""Training of what stands in for weights: block by block against the dense block, then end to end."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from crunchmark.calib import Calibration
from crunchmark.hooks import Stats, watching
from crunchmark.stats import Stat
from crunchmark.view import Site, View
from crunchmark.walk import Stream, evaluating

Parts = Mapping[str, nn.Module]  # by site name: called, each gives its weight (out, in)
Names = Mapping[str, tuple[str, nn.Module]]  # by site name: its weight's name below a root, and its module
Weights = dict[str, Tensor]  # by name below that root


@dataclass(frozen=True)
class Turn:
    """One block with its inputs, and what it made of them while it was dense."""

    block: nn.Module
    sites: list[Site]
    stats: dict[str, Stats]
    stream: Stream
    index: int
    targets: list[Tensor]  # per batch (B, T, D), on the CPU

    def output(self, b: int, weights: Mapping[str, Tensor]) -> Tensor:
        """The block's outputs (B, T, D) on batch b, with these tensors for its own of that name."""

        def run(block: nn.Module, hidden: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return functional_call(block, dict(weights), (hidden, *args), kwargs, tie_weights=False)

        return self.stream.block(self.index, b, self.stream.hidden[b], run)


def turns(view: View, calib: Calibration, needs: Sequence[type[Stat]]) -> Iterator[Turn]:
    """The blocks in order, each while it is still dense; the next one sees what became of it.

    calib.inputs "dense": the next block's inputs are the targets. "compressed": what the block gives then.
    """
    stream = calib.stream(view)
    for i, block in enumerate(stream.blocks):
        sites, home = view.sites(i), next(block.parameters()).device
        with ExitStack() as stack:
            stack.callback(block.to, home)
            block.to(calib.device)
            stack.enter_context(evaluating(view.model))
            with watching(sites, needs) as stats:
                targets = list(stream.forward(i))
            yield Turn(block, sites, stats, stream, i, targets)
            stream.advance(targets if calib.inputs == "dense" else stream.forward(i))


def reconstruct(turn: Turn, parts: Parts, lr: float, steps: int) -> tuple[float, float]:
    """Train the parts so that the block gives its targets, a step per batch; keep the best state.

    Returns:
        The squared error on the batches used, as a share of their targets' energy, before and after;
        after is never the larger one.
    """
    names = _names({site.name: site for site in turn.sites if site.name in parts}, turn.block)
    _move(parts, turn.block)
    energy = max(1e-30, sum(float(t.float().square().sum()) for t in turn.targets[:steps]))

    def error(b: int, weights: Weights) -> Tensor:
        out = turn.output(b, weights)
        return (out - turn.targets[b].to(out.device)).float().square().sum() / energy

    return _descend(parts, names, lr, steps, len(turn.targets), error)


def end_to_end(view: View, calib: Calibration, parts: Parts, lr: float, steps: int) -> tuple[float, float]:
    """Train the parts on the next token of the calibration text, a step per batch; keep the best state.

    Returns:
        Nats per token of the batches used, before and after; after is never the larger one.
    """
    names = _names({site.name: site for site in view.all_sites() if site.name in parts}, view.model)
    home, batches = next(view.model.parameters()).device, calib.tokens.split(calib.batch)
    count: int = sum(batch[:, 1:].numel() for batch in batches[:steps])

    def loss(b: int, weights: Weights) -> Tensor:
        ids = batches[b].to(calib.device)  # (B, T)
        given = {"input_ids": ids, "use_cache": False}
        logits: Tensor = functional_call(view.model, weights, (), given, tie_weights=False).logits[:, :-1]
        return F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="sum") / count

    with ExitStack() as stack:
        stack.enter_context(evaluating(view.model))
        stack.callback(view.model.to, home)
        _move(parts, view.model.to(calib.device))
        return _descend(parts, names, lr, steps, len(batches), loss)


def _move(parts: Parts, root: nn.Module) -> None:
    """To where the root's weights are; parameters stay the same objects."""
    for part in parts.values():
        part.to(next(root.parameters()).device)


def _names(sites: Mapping[str, Site], root: nn.Module) -> Names:
    """Site name -> its weight's name below root, and its module."""
    known = {id(module): name for name, module in root.named_modules()}
    return {name: (f"{known[id(site.module)]}.weight", site.module) for name, site in sites.items()}


def _weights(parts: Parts, names: Names) -> Weights:
    """Tensors by name below the root, laid out and in the dtype as the modules have them."""
    found: dict[str, Tensor] = {}
    for site, (name, module) in names.items():
        weight: Tensor = parts[site]()
        like: Any = module.weight
        found[name] = (weight.T if isinstance(module, Conv1D) else weight).to(like.dtype)
    return found


def _descend(
    parts: Parts, names: Names, lr: float, steps: int, batches: int, loss: Callable[[int, Weights], Tensor]
) -> tuple[float, float]:
    """Adam over the batches in order, again and again; the best state between passes stays.

    Batches that no step reaches do not count in the loss. One that is not finite is never the least.
    loss: of a batch, with these weights.
    """
    tensors = [p for part in parts.values() for p in part.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(tensors, lr, foreach=True)
    seen = min(steps, batches)

    def total() -> float:
        with torch.no_grad():
            weights = _weights(parts, names)
            return sum(float(loss(b, weights)) for b in range(seen))

    least = start = total()
    best = [p.detach().clone() for p in tensors]
    for step in range(1, steps + 1):
        grads = torch.autograd.grad(loss((step - 1) % batches, _weights(parts, names)), tensors)
        for tensor, grad in zip(tensors, grads, strict=True):
            tensor.grad = grad
        optimiser.step()
        if (step % seen == 0 or step == steps) and (found := total()) < least:
            least, best = found, [p.detach().clone() for p in tensors]
    with torch.no_grad():
        for tensor, value in zip(tensors, best, strict=True):
            tensor.copy_(value)
            tensor.grad = None
    return start, least
