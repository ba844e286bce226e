"""A compressed model as an ordinary one of its family: what a config alone describes."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from crunchmark.heads import channels_of, heads_of
from crunchmark.view import View

EDITS = ("dropped", "shrunk")  # kinds that may leave what a config describes; the others change the graph
BIASES = ("attention_bias", "mlp_bias")  # switches of configs whose layers have none by default
CHANNELS = ("intermediate_size", "ffn_dim", "n_inner")  # what families call the width of their MLP
HEADS = ("num_attention_heads", "n_head")
PROBE = 8  # tokens that both models are asked about
CLOSE = 1e-4  # of the largest logit


def plain(model: Any, edits: Sequence[str]) -> Any:
    """The same function as `model`, its weights dense, made by its class from a config; it shares tensors.

    edits: kinds of the edits of its graph.

    Raises:
        ValueError: no config of the family describes it; names the tensor that none has.
    """
    view, family = View(model), model.config.model_type
    for kind in edits:
        if kind not in EDITS:
            raise ValueError(f"its model is {kind}: no {family} config describes its blocks")
    own = model.state_dict()
    trouble: list[list[str]] = []
    for changes in _changes(view, "shrunk" in edits):
        config = deepcopy(model.config)
        config.update(changes)
        with torch.device("meta"):
            fresh = AutoModelForCausalLM.from_config(config)
        shapes = {name: tuple(t.shape) for name, t in fresh.state_dict().items()}
        trouble.append(list(_differences(own, shapes)))
        if not trouble[-1]:
            _fill(fresh, model, own)
            _compare(fresh, model)
            return fresh
    raise ValueError(f"no {family} config describes {min(trouble, key=len)[0]}")


def _changes(view: View, shrunk: bool) -> Iterator[dict[str, Any]]:
    """Changes of the config that may describe the model, the fewest first."""
    config = view.model.config
    switches = [name for name in BIASES if getattr(config, name, None) is False]
    widths = _widths(view) if shrunk else {}
    for states in product((False, True), repeat=len(switches)):
        yield widths | {name: True for name, on in zip(switches, states, strict=True) if on}


def _widths(view: View) -> dict[str, int]:
    """The sizes of the first block, by the names the config has for them."""
    config, heads = view.model.config, heads_of(view, 0)
    count = heads.groups * heads.queries
    found = dict.fromkeys(HEADS, count) | dict.fromkeys(CHANNELS, channels_of(view, 0))
    found |= {"num_key_value_heads": heads.groups}
    known = {name: value for name, value in found.items() if hasattr(config, name)}
    # where a config has no width of heads, its attention divides, but takes one that is there
    return known | ({"head_dim": heads.width} if heads.width * count != config.hidden_size else {})


def _differences(own: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """What the model has and the fresh one has not, or the other way round; zeros may stand for a bias."""
    for name, tensor in own.items():
        if shapes.get(name) != tuple(tensor.shape):
            yield f"{name} of shape {tuple(tensor.shape)}"
    for name in shapes.keys() - own.keys():
        if not name.endswith(".bias"):
            yield f"a model without {name}"


@torch.no_grad()
def _fill(fresh: Any, model: Any, own: Mapping[str, Tensor]) -> None:
    """Give the model on no device these tensors, zeros as biases that they lack, and the other's buffers."""
    zeros = {n: torch.zeros(t.shape) for n, t in fresh.state_dict().items() if n not in own}
    fresh.load_state_dict({**own, **zeros}, assign=True)
    fresh.tie_weights()
    for name, buffer in list(fresh.named_buffers()):
        if buffer.is_meta:  # not in the state: angles of positions
            parent, _, attr = name.rpartition(".")
            setattr(fresh.get_submodule(parent), attr, model.get_buffer(name))
    fresh.generation_config = deepcopy(model.generation_config)
    fresh.eval()


@torch.no_grad()
def _compare(fresh: Any, model: nn.Module) -> None:
    """Raise ValueError where the two are not the same function."""
    ids = torch.arange(PROBE).remainder(fresh.config.vocab_size)[None]
    here, there = model(ids).logits, fresh(ids).logits  # (1, PROBE, words)
    if not torch.allclose(here, there, rtol=0, atol=CLOSE * float(here.abs().max())):
        raise ValueError(f"an ordinary {fresh.config.model_type} model with its tensors gives other logits")
