"""Edits of single modules: weights read and written as (out, in), turned, and freed of their norms."""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

SIZES: dict[type, tuple[str, str]] = {  # where a module notes (out, in)
    nn.Linear: ("out_features", "in_features"),
    nn.Embedding: ("num_embeddings", "embedding_dim"),
    Conv1D: ("nf", "nx"),
}


class RMSN(nn.Module):
    """x / sqrt(sum(x^2) / width + eps): no weight, and `width` stays that of the uncut stream."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.width, self.eps = width, eps

    def forward(self, x: Tensor) -> Tensor:
        """X (..., any width) -> the same shape; at least float32 inside."""
        y = x.to(torch.promote_types(x.dtype, torch.float32))
        return (y * torch.rsqrt(y.square().sum(-1, keepdim=True) / self.width + self.eps)).to(x.dtype)

    def extra_repr(self) -> str:
        """Width and eps."""
        return f"{self.width}, eps={self.eps}"


def matrix(module: Any) -> Tensor:
    """The weight as (out, in) float64; of an embedding (rows, width)."""
    w: Tensor = module.weight.detach().double()
    return w.T if isinstance(module, Conv1D) else w


def put(module: Any, weight: Tensor, bias: Tensor | None = None) -> None:
    """Give the module this (out, in) weight and (None: keep) this bias, in its own dtype."""
    w = weight.T if isinstance(module, Conv1D) else weight
    like = module.weight
    module.weight = nn.Parameter(w.to(like).contiguous().clone(), requires_grad=like.requires_grad)
    if bias is not None:
        module.bias = nn.Parameter(bias.to(like).contiguous().clone(), requires_grad=like.requires_grad)
    for kind, names in SIZES.items():
        if isinstance(module, kind):
            module.__dict__.update(zip(names, weight.shape, strict=True))


def turn_in(module: Any, q: Tensor) -> None:
    """The module reads (an embedding: gives) x @ q instead of x; q (in, kept) orthonormal columns."""
    put(module, matrix(module) @ q.to(module.weight.device))


def turn_out(module: Any, q: Tensor) -> None:
    """The module writes y @ q instead of y; q (out, kept)."""
    q = q.to(module.weight.device)
    put(module, q.T @ matrix(module), None if module.bias is None else q.T @ module.bias.detach().double())


def absorb(module: Any, norm: Any, kind: str) -> None:
    """The norm's gain into the weight, its shift into the bias."""
    w, gain, shift = matrix(module), getattr(norm, "weight", None), getattr(norm, "bias", None)
    bias = None
    if shift is not None:
        old = 0.0 if module.bias is None else module.bias.detach().double()
        bias = w @ shift.detach().double() + old
    if gain is not None:
        w = w * (gain.detach().double() + (kind == "rms1p"))
    put(module, w, bias)


def centre(module: Any) -> None:
    """The module writes vectors of mean zero, as a LayerNorm would make them."""
    w = matrix(module)
    if isinstance(module, nn.Embedding):
        put(module, w - w.mean(1, keepdim=True))
    else:
        bias = None if module.bias is None else module.bias.detach().double()
        put(module, w - w.mean(0), None if bias is None else bias - bias.mean())


def unweigh(root: nn.Module, path: str, full: int) -> None:
    """RMSN with the norm's own eps in the norm's place."""
    norm: Any = root.get_submodule(path)
    parent, _, name = path.rpartition(".")
    eps = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
    setattr(root.get_submodule(parent), name, RMSN(full, float(eps)))


def keep_width(embedding: Any, full: int) -> None:
    """Whatever the embedding is cut to, it gives `full` numbers, zeros last.

    GPT-2 shapes the output of its last block by the width of its embeddings.
    """
    embedding.full_width = full
    embedding.forward = MethodType(_padded, embedding)


def _padded(embedding: Any, *args: Any, **kwargs: Any) -> Tensor:
    """The embedding's own forward, padded."""
    out = type(embedding).forward(embedding, *args, **kwargs)
    return nn.functional.pad(out, (0, embedding.full_width - out.shape[-1]))


@torch.no_grad()
def settle(model: nn.Module, dtype: torch.dtype) -> None:
    """Round every real number to `dtype`, so that the model in memory is the one an artifact stores."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.to(dtype))
