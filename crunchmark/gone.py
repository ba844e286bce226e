"""What stands where a branch of a block was: it adds nothing."""

from typing import Any

import torch
from torch import Tensor, nn


class Gone(nn.Module):
    """A branch, or the last layer of one, that gives zeros."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """X (..., D) -> zeros of the same shape."""
        return torch.zeros_like(x)


class GoneAttention(Gone):
    """Attention that gives zeros and still counts tokens: caches tell positions by what layers hold."""

    def __init__(self, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:  # type: ignore[override]
        """Zeros and no weights; a cache gets one number per token."""
        past = kwargs.get("past_key_values", kwargs.get("layer_past"))
        if past is not None:
            mark = hidden_states.new_zeros(*hidden_states.shape[:2], 1)[:, None]  # (B, 1, T, 1)
            past.update(mark, mark, self.layer_idx)
        return torch.zeros_like(hidden_states), None
