"""What single blocks and branches do to hidden states, and what a model makes of the calibration text."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from crunchmark.calib import Calibration
from crunchmark.dropped import BRANCHES, Unit, units, without
from crunchmark.view import View
from crunchmark.walk import Stream, evaluating


@torch.no_grad()
def influence(view: View, calib: Calibration, unit: str = "block") -> dict[Unit, float]:
    """1 - mean cosine of a block's output with and without the unit, token by token.

    Without the block its output is its input: that is the block influence of arXiv:2403.03853.
    """
    found: dict[Unit, float] = {}
    stream = calib.stream(view)
    for i in range(len(view.blocks)):
        home = next(view.blocks[i].parameters()).device
        stream.blocks[i].to(calib.device)
        with evaluating(view.model):
            outputs = list(stream.forward(i))
            for one in [one for one in units(view, unit) if one[0][0] == i]:
                others = stream.hidden if len(one) == len(BRANCHES) else _lacking(view, stream, i, one)
                found[one] = 1 - _mean_cosine(others, outputs)
        stream.blocks[i].to(home)
        stream.advance(outputs)
    return found


def _lacking(view: View, stream: Stream, i: int, one: Unit) -> Iterator[Tensor]:
    with without(view, one):
        yield from stream.forward(i)


def _mean_cosine(xs: Iterator[Tensor] | list[Tensor], ys: Sequence[Tensor]) -> float:
    both = zip(xs, ys, strict=True)
    return float(
        torch.cat([F.cosine_similarity(x.double(), y.double(), dim=-1).flatten() for x, y in both]).mean()
    )


@torch.no_grad()
def angles(view: View, calib: Calibration, n: int) -> list[float]:
    """Mean angle, in half turns, between the last token before block s and behind block s + n - 1, per s."""
    stream = calib.stream(view)
    ends = [_last(stream)]  # (sequences, D) each
    with evaluating(view.model):
        for i in range(len(view.blocks)):
            stream.advance(stream.forward(i))
            ends.append(_last(stream))
    turns = [
        F.cosine_similarity(a, b, dim=-1).clamp(-1, 1).arccos() for a, b in zip(ends, ends[n:], strict=False)
    ]
    return [float(t.mean() / torch.pi) for t in turns]


def _last(stream: Stream) -> Tensor:
    return torch.cat([x[:, -1].double() for x in stream.hidden])


@torch.no_grad()
def surprise(view: View, calib: Calibration) -> float:
    """Nats per token of the calibration text."""
    device, total = next(view.model.parameters()).device, 0.0
    with evaluating(view.model):
        for ids in calib.tokens.split(calib.batch):  # (B, T)
            logits = view.model(input_ids=ids[:, :-1].to(device), use_cache=False).logits.float()
            total += float(
                F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten().to(device), reduction="sum")
            )
    return total / calib.tokens[:, 1:].numel()


def taken_greedily(
    candidates: Sequence[Unit], enough: Callable[[list[Unit]], bool], cost: Callable[[list[Unit]], float]
) -> list[Unit]:
    """Candidates, one after the other, each the one with which the cost is least; at most all but one."""
    gone: list[Unit] = []
    while not enough(gone) and len(gone) + 1 < len(candidates):
        left = [one for one in candidates if one not in gone]
        gone.append(min(left, key=lambda one: cost([*gone, one])))
    return gone
