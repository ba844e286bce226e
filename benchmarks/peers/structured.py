"""Released code that deletes heads and channels: FLAP, and the Wanda-sp of its repository."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.peers.checkout import CPU, Instead, as_then, batches, constants, load


def flap(
    reference: Path, model: Any, ids: Tensor, ratio: float, exact: bool = False, squared: bool = True
) -> Any:
    """`prune_flap` of FLAP's repository, WIFV and AL-AM; ratio is the share removed.

    What it has written in is that of LLaMA-7B, and is replaced: a head is 128 wide, costs 512/3 channels, and
    calibration is 2048 sequences. Biases it expects to be there are made, as its script does for 32 blocks.
    Means of inputs stay in float32, because the model is; released models are in float16.
    exact: per-token variances in place of its running ones, whose two centres are the same tensor.
    squared: as released, the scores of attention's inputs are squared before they are standardised.

    Raises:
        ValueError: query heads share keys and values, which the code knows nothing of.
    """
    prune, wrapper = load(reference, "FLAP", "lib.prune", "lib.layerwrapper")
    wide = _head(model.config)
    for block in model.model.layers:
        for linear in (block.self_attn.o_proj, block.mlp.down_proj):
            linear.bias = nn.Parameter(torch.zeros(linear.out_features), requires_grad=False)
    args = SimpleNamespace(nsamples=len(ids), seed=0, metrics="WIFV", structure="AL-AM", pruning_ratio=ratio)
    args.unstr = False
    gathered = wrapper.BiasGPT.add_batch
    with (
        as_then(model, ids.shape[1]),
        patch.object(prune, "get_loaders", lambda *_, **__: (batches(ids), None)),
        patch.object(prune, "torch", Instead(torch, half=torch.float32)),
        patch.dict(prune.metrics, WIFV=prune.metrics["WIFV"] if squared else _rooted(prune.metrics["WIFV"])),
        patch.object(prune.BiasGPT, "add_batch", _exactly if exact else gathered),
        constants(prune.prune_flap, {128: wide, 512 / 3: 4 * wide / 3}),
        constants(prune.compress, {128: wide}),
        constants(prune.prepare_calibration_input, {2048: len(ids)}),
    ):
        prune.prune_flap(args, model, None, CPU)
    return model


def wanda_sp(reference: Path, model: Any, ids: Tensor, ratio: float) -> Any:
    """`prune_wanda_sp` of FLAP's repository; ratio is the share of heads and of channels that goes.

    Written in, and replaced: a head is 128 wide, calibration is 2048 sequences, 128 of which are used.

    Raises:
        ValueError: query heads share keys and values, which the code knows nothing of.
    """
    (prune,) = load(reference, "FLAP", "lib.prune")
    args, wide = (
        SimpleNamespace(nsamples=len(ids), seed=0, pruning_ratio=ratio, unstr=False),
        _head(model.config),
    )
    for block in model.model.layers:
        block.self_attn.num_heads = model.config.num_attention_heads
    with (
        as_then(model, ids.shape[1]),
        patch.object(prune, "get_loaders", lambda *_, **__: (batches(ids), None)),
        constants(prune.prune_wanda_sp, {128: wide}),
        constants(prune.compress, {128: wide}),
        constants(prune.prepare_calibration_input, {2048: len(ids)}),
    ):
        prune.prune_wanda_sp(args, model, None, CPU)
    return model


def _head(config: Any) -> int:
    """How wide a head is, where each has keys and values of its own."""
    if config.num_key_value_heads != config.num_attention_heads:
        raise ValueError(
            f"num_key_value_heads={config.num_key_value_heads}: FLAP's code has as many as query heads; "
            f"valid: {config.num_attention_heads}"
        )
    return int(config.head_dim)


def _rooted(metric: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The metric, such that squaring it where attention ends gives it back."""
    return lambda layers, subset, name: metric(layers, subset, name) ** (0.5 if "o_proj" in name else 1)


def _exactly(self: Any, inputs: Tensor, _: Tensor) -> None:
    """In place of `BiasGPT.add_batch`: mean and variance of all tokens seen, inputs (1, T, in)."""
    x = inputs.flatten(0, -2).double()  # (T, in)
    count, total, squares = self.__dict__.get("sums", (0, 0.0, 0.0))
    count, total, squares = self.sums = count + len(x), total + x.sum(0), squares + x.square().sum(0)
    self.baseline_inp = (total / count).float()
    self.fluc_inp = ((squares - total.square() / count) / (count - 1)).float()
