"""Released code that factorises weights: SVD-LLM, and plain truncated SVD by the same code."""

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.peers.checkout import CPU, load


def svd_llm(reference: Path, model: Any, ids: Tensor, ratio: float, whiten: bool = True) -> Any:
    """`profle_svdllm` and `whitening` of SVD-LLM's repository; ratio is the share removed.

    whiten=False gives it identities to whiten with: plain truncated SVD by the same code.
    """
    (script,) = load(reference, "SVD-LLM", "SVDLLM")
    data = [{"input_ids": row.unsqueeze(0)} for row in ids]
    blocks = model.model.layers
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        profile = script.profle_svdllm("mistral", model, data, CPU) if whiten else _identities(model)
        homes = [(block.self_attn, block.mlp) for block in blocks]
        script.whitening("mistral", model, profile, 1 - ratio, CPU)
    for block, (attention, mlp) in zip(blocks, homes, strict=True):
        for home, factors in ((attention, block.self_attn), (mlp, block.mlp)):
            for name, linear in home.named_children():
                if isinstance(linear, nn.Linear):
                    linear.weight.data = factors.product(name.removesuffix("_proj"))
        block.self_attn, block.mlp = attention, mlp
    return model


def _identities(model: Any) -> dict[int, dict[str, Tensor]]:
    """Whitening matrices that do nothing."""
    return {
        i: {
            name: torch.eye(m.in_features, dtype=torch.float64)
            for name, m in block.named_modules()
            if isinstance(m, nn.Linear)
        }
        for i, block in enumerate(model.model.layers)
    }
