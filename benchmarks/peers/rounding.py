"""Released code that rounds weights: GPTQ and its rounding to nearest, AWQ, HQQ, SpQR."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.peers.checkout import CPU, as_then, batches, load, quiet


def gptq(
    reference: Path,
    model: Any,
    ids: Tensor,
    bits: int,
    group: int = -1,
    act_order: bool = False,
    static_groups: bool = False,
    half: bool = False,
) -> Any:
    """`llama_sequential` of GPTQ's repository.

    static_groups: grids are fitted before the sweep. half: scales are rounded to float16, as files hold them.
    """
    (script,) = load(reference, "gptq", "llama")
    script.args = SimpleNamespace(
        nsamples=len(ids), true_sequential=False, wbits=bits, sym=False, percdamp=0.01, groupsize=group
    )
    script.args.__dict__.update(act_order=act_order, static_groups=static_groups)
    with as_then(model, ids.shape[1]), scales(script.Quantizer, half):
        script.llama_sequential(model, batches(ids), CPU)
    return model


@contextmanager
def scales(quantizer: Any, half: bool) -> Iterator[None]:
    """Inside, grids are those of scales rounded to float16 (half), or as released."""
    find = quantizer.find_params

    def rounded(self: Any, x: Tensor, weight: bool = False) -> None:
        find(self, x, weight)
        low = -x.flatten(1).amin(1).clamp(max=0).view_as(self.scale)
        self.scale = self.scale.half().float()
        self.zero = torch.round(low / self.scale)

    with patch.object(quantizer, "find_params", rounded if half else find):
        yield


def rtn(reference: Path, model: Any, ids: Tensor, bits: int, group: int = -1, half: bool = False) -> Any:
    """`Quantizer` of GPTQ's repository on slices of the columns, as its --nearest does for whole rows.

    half: scales are rounded to float16, as files hold them.
    """
    (quant,) = load(reference, "gptq", "quant")
    linears = [m for m in model.model.layers.modules() if isinstance(m, nn.Linear)]
    with torch.no_grad(), scales(quant.Quantizer, half):
        for linear in linears:
            wide = linear.in_features
            for part in linear.weight.split(wide if group == -1 else group, dim=1):
                quantizer = quant.Quantizer()
                quantizer.configure(bits, perchannel=True, sym=False, mse=False)
                quantizer.find_params(part, weight=True)
                part.copy_(quant.quantize(part, quantizer.scale, quantizer.zero, quantizer.maxq))
    return model


def spqr(
    reference: Path,
    model: Any,
    ids: Tensor,
    bits: int,
    threshold: float = 0.2,
    act_order: bool = True,
    half: bool = False,
) -> Any:
    """`quantize_spqr` of SpQR's repository with the settings of its README, all layers of a block at a time.

    half: grids of scales and zeros are rounded to float16, as files hold them.
    """
    main, groups = load(reference, "SpQR", "main", "quant_groups")
    order = "act_order" if act_order else "identity"
    told = SimpleNamespace(
        nsamples=len(ids), wbits=bits, outlier_threshold=threshold, permutation_order=order
    )
    told.__dict__.update(percdamp=1.0, groupsize=16, qq_groupsize=16, qq_scale_bits=3, qq_zero_bits=3)
    told.__dict__.update(dict.fromkeys(("sym", "round_zero", "qq_zero_sym", "simplified_outliers"), False))
    told.__dict__.update(offload_activations=False, true_sequential=False, perchannel=True, wandb=False)
    told.skip_out_loss = True
    with as_then(model, ids.shape[1]), _second_level(groups.Quantizer, half), torch.no_grad():
        main.quantize_spqr(model, batches(ids), told, CPU)
    return model


@contextmanager
def _second_level(quantizer: Any, half: bool) -> Iterator[None]:
    """Inside, the grids that quantizers make for their own scales and zeros are in float16 (half)."""
    find, inside = quantizer.find_params, [False]

    def rounded(self: Any, x: Tensor, weight: bool = False) -> None:
        outer, inside[0] = inside[0], self.qq_scale_bits is not None
        find(self, x, weight)
        inside[0] = outer
        if outer:
            self.scale = self.scale.half().float()
            self.zero = (-x.flatten(1).amin(1).view_as(self.scale) / self.scale).half().float()

    with patch.object(quantizer, "find_params", rounded if half else find):
        yield


AWQ = (
    *("awq", "awq.quantize", "awq.utils", "awq.utils.module", "awq.utils.calib_data"),
    *("awq.quantize.quantizer", "awq.quantize.auto_clip", "awq.quantize.pre_quant"),
)  # modules that its functions import while they run


def awq(
    reference: Path, model: Any, ids: Tensor, bits: int, group: int, clip: bool = True, half: bool = False
) -> Any:
    """`run_awq`, then `pseudo_quantize_model_weight`, both of llm-awq.

    half: zero is on every grid and scales are rounded to float16, as files of ours hold them.
    """
    modules = dict(zip(AWQ, load(reference, "llm-awq", *AWQ), strict=True))
    *_, data, quantizer, clipper, pre_quant = modules.values()
    how = {"zero_point": True, "q_group_size": group}
    model.config.use_cache = False
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(quiet())
        stack.enter_context(patch.dict(sys.modules, modules))
        for kind in (nn.Module, Tensor):
            stack.enter_context(patch.object(kind, "cuda", lambda self, *_: self))
        stack.enter_context(patch.object(pre_quant, "move_embed", lambda *_: None))
        stack.enter_context(patch.object(data, "get_calib_dataset", lambda **_: [ids]))
        for module in (quantizer, clipper) if half else ():
            stack.enter_context(patch.object(module, "pseudo_quantize_tensor", _as_stored))
        for block in model.model.layers:  # today's return no tuple, of which the script takes the first
            stack.enter_context(patch.object(block, "forward", _tupled(block.forward)))
        pre_quant.run_awq(model, None, bits, how, mse_range=clip)
        quantizer.pseudo_quantize_model_weight(model, bits, how)
    return model


def _tupled(forward: Callable[..., Tensor]) -> Callable[..., tuple[Tensor]]:
    return lambda *args, **kwargs: (forward(*args, **kwargs),)


def _as_stored(w: Tensor, n_bit: int, zero_point: bool, q_group_size: int) -> Tensor:
    """The same rounding, on grids with zero and scales in float16."""
    parts = w.reshape(-1, q_group_size if q_group_size > 0 else w.shape[-1])
    low, high = parts.amin(1, True).clamp(max=0), parts.amax(1, True).clamp(min=0)
    scale = ((high - low) / (2**n_bit - 1)).half().float()
    zero = torch.round(-low / scale)
    codes = (torch.round(parts / scale) + zero).clamp(0, 2**n_bit - 1)
    return ((codes - zero) * scale).view_as(w)


def hqq(
    reference: Path, model: Any, ids: Tensor, bits: int, group: int, slow: bool = False, half: bool = False
) -> Any:
    """`Quantizer.quantize` of hqq along the inputs, with its fast optimiser or (slow) the other one.

    half: scales and zeros are rounded to float16, as files hold them.
    """
    optimize, quantize = load(reference, "hqq", "hqq.core.optimize", "hqq.core.quantize")
    chosen = optimize.optimize_weights_proximal_slow if slow else optimize.optimize_weights_proximal
    linears = [m for m in model.model.layers.modules() if isinstance(m, nn.Linear)]
    with torch.no_grad(), patch.object(quantize.Quantizer, "optimize_weights", chosen):
        for linear in linears:
            size = linear.in_features if group == -1 else group
            how = {"nbits": bits, "group_size": size, "axis": 1, "bitpack": False, "device": "cpu"}
            codes, meta = quantize.Quantizer.quantize(linear.weight.data, **how)
            scale, zero = (meta[k].half().float() if half else meta[k] for k in ("scale", "zero"))
            linear.weight.copy_(((codes - zero) * scale).view_as(linear.weight))
    return model
