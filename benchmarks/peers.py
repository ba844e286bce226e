"""Drivers for the papers' released code: it is imported from checkouts the user has, none of it is here.

The folder given as reference holds checkouts named as in `REPOSITORIES`. Every driver takes it, a float32
Llama on the CPU and calibration ids (n, T), and leaves a model that can be evaluated. What the code expects
of its time is put back around it: blocks that make their own rotary table, a torch.cuda that does nothing.
"""

import io
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from importlib import import_module
from math import floor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

REPOSITORIES = {  # folder -> the repository it is a checkout of
    "wanda": "locuslab/wanda",
    "sparsegpt": "IST-DASLab/sparsegpt",
    "gptq": "IST-DASLab/gptq",
    "TransformerCompression": "microsoft/TransformerCompression",
    "SVD-LLM": "AIoT-MLSys-Lab/SVD-LLM",
}
CPU = torch.device("cpu")
Peer = Callable[..., Any]  # (reference folder, model, ids, **setting) -> the compressed model


def commit(reference: Path, folder: str) -> str:
    """The checkout's commit.

    Raises:
        ValueError: it is no git checkout.
    """
    where = reference / folder
    done = subprocess.run(["git", "-C", str(where), "rev-parse", "HEAD"], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"reference={reference} has no git checkout {folder!r} of {REPOSITORIES[folder]}")
    return done.stdout.strip()


def _module(name: str, **names: Any) -> ModuleType:
    """A module that holds just these names."""
    made = ModuleType(name)
    made.__dict__.update(names)
    return made


class Factors(nn.Module):
    """Where SVD-LLM's code puts its factors; its own modules are written for another transformers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        for role in ("q", "k", "v", "o", "gate", "up", "down"):
            self.add_module(f"{role}_u_proj", nn.Linear(1, 1, bias=False))
            self.add_module(f"{role}_v_proj", nn.Linear(1, 1, bias=False))

    def product(self, role: str) -> Tensor:
        """U V of a layer, (out, in)."""
        u, v = (self.get_submodule(f"{role}_{side}_proj").weight for side in "uv")
        return (u @ v).detach()  # type: ignore[operator]


def _stand_ins(reference: Path) -> dict[str, ModuleType]:
    """What is missing here, or does not import under today's transformers, and is not measured."""
    slicegpt = _module("slicegpt")
    slicegpt.__path__ = [str(reference / "TransformerCompression/src/slicegpt")]
    named = {
        f"SVD_{family}{part}": Factors for family in ("Llama", "Mistral") for part in ("Attention", "MLP")
    }
    return {
        "slicegpt": slicegpt,  # its __init__ loads adapters of every family
        "ml_collections": _module("ml_collections", ConfigDict=SimpleNamespace),
        "component.svd_llama": _module("component.svd_llama", **named),
        "component.svd_mistral": _module("component.svd_mistral", **named),
        "component.svd_opt": _module("component.svd_opt", SVDOPTDecoderLayer=Factors),
        "utils.data_utils": _module("utils.data_utils"),
        "evaluater": _module("evaluater"),
    }


@cache
def load(reference: Path, folder: str, *names: str) -> tuple[ModuleType, ...]:
    """Import modules of a checkout; the search path and the loaded modules stay as they were."""
    before, stand_ins = set(sys.modules), _stand_ins(reference)
    sys.path.insert(0, str(reference / folder))
    sys.modules.update(stand_ins)
    try:
        with redirect_stdout(io.StringIO()):
            return tuple(import_module(name) for name in names)
    finally:
        sys.path.remove(str(reference / folder))
        for name in set(sys.modules) - before:
            home = getattr(sys.modules[name], "__file__", None) or str(reference)
            if name in stand_ins or home.startswith(str(reference)):
                del sys.modules[name]


@contextmanager
def as_then(model: Any, length: int) -> Iterator[None]:
    """What the code expects of its time, quietly: a CUDA that answers, blocks with their rotary table."""
    ids = torch.arange(length).unsqueeze(0)
    table = model.model.rotary_emb(model.model.embed_tokens.weight[:1].unsqueeze(0), ids)

    def plain(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda hidden, attention_mask=None, **_: forward(
            hidden, attention_mask=attention_mask, position_embeddings=table
        )

    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(redirect_stderr(io.StringIO()))
        stack.enter_context(patch.object(torch.cuda, "synchronize", lambda *_: None))
        stack.enter_context(patch.object(Tensor, "cuda", lambda self, *_: self))
        for block in model.model.layers:
            stack.enter_context(patch.object(block, "forward", plain(block.forward)))
        model.seqlen, model.hf_device_map = length, {}
        yield


def _batches(ids: Tensor) -> list[tuple[Tensor, None]]:
    """One sequence at a time, as their loaders give them."""
    return [(row.unsqueeze(0), None) for row in ids]


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
        patch.object(prune, "get_loaders", lambda *_, **__: (_batches(ids), None)),
    ):
        prune.prune_wanda(args, model, None, CPU, n, m)
    return model


def sparsegpt(reference: Path, model: Any, ids: Tensor, sparsity: float, n: int = 0, m: int = 0) -> Any:
    """`llama_sequential` of SparseGPT's repository; n of m go."""
    (script,) = load(reference, "sparsegpt", "llama")
    script.args = SimpleNamespace(
        nsamples=len(ids), true_sequential=False, minlayer=-1, maxlayer=1000, prune_only="", invert=False
    )
    script.args.__dict__.update(sparsity=sparsity, prunen=n, prunem=m, percdamp=0.01, blocksize=128, wbits=16)
    with as_then(model, ids.shape[1]):
        script.llama_sequential(model, _batches(ids), CPU)
    return model


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
    with as_then(model, ids.shape[1]), _scales(script.Quantizer, half):
        script.llama_sequential(model, _batches(ids), CPU)
    return model


@contextmanager
def _scales(quantizer: Any, half: bool) -> Iterator[None]:
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
    with torch.no_grad(), _scales(quant.Quantizer, half):
        for linear in linears:
            wide = linear.in_features
            for part in linear.weight.split(wide if group == -1 else group, dim=1):
                quantizer = quant.Quantizer()
                quantizer.configure(bits, perchannel=True, sym=False, mse=False)
                quantizer.find_params(part, weight=True)
                part.copy_(quant.quantize(part, quantizer.scale, quantizer.zero, quantizer.maxq))
    return model


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


PEERS: Mapping[str, tuple[str, Peer]] = {  # method -> its reference's folder and driver
    "magnitude": ("wanda", magnitude),
    "wanda": ("wanda", wanda),
    "sparsegpt": ("sparsegpt", sparsegpt),
    "rtn": ("gptq", rtn),
    "gptq": ("gptq", gptq),
    "slicegpt": ("TransformerCompression", slicegpt),
    "svd_llm": ("SVD-LLM", svd_llm),
    "svd": ("SVD-LLM", svd_llm),
}
