"""Checkouts of released code: where they are, and how they are imported and run under today's libraries."""

import io
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from importlib import import_module
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
    "SpQR": "Vahe1994/SpQR",
    "TransformerCompression": "microsoft/TransformerCompression",
    "SVD-LLM": "AIoT-MLSys-Lab/SVD-LLM",
    "ASVD4LLM": "hahnyuan/ASVD4LLM",
    "WeLore": "VITA-Group/WeLore",
    "FLAP": "CASIA-IVA-Lab/FLAP",
    "EvoPress": "IST-DASLab/EvoPress",
    "llm-awq": "mit-han-lab/llm-awq",
    "hqq": "mobiusml/hqq",
    "SqueezeLLM": "SqueezeAILab/SqueezeLLM",
    "lq-lora": "HanGuo97/lq-lora",
    "llm-compressor": "vllm-project/llm-compressor",
}
CPU = torch.device("cpu")


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


def _bare(root: Path, *names: str) -> dict[str, ModuleType]:
    """Packages without what their own __init__ would import."""
    made = {name: _module(name) for name in names}
    for name, package in made.items():
        package.__path__ = [str(root / name.replace(".", "/"))]
    return made


def _unsigned(x: Tensor, peak: Tensor, bits: int, unsigned: bool) -> Tensor:
    """On 2^bits codes from 0 to peak, x (..., n) at least 0: the rule of a library of NVIDIA."""
    steps = (2**bits - 1) / peak
    return torch.where(peak > 0, (x * steps).round().clamp(0, 2**bits - 1) / steps, 0.0)


def _stand_ins(reference: Path, folder: str) -> dict[str, ModuleType]:
    """What is missing here, or does not import under today's transformers, and is not measured."""
    rounding = _module("pytorch_quantization.tensor_quant", fake_tensor_quant=_unsigned)
    named = {
        f"SVD_{family}{part}": Factors for family in ("Llama", "Mistral") for part in ("Attention", "MLP")
    }
    found = {
        "TransformerCompression/src": _bare(reference / "TransformerCompression/src", "slicegpt")
        | {"ml_collections": _module("ml_collections", ConfigDict=SimpleNamespace)},
        "SVD-LLM": {
            "component.svd_llama": _module("component.svd_llama", **named),
            "component.svd_mistral": _module("component.svd_mistral", **named),
            "component.svd_opt": _module("component.svd_opt", SVDOPTDecoderLayer=Factors),
            "utils.data_utils": _module("utils.data_utils"),
            "evaluater": _module("evaluater"),
        },
        "ASVD4LLM": {
            "lm_eval": _module("lm_eval", evaluator=None),
            "lm_eval.base": _module("b", BaseLM=object),
        },
        "WeLore": {"wandb": _module("wandb")},
        "EvoPress": {"wandb": _module("wandb")},
        "llm-awq": _bare(reference / "llm-awq", "awq", "awq.quantize")
        | {"awq_inference_engine": _module("awq_inference_engine")},  # kernels
        "hqq": {"termcolor": _module("termcolor", colored=None)},
        "lq-lora": {
            **{name: _module(name) for name in ("gurobipy", "bitsandbytes", "models.quantization_utils_2")},
            "models.misc_utils": _module("models.misc_utils", swarn=lambda *_, **__: None),
            "pytorch_quantization": _module("pytorch_quantization", tensor_quant=rounding),
            "pytorch_quantization.tensor_quant": rounding,
        },
        "llm-compressor/src": _bare(
            reference / "llm-compressor/src",
            *("llmcompressor", "llmcompressor.modifiers", "llmcompressor.modifiers.gptq"),
            "llmcompressor.observers",
        ),
    }
    return found.get(folder, {})


def _home(module: ModuleType) -> str:
    """Where the module or the package was found."""
    file: str | None = getattr(module, "__file__", None)
    return file or next(iter(getattr(module, "__path__", ())), "")


@cache
def load(reference: Path, folder: str, *names: str) -> tuple[ModuleType, ...]:
    """Import modules of a checkout; the search path and the loaded modules stay as they were."""
    stand_ins = _stand_ins(reference, folder)
    before, hidden = set(sys.modules), {k: m for k, m in sys.modules.items() if k in stand_ins}
    sys.path.insert(0, str(reference / folder))
    sys.modules.update(stand_ins)
    try:
        with redirect_stdout(io.StringIO()):
            return tuple(import_module(name) for name in names)
    finally:
        sys.path.remove(str(reference / folder))
        for name in set(sys.modules) - before:
            if name in stand_ins or _home(sys.modules[name]).startswith(str(reference)):
                del sys.modules[name]
        sys.modules.update(hidden)


class Instead:
    """A module with some names of it replaced: what a script finds under `torch` in place of torch."""

    def __init__(self, module: Any, **names: Any) -> None:
        self._module = module
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@contextmanager
def constants(function: Any, values: Mapping[float, float]) -> Iterator[None]:
    """Inside, the function's code has other numbers where these are written into it.

    Raises:
        ValueError: a number is not in it.
    """
    code = function.__code__
    for number in values:
        if not any(type(c) is type(number) and c == number for c in code.co_consts):
            raise ValueError(f"{function.__qualname__} has no constant {number}")
    new = (values.get(c, c) if type(c) in (int, float) else c for c in code.co_consts)
    function.__code__ = code.replace(co_consts=tuple(new))
    try:
        yield
    finally:
        function.__code__ = code


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing is printed, and no file is saved."""
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(redirect_stderr(io.StringIO()))
        stack.enter_context(patch.object(torch, "save", lambda *_, **__: None))
        yield


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


def batches(ids: Tensor) -> list[tuple[Tensor, None]]:
    """One sequence at a time, as their loaders give them."""
    return [(row.unsqueeze(0), None) for row in ids]
