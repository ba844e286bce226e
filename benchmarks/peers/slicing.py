"""Released code that deletes rows and columns: SliceGPT."""

import io
from contextlib import redirect_stderr
from math import floor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.peers.checkout import load


def _sliced_forward(block: Any, hidden_states: Tensor, **kwargs: Any) -> Tensor:
    """A block with shortcuts, in the calling convention of today's transformers."""
    out, _ = block.self_attn(hidden_states=block.input_layernorm(hidden_states), **kwargs)
    left = hidden_states if block.attn_shortcut_Q is None else hidden_states @ block.attn_shortcut_Q
    hidden_states = left + out
    out = block.mlp(block.post_attention_layernorm(hidden_states))
    left = hidden_states if block.mlp_shortcut_Q is None else hidden_states @ block.mlp_shortcut_Q
    return left + out


def slicegpt(
    reference: Path,
    model: Any,
    ids: Tensor,
    fraction: float,
    mean: bool = True,
    align: int = 8,
    eps: float | None = None,
    batch: int = 16,
) -> Any:
    """`rotate_and_slice` of SliceGPT's repository.

    mean: as released, the mean of every embedding is subtracted; False leaves that out.
    eps: of the norms that replace RMSNorm; None is the released 1e-5.
    """
    names = ("layernorm_fusion", "rotate", "slicing_scheduler", "adapters.llama_adapter", "modules")
    fusion, rotate, scheduler, llama, modules = load(
        reference, "TransformerCompression/src", *(f"slicegpt.{name}" for name in names)
    )
    adapter = llama.LlamaModelAdapter(model)
    model.config.torch_dtype = torch.float32
    width = floor((1 - fraction) * adapter.hidden_size)
    ones = torch.ones_like(ids)
    data = [
        {"input_ids": a, "attention_mask": b}
        for a, b in zip(ids.split(batch), ones.split(batch), strict=True)
    ]
    with (
        redirect_stderr(io.StringIO()),
        patch.object(llama.CompressedLlamaDecoderLayer, "forward", _sliced_forward),
    ):
        fusion.replace_layers(adapter, verbose=False)
        table = model.model.embed_tokens.weight.detach().clone()
        fusion.fuse_modules(adapter)
        if not mean:
            model.model.embed_tokens.weight.data = table
        for norm in (m for m in model.modules() if isinstance(m, modules.RMSN)):
            norm.eps = norm.eps if eps is None else eps
        rotate.rotate_and_slice(adapter, data, scheduler.ConstSlicingScheduler(width - width % align))
    llama.CompressedLlamaDecoderLayer.forward = _sliced_forward  # the model is evaluated after this
    return model
