"""A compressed model as an ordinary one of its family: what a config alone describes."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from crunchmark.bare import bare
from crunchmark.heads import channels_of, heads_of
from crunchmark.view import View

EDITS = ("dropped", "shrunk")  # kinds that may leave what a config describes; the others change the graph
BIASES = ("attention_bias", "mlp_bias")  # switches of configs whose layers have none by default
CHANNELS = ("intermediate_size", "ffn_dim", "n_inner")  # what families call the width of their MLP
HEADS = ("num_attention_heads", "n_head")
PARTS = ("weight", "bias")
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
    own, shrunk = model.state_dict(), "shrunk" in edits
    wider = {f"{s.name}.{part}" for s in view.all_sites() if shrunk and s.role != "qkv" for part in PARTS}
    trouble: list[list[str]] = []
    for changes in _changes(view, shrunk):
        config = deepcopy(model.config)
        config.update(changes)
        fresh = bare(config, config.dtype)
        shapes = {name: tuple(t.shape) for name, t in fresh.state_dict().items()}
        trouble.append(list(_differences(own, shapes, wider)))
        if not trouble[-1]:
            _fill(fresh, model, own)
            if _alike(fresh, model):
                return fresh
            trouble[-1] = ["its logits"]
    raise ValueError(f"no {family} config describes {min(trouble, key=len)[0]}")


def _changes(view: View, shrunk: bool) -> Iterator[dict[str, Any]]:
    """Changes of the config that may describe the model, the smallest model first."""
    config = view.model.config
    switches = [name for name in BIASES if getattr(config, name, None) is False]
    widths = [_channels(view) | _heads(view), _channels(view)] if shrunk else [{}]
    for sizes, states in product(widths, product((False, True), repeat=len(switches))):
        yield sizes | {name: True for name, on in zip(switches, states, strict=True) if on}


def _channels(view: View) -> dict[str, int]:
    """The width of the widest MLP, by the name the config has for it."""
    widest = max(channels_of(view, i) for i in range(len(view.blocks)))
    return {name: widest for name in CHANNELS if hasattr(view.model.config, name)}


def _heads(view: View) -> dict[str, int]:
    """The most heads of a block, by the names the config has for them."""
    config, blocks = view.model.config, range(len(view.blocks))
    heads = max((heads_of(view, i) for i in blocks), key=lambda heads: heads.groups)
    count = heads.groups * heads.queries
    found = dict.fromkeys(HEADS, count) | {"num_key_value_heads": heads.groups}
    known = {name: value for name, value in found.items() if hasattr(config, name)}
    # where a config has no width of heads, its attention divides, but takes one that is there
    return known | ({"head_dim": heads.width} if heads.width * count != config.hidden_size else {})


def _differences(
    own: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], wider: Collection[str]
) -> Iterator[str]:
    """What the model has and the fresh one has not, or the other way round.

    Zeros may stand for a bias, and behind the numbers of a tensor that may be wider.
    """
    for name, tensor in own.items():
        there = shapes.get(name, ())
        fits = len(there) == tensor.ndim and all(a <= b for a, b in zip(tensor.shape, there, strict=True))
        if there != tuple(tensor.shape) and not (fits and name in wider):
            yield f"{name} of shape {tuple(tensor.shape)}"
    for name in shapes.keys() - own.keys():
        if not name.endswith(".bias"):
            yield f"a model without {name}"


@torch.no_grad()
def _fill(fresh: Any, model: Any, own: Mapping[str, Tensor]) -> None:
    """Give the bare model these tensors, and zeros where they lack something."""
    found = dict(own)
    for name, tensor in fresh.state_dict().items():
        if name not in own or own[name].shape != tensor.shape:
            found[name] = torch.zeros(tensor.shape)
        if name in own and found[name] is not own[name]:
            found[name][tuple(slice(n) for n in own[name].shape)] = own[name]
    fresh.load_state_dict(found, assign=True)
    fresh.tie_weights()
    fresh.generation_config = deepcopy(model.generation_config)
    fresh.eval()


@torch.no_grad()
def _alike(fresh: Any, model: nn.Module) -> bool:
    """Whether the two are the same function."""
    ids = torch.arange(PROBE).remainder(fresh.config.vocab_size)[None]
    here, there = model(ids).logits, fresh(ids).logits  # (1, PROBE, words)
    return torch.allclose(here, there, rtol=0, atol=CLOSE * float(here.abs().max()))
