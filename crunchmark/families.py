"""Facts per model family: where blocks, norms, projections and embeddings are. Rows of a table, no classes.

Paths were read from transformers 5.23. A new family is one new row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

GROUPS: Mapping[str, str] = MappingProxyType(
    {
        "qkv": "attn_in",
        "q": "attn_in",
        "k": "attn_in",
        "v": "attn_in",
        "o": "o_in",
        "gate": "mlp_in",
        "up": "mlp_in",
        "down": "down_in",
    }
)  # role -> which input the linear layer reads; layers of one group share it


@dataclass(frozen=True)
class Family:
    """Where things are. Paths of `roles`, norms, attn and mlp are relative to the block."""

    blocks: str  # path of the ModuleList of blocks
    embeddings: tuple[str, ...]  # token table first, learned positions included
    final_norm: str
    norm_attn: str  # norm in front of attention
    norm_mlp: str  # norm in front of the MLP; the same name where parallel branches share one
    attn: str
    mlp: str | None  # None: the MLP's layers lie in the block itself
    roles: Mapping[str, str]  # role -> path: q, k, v or fused qkv; o; gate (if any), up, down
    norm: str = "rms"  # "rms": x / rms * w; "rms1p": x / rms * (1 + w); "layer": LayerNorm with bias
    parallel: bool = False  # attention and MLP read the same residual and are added together
    parallel_if: str = ""  # config field that decides `parallel`, where the family has both
    post_norms: bool = False  # norms between a sub-layer and its addition (Gemma): gains can not be fused
    head: str = "lm_head"
    fused: str = ""  # rows of qkv: "stacked": all of q, then k, then v; "heads": per head [q, k, v]


def _roles(attn: str, o: str, mlp: str, names: str) -> Mapping[str, str]:
    """Separate q, k, v; `names` are the MLP's layers in the order (gate,) up, down."""
    linear = names.split()
    mlp_roles = ("gate", "up", "down")[3 - len(linear) :]
    paths = {r: f"{attn}.{r}_proj" for r in "qkv"} | {"o": f"{attn}.{o}"}
    return MappingProxyType(paths | dict(zip(mlp_roles, (mlp + n for n in linear), strict=True)))


_LLAMA = Family(
    blocks="model.layers",
    embeddings=("model.embed_tokens",),
    final_norm="model.norm",
    norm_attn="input_layernorm",
    norm_mlp="post_attention_layernorm",
    attn="self_attn",
    mlp="mlp",
    roles=_roles("self_attn", "o_proj", "mlp.", "gate_proj up_proj down_proj"),
)

FAMILIES: dict[str, Family] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,  # q, k, v have biases, o has none
    "qwen3": _LLAMA,  # q and k are normed per head; heads * head_dim may differ from hidden
    "gemma3_text": replace(_LLAMA, norm="rms1p", norm_mlp="pre_feedforward_layernorm", post_norms=True),
    "opt": Family(
        blocks="model.decoder.layers",
        embeddings=("model.decoder.embed_tokens", "model.decoder.embed_positions"),
        final_norm="model.decoder.final_layer_norm",
        norm_attn="self_attn_layer_norm",
        norm_mlp="final_layer_norm",
        attn="self_attn",
        mlp=None,
        roles=_roles("self_attn", "out_proj", "", "fc1 fc2"),
        norm="layer",
    ),
    "gpt2": Family(  # Conv1D: stored (in, out)
        blocks="transformer.h",
        embeddings=("transformer.wte", "transformer.wpe"),
        final_norm="transformer.ln_f",
        norm_attn="ln_1",
        norm_mlp="ln_2",
        attn="attn",
        mlp="mlp",
        roles=MappingProxyType(
            {"qkv": "attn.c_attn", "o": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"}
        ),
        norm="layer",
        fused="stacked",
    ),
    "gpt_neox": Family(  # rows of the fused layer per head: [q, k, v]
        blocks="gpt_neox.layers",
        embeddings=("gpt_neox.embed_in",),
        final_norm="gpt_neox.final_layer_norm",
        norm_attn="input_layernorm",
        norm_mlp="post_attention_layernorm",
        attn="attention",
        mlp="mlp",
        roles=MappingProxyType(
            {
                "qkv": "attention.query_key_value",
                "o": "attention.dense",
                "up": "mlp.dense_h_to_4h",
                "down": "mlp.dense_4h_to_h",
            }
        ),
        norm="layer",
        parallel_if="use_parallel_residual",
        fused="heads",
    ),
    "phi": Family(
        blocks="model.layers",
        embeddings=("model.embed_tokens",),
        final_norm="model.final_layernorm",
        norm_attn="input_layernorm",
        norm_mlp="input_layernorm",
        attn="self_attn",
        mlp="mlp",
        roles=_roles("self_attn", "dense", "mlp.", "fc1 fc2"),
        norm="layer",
        parallel=True,
    ),
}


def family_of(config: Any) -> Family:
    """The row of config.model_type, with `parallel` decided.

    Raises:
        ValueError: the model type has no row; says what a new row must hold.
    """
    if config.model_type not in FAMILIES:
        needed = ", ".join(f.name for f in fields(Family))
        raise ValueError(
            f"model type {config.model_type!r} is not supported; valid: {', '.join(sorted(FAMILIES))}. "
            f"A new row in crunchmark/families.py must say: {needed}"
        )
    family = FAMILIES[config.model_type]
    if family.parallel_if:
        return replace(family, parallel=bool(getattr(config, family.parallel_if)))
    return family
