"""Released code that factorises weights: SVD-LLM, plain truncated SVD by the same code, ASVD."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.peers.checkout import CPU, load, quiet


def svd_llm(reference: Path, model: Any, ids: Tensor, ratio: float, whiten: bool = True) -> Any:
    """`profle_svdllm` and `whitening` of SVD-LLM's repository; ratio is the share removed.

    whiten=False gives it identities to whiten with: plain truncated SVD by the same code.
    """
    (script,) = load(reference, "SVD-LLM", "SVDLLM")
    data, blocks = sequences(ids), model.model.layers
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


SEED = 233  # of ASVD's script


def asvd(
    reference: Path, model: Any, ids: Tensor, ratio: float, alpha: float = 0.5, exact: bool = False
) -> Any:
    """`calib_input_distribution` and `SVDLinear.from_linear` of ASVD's repository.

    ratio: share removed of every linear layer of the blocks; `strs` has the search.
    exact: a full SVD in place of `torch.svd_lowrank`, whose result hangs on a random matrix.
    """
    aware, svd = load(reference, "ASVD4LLM", "act_aware_utils", "modules.svd_linear")
    with quiet(), torch.no_grad(), _decomposed(exact):
        aware.calib_input_distribution(model, sequences(ids), "abs_mean", use_cache=False)
        for home in [m for block in model.model.layers for m in block.modules()]:
            for name, linear in list(home.named_children()):
                if isinstance(linear, nn.Linear):
                    made = svd.SVDLinear.from_linear(linear, 1 - ratio, act_aware=True, alpha=alpha)
                    setattr(home, name, made)
    return model


def strs(
    reference: Path,
    model: Any,
    ids: Tensor,
    keep: float,
    alpha: float = 0.5,
    exact: bool = False,
    head: bool = True,
) -> Any:
    """`calib_sensitivity_ppl` and `binary_search_truncation_rank` of ASVD's repository; keep is its target.

    head: as released, the head is searched and counted too; False leaves it out of both.
    """
    aware, found, search = load(reference, "ASVD4LLM", "act_aware_utils", "sensitivity", "binary_search")
    args = SimpleNamespace(alpha=alpha, scaling_method="abs_mean", calib_dataset="", n_calib_samples=len(ids))
    args.__dict__.update(compress_kv_cache=False, rank_align=1, act_aware=True, sigma_fuse="UV")
    args.__dict__.update(param_ratio_target=keep, ppl_target=-1)
    data = sequences(ids)
    with quiet(), torch.no_grad(), _decomposed(exact):
        aware.calib_input_distribution(model, data, "abs_mean", use_cache=False)
        sensitivity = found.calib_sensitivity_ppl(model, data, args, use_cache=False)
        if not head:
            del sensitivity["lm_head"]
        search.binary_search_truncation_rank(model, sensitivity, data, args)
    return model


def sequences(ids: Tensor) -> list[dict[str, Tensor]]:
    """One sequence at a time, as ASVD's and SVD-LLM's loaders give them."""
    return [{"input_ids": row.unsqueeze(0)} for row in ids]


@contextmanager
def _decomposed(exact: bool) -> Iterator[None]:
    """Inside, `torch.svd_lowrank` starts from the script's seed, or (exact) is a full SVD cut off."""

    def cut(a: Tensor, q: int) -> tuple[Tensor, Tensor, Tensor]:
        u, s, vh = torch.linalg.svd(a, full_matrices=False)
        return u[:, :q], s[:q], vh[:q].T

    with torch.random.fork_rng(), patch.object(torch, "svd_lowrank", cut if exact else torch.svd_lowrank):
        torch.manual_seed(SEED)
        yield
