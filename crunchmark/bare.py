"""A causal LM without numbers: its class and shapes from a config, and the edits of its graph replayed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate import init_empty_weights
from transformers import AutoModelForCausalLM

from crunchmark.dropped import rebuild as redrop
from crunchmark.modular import rebuild as remodel
from crunchmark.shrunk import rebuild as reshrink
from crunchmark.sliced import rebuild as reslice

EDITS: dict[str, Callable[[Any, Mapping[str, Any]], None]] = {  # kind -> rebuild it on a fresh model
    "sliced": reslice,
    "shrunk": reshrink,
    "dropped": redrop,
    "modular": remodel,
}


def bare(config: Any, dtype: torch.dtype, edits: Sequence[Mapping[str, Any]] = ()) -> Any:
    """The model with its parameters on the meta device; tied ones are not tied yet.

    Buffers are real: no file holds those of rotary embeddings.
    """
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    for edit in edits:
        EDITS[edit["kind"]](model, edit)
    return model
