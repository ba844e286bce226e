"""Pieces of released code whose whole does not run over a model here: each on one weight at a time."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.peers.checkout import Instead, load, quiet

Grid = Sequence[int]  # bits of a code and of a scale's code, weights per block, blocks per run


def kmeans(
    reference: Path,
    weight: Tensor,
    fisher: Tensor,
    bits: int,
    starts: int = 1,
    begin: Sequence[Tensor] = (),
) -> Tensor:
    """`kmeans_fit` of SqueezeLLM's quantization/nuq.py, row by row: what stands in for the weight (out, in).

    weight, fisher: (out, in), none of them zero: what its script does about zeros is not run. starts: random
    ones of each row. begin: means (out, 2^bits) in place of random ones, moved until they rest; of several
    every row keeps its best.
    """
    with patch.dict(os.environ):
        (script,) = load(reference, "SqueezeLLM", "quantization.nuq")
    told: list[list[dict[str, Any]]] = [[{"n_init": starts} if starts > 1 else {}] * len(weight)]
    if begin:
        told = [[{"init": m[:, None], "n_init": 1, "tol": 0.0} for m in means.numpy()] for means in begin]
    found = [_clustered(script, weight, fisher, bits, how) for how in told]
    losses = [(fisher.double() * (weight - one).square()).sum(1) for one in found]  # (out,) each
    return torch.stack(found)[torch.stack(losses).argmin(0), torch.arange(len(weight))]


def _clustered(script: Any, weight: Tensor, fisher: Tensor, bits: int, how: Sequence[Any]) -> Tensor:
    """(out, in); how: of each row, what its k-means is told otherwise than released."""
    found, means, told, np_1 = [], script.KMeans, dict[str, Any](), Instead(np, cast={"byte": np.int8})
    with (
        patch.object(script, "np", np_1),
        patch.object(script, "KMeans", lambda **named: means(**named | told)),
    ):
        for row, prices, other in zip(weight.numpy(), fisher.numpy(), how, strict=True):
            told = other
            centres, labels = script.kmeans_fit((row[:, None], prices, 2**bits))
            found.append(torch.from_numpy(centres)[torch.from_numpy(labels).long()])
    return torch.stack(found)


def _lq_lora(reference: Path) -> tuple[ModuleType, ModuleType]:
    """Its modules of grids and of pairs; what is rounded stays numbers, not packed codes."""
    names = ("models.quantization_utils", "models.lq_utils")
    rounding, pairs = load(reference, "lq-lora", *names)
    pairs.quantization_utils_2.quantize = rounding.quantize
    return rounding, pairs


def _config(rounding: Any, grid: Grid) -> Any:
    return rounding.QuantConfig(grid[0], grid[1], "bf16", grid[2], grid[3])


def normal_float(reference: Path, weight: Tensor, grid: Grid) -> tuple[Tensor, float]:
    """`quantize` of LQ-LoRA: what stands in for the weight (out, in), and its bits per weight."""
    rounding, _ = _lq_lora(reference)
    config = _config(rounding, grid)
    bits = rounding.estimate_storage_from_config(weight, config) / weight.numel()
    return rounding.quantize(weight, "blockwise-nf", config), bits


def pair(
    reference: Path,
    weight: Tensor,
    fisher: Tensor | None,
    grid: Grid,
    rank: int,
    exact: bool = False,
    turns: int = 100,
) -> Tensor:
    """`lowrank_quantized_sparse_decomposition` of LQ-LoRA: Q + L (out, in).

    exact: with a full SVD in place of `torch.svd_lowrank`, which starts from seed 0 here. turns: at most.
    """
    rounding, pairs = _lq_lora(reference)
    how = {"num_ranks": rank, "randomized": not exact, "num_iterations": turns}
    how["qconfig"] = _config(rounding, grid)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        b, a, q, _ = pairs.lowrank_quantized_sparse_decomposition(
            weight, W=fisher, heuristic="two-sided", **how
        )
    found: Tensor = q + b @ a
    return found


def programme(reference: Path, weights: Sequence[Tensor], grids: Sequence[Grid], bits: float) -> float:
    """Cost and size of every grid by `prepare_data_for_qconfig_assignments`, the least cost by `mip_solve`.

    weights: (out, in) each. bits: per weight, on average. Of its two solvers the one of scipy; the other is
    Gurobi's.
    """
    rounding, pairs = _lq_lora(reference)
    with quiet(), patch.object(Tensor, "cuda", lambda self, *_: self):
        configs = [_config(rounding, grid) for grid in grids]
        tables = pairs.prepare_data_for_qconfig_assignments(list(weights), configs, None)
    costs, sizes = (table.double().numpy() for table in tables)
    limit = bits * sum(w.numel() for w in weights)
    return float(pairs.mip_solve(limit, costs, sizes, "scipy").fun)


def columns(
    reference: Path,
    weight: Tensor,
    inputs: Tensor,
    bits: int,
    group: int = -1,
    sym: bool = False,
    act_order: bool = False,
    half: bool = False,
) -> Tensor:
    """`accumulate_hessian` and `quantize_weight` of llm-compressor: what stands in for the weight (out, in).

    inputs: (tokens, in). act_order: its "weight". half: scales are rounded to float16.
    """
    names = ("llmcompressor.modifiers.gptq.gptq_quantize", "llmcompressor.observers.min_max")
    script, observers = load(reference, "llm-compressor/src", *names)
    shape: dict[str, Any] = (
        {"strategy": "channel"} if group == -1 else {"strategy": "group", "group_size": group}
    )
    shape["actorder"] = "weight" if act_order else None
    args = script.QuantizationArgs(num_bits=bits, symmetric=sym, **shape)
    linear, watch = nn.Linear(*weight.shape[::-1], bias=False), observers.MemorylessMinMaxObserver
    linear.weight.data, linear.weight_observer = weight.clone(), watch("weight", args)
    with torch.no_grad(), patch.object(watch, "get_qparams", _scales(watch.get_qparams, half)):
        linear.weight_observer(linear.weight)
        none = script.make_empty_hessian(linear)
        hessian, _ = script.accumulate_hessian(inputs, linear, none, torch.zeros(()))
        _, found = script.quantize_weight(linear, args, hessian)
    stand_in: Tensor = found["weight"]
    return stand_in


def _scales(find: Callable[[Any], dict[str, Tensor]], half: bool) -> Callable[[Any], dict[str, Tensor]]:
    """An observer's grids as released, or (half) with scales rounded to float16 and zeros that fit them."""

    def rounded(self: Any) -> dict[str, Tensor]:
        low, found = self.min_vals.clamp(max=0), find(self)
        scale = found["scale"].half().float()
        zero = (-(2 ** (self.args.num_bits - 1)) - low / scale).round()
        return found | {"scale": scale, "zero_point": found["zero_point"] if self.args.symmetric else zero}

    return rounded if half else find


PIECES: Mapping[str, tuple[str, Callable[..., Any]]] = {  # piece -> its reference's folder and driver
    "squeezellm: k-means of rows": ("SqueezeLLM", kmeans),
    "lq_lora: NormalFloat": ("lq-lora", normal_float),
    "lq_lora: bits per weight": ("lq-lora", normal_float),
    "lq_lora: Q + L": ("lq-lora", pair),
    "lq_lora: integer programme": ("lq-lora", programme),
    "gptq: columns": ("llm-compressor", columns),
}
