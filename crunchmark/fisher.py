"""Squared gradients of a layer's weights, which take a backward pass: one block on the device at a time."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crunchmark.calib import Calibration
from crunchmark.hooks import sloping
from crunchmark.stats import Stat, rows
from crunchmark.view import Site, View
from crunchmark.walk import Stream, evaluating, stubbed

Visit = Callable[[int, Mapping[str, "Fisher"]], None]


class Fisher(Stat):
    """Diagonal of the empirical Fisher information: mean over sequences of (dL/dW)^2 on the dense model.

    L is the mean negative log-likelihood of a sequence's next tokens (SqueezeLLM, arXiv:2306.07629;
    LQ-LoRA, arXiv:2311.12023). Stored as bfloat16, which has the range of float32.
    """

    def __init__(self, mean: Tensor) -> None:
        self.mean = mean  # (out, in), bfloat16

    @property
    def value(self) -> Tensor:
        """(out, in), float32."""
        return self.mean.float()

    def state(self) -> dict[str, Tensor]:
        """The mean."""
        return {"mean": self.mean}

    @classmethod
    def load(cls, state: dict[str, Tensor]) -> Self:
        """From the mean."""
        return cls(state["mean"])


def gather(view: View, calib: Calibration, visit: Visit) -> None:
    """Visit the blocks from the last to the first with the Fisher of their layers, by name.

    A forward pass keeps what goes into every block; a backward pass runs each block again.

    Raises:
        ValueError: there are no tokens, or no next ones, or a gradient is nan or inf.
    """
    if (width := calib.tokens.shape[1]) == 1:
        raise ValueError("calib.length=1 has no next token to take gradients for; valid: 2 or more")
    with ExitStack() as stack, evaluating(view.model):
        put = stack.enter_context(_keeper(calib.spill))
        stream = calib.stream(view)
        inputs = []  # [block][batch] (B, T, D)
        for i in range(len(stream.blocks)):
            inputs.append([put(hidden) for hidden in stream.hidden])
            with _visiting(stream.blocks[i], calib.device):
                stream.advance(stream.forward(i))
        slopes = list(_ends(view, calib, stream))  # per batch (B, T, D)
        for i in reversed(range(len(stream.blocks))):
            with _visiting(stream.blocks[i], calib.device), _squaring(view.sites(i), width) as sums:
                slopes = [_back(stream, i, b, x, slopes[b]) for b, x in enumerate(inputs[i])]
            count = len(calib.tokens) * (width - 1) ** 2  # squares of sums of losses, to those of means
            visit(i, {name: _mean(name, total, count) for name, total in sums.items()})


@contextmanager
def _visiting(block: nn.Module, device: str) -> Iterator[None]:
    """The block is on the device inside."""
    home = next(block.parameters()).device
    block.to(device)
    try:
        yield
    finally:
        block.to(home)


@contextmanager
def _keeper(spill: bool) -> Iterator[Callable[[Tensor], Tensor]]:
    """Inside, a function that keeps hidden states: as they are, or in a mapped file when spilling."""
    if not spill:
        yield lambda hidden: hidden
        return
    with TemporaryDirectory(prefix="crunchmark-") as folder:
        count = iter(range(1 << 62))

        def put(hidden: Tensor) -> Tensor:
            path = Path(folder) / f"{next(count)}.bin"
            mapped = torch.from_file(str(path), shared=True, size=hidden.numel(), dtype=hidden.dtype)
            return mapped.view(hidden.shape).copy_(hidden)

        yield put


def _ends(view: View, calib: Calibration, stream: Stream) -> Iterator[Tensor]:
    """The gradient (B, T, D) of every sequence's summed loss with respect to what leaves the last block.

    Not of the mean: divided by thousands of tokens, slopes would fall below float16's normal numbers.
    """
    blocks, device = stream.blocks, next(view.head.parameters()).device
    for ids, hidden in zip(calib.tokens.split(calib.batch), stream.hidden, strict=True):
        leaf = hidden.to(device).requires_grad_()  # (B, T, D)
        hook = blocks[0].register_forward_hook(lambda module, args, out, to=leaf: to)
        try:
            with stubbed(blocks, []), torch.enable_grad():
                logits = view.model(ids.to(device), use_cache=False).logits[:, :-1].float()  # (B, T - 1, V)
                losses = F.cross_entropy(
                    logits.flatten(0, 1), ids[:, 1:].flatten().to(device), reduction="sum"
                )
                (slope,) = torch.autograd.grad(losses, leaf)
        finally:
            hook.remove()
        yield slope.cpu()


@torch.enable_grad()
def _back(stream: Stream, i: int, b: int, hidden: Tensor, slope: Tensor) -> Tensor:
    """The gradient (B, T, D) in front of block i from the one behind it."""
    leaf = hidden.detach().clone().requires_grad_()
    out = stream.block(i, b, leaf)  # (B, T, D)
    (before,) = torch.autograd.grad(out, leaf, slope.to(out))
    return before.cpu()


@contextmanager
def _squaring(sites: list[Site], width: int) -> Iterator[dict[str, Tensor]]:
    """Inside, backward passes add the squared gradient of every sequence to a sum (out, in) per layer.

    width: tokens of a sequence.
    """
    sums = {site.name: torch.zeros(site.shape) for site in sites}

    def add(name: str, x: Tensor, slope: Tensor) -> None:  # (B, T, in) and (B, T, out), or flat
        for s, v in zip(rows(slope).split(width), rows(x).split(width), strict=True):
            sums[name] += (s.T @ v).square().to(sums[name].device)  # (out, in)

    with sloping(sites, add):
        yield sums


def _mean(name: str, total: Tensor, count: int) -> Fisher:
    """The Fisher of a sum (out, in) over that many."""
    if not torch.isfinite(total).all():
        raise ValueError(
            f"{name}: gradients hold nan or inf; valid: finite ones, as model.compute=float32 has"
        )
    return Fisher((total / count).bfloat16())
