"""Released code that takes single weights away: magnitude and Wanda from one repository, SparseGPT."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from torch import Tensor

from benchmarks.peers.checkout import CPU, as_then, batches, load
from benchmarks.peers.rounding import scales


def magnitude(reference: Path, model: Any, ids: Tensor, sparsity: float, n: int = 0, m: int = 0) -> Any:
    """`prune_magnitude` of wanda's repository; n of m go."""
    (prune,) = load(reference, "wanda", "lib.prune")
    with as_then(model, ids.shape[1]):
        prune.prune_magnitude(SimpleNamespace(sparsity_ratio=sparsity), model, None, CPU, n, m)
    return model


def wanda(reference: Path, model: Any, ids: Tensor, sparsity: float, n: int = 0, m: int = 0) -> Any:
    """`prune_wanda` of wanda's repository; n of m go."""
    (prune,) = load(reference, "wanda", "lib.prune")
    args = SimpleNamespace(sparsity_ratio=sparsity, nsamples=len(ids), seed=0, use_variant=False)
    with (
        as_then(model, ids.shape[1]),
        patch.object(prune, "get_loaders", lambda *_, **__: (batches(ids), None)),
    ):
        prune.prune_wanda(args, model, None, CPU, n, m)
    return model


def sparsegpt(
    reference: Path,
    model: Any,
    ids: Tensor,
    sparsity: float,
    n: int = 0,
    m: int = 0,
    bits: int = 16,
    half: bool = False,
) -> Any:
    """`llama_sequential` of SparseGPT's repository; n of m go, and below 16 bits what is left is rounded.

    half: scales are rounded to float16, as files hold them.
    """
    (script,) = load(reference, "sparsegpt", "llama")
    script.args = SimpleNamespace(
        nsamples=len(ids), true_sequential=False, minlayer=-1, maxlayer=1000, prune_only="", invert=False
    )
    script.args.__dict__.update(sparsity=sparsity, prunen=n, prunem=m, wbits=bits)
    script.args.__dict__.update(percdamp=0.01, blocksize=128)
    with as_then(model, ids.shape[1]), scales(script.Quantizer, half):
        script.llama_sequential(model, batches(ids), CPU)
    return model
