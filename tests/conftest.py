"""Tiny models of every family from their config classes, milliseconds each; and the built-in model."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as tf

from crunchmark.machine import ROOT

_PLAIN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64}
_ROPE = _PLAIN | {"intermediate_size": 48, "max_position_embeddings": 64, "pad_token_id": 0}
_GATED = _ROPE | {"num_key_value_heads": 4, "tie_word_embeddings": False}
_GQA = _GATED | {"num_key_value_heads": 2}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64, "n_positions": 64}

BUILDERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("Llama", "LlamaForCausalLM", _GATED),
    "llama_gqa": ("Llama", "LlamaForCausalLM", _GQA),
    "llama_tied": ("Llama", "LlamaForCausalLM", _GATED | {"tie_word_embeddings": True}),
    "mistral": ("Mistral", "MistralForCausalLM", _GQA | {"sliding_window": 8}),
    "qwen2": ("Qwen2", "Qwen2ForCausalLM", _GQA),
    "qwen3": ("Qwen3", "Qwen3ForCausalLM", _GQA | {"head_dim": 12}),
    "gemma3_text": (
        "Gemma3Text",
        "Gemma3ForCausalLM",
        _GQA | {"head_dim": 8, "sliding_window": 4, "tie_word_embeddings": True}
        | {"layer_types": ["sliding_attention", "full_attention"]},
    ),
    "opt": (
        "OPT",
        "OPTForCausalLM",
        _PLAIN | {"ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 64},
    ),
    "gpt2": ("GPT2", "GPT2LMHeadModel", _GPT2),
    "gpt_neox": ("GPTNeoX", "GPTNeoXForCausalLM", _ROPE),
    "gpt_neox_seq": ("GPTNeoX", "GPTNeoXForCausalLM", _ROPE | {"use_parallel_residual": False}),
    "phi": ("Phi", "PhiForCausalLM", _ROPE | {"num_key_value_heads": 4}),
}  # fmt: skip
FAMILIES_TINY = list(BUILDERS)
assert len(FAMILIES_TINY) == 12


def build(name: str, **changes: Any) -> Any:
    """A tiny causal LM in eval mode; all weights, gains and biases random, the same every time."""
    config_name, model_name, options = BUILDERS[name]
    ids = {"bos_token_id": 1, "eos_token_id": 2}
    config = getattr(tf, f"{config_name}Config")(**(ids | options | changes))
    torch.manual_seed(0)
    model = getattr(tf, model_name)(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.1)
    return model.eval()


def deeper(name: str, depth: int) -> dict[str, Any]:
    """Changes of a config that give it so many blocks."""
    changes: dict[str, Any] = {"n_layer" if name == "gpt2" else "num_hidden_layers": depth}
    types = BUILDERS[name][2].get("layer_types", [])
    return changes | ({"layer_types": (types * depth)[:depth]} if types else {})


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Any]:
    """tiny("llama") -> model; keyword arguments change the config."""
    return build


@pytest.fixture(scope="module")
def nano() -> tuple[Any, Any]:
    """The built-in model in float32, and its tokenizer."""
    folder = ROOT / "tasks" / "nano" / "model"
    model = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, tf.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(params=FAMILIES_TINY)
def family(request: pytest.FixtureRequest) -> str:
    """Every tiny family in turn."""
    return str(request.param)


@pytest.fixture
def tokens() -> torch.Tensor:
    """(5, 12) ids of the tiny vocabulary."""
    return torch.randint(3, 64, (5, 12), generator=torch.Generator().manual_seed(2))


def pytest_collection() -> None:
    """What is imported and collected is no garbage."""
    gc.disable()


def pytest_collection_finish() -> None:
    """From here on garbage is collected, and what was imported is never walked again: a tenth of the time."""
    gc.freeze()
    gc.enable()


QUICK = "mistral"  # gated, grouped keys, RMSNorm, nothing tied; few budgets


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The whole suite: every family, method and variant. The quick loop: one family, knobs as they come."""
    others = set(BUILDERS) - {QUICK}
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {}).values()
        cases = [(getattr(p, "family", p), getattr(p, "knobs", ())) for p in params]
        if any((isinstance(f, str) and f in others) or knobs for f, knobs in cases):
            item.add_marker(pytest.mark.slow)
