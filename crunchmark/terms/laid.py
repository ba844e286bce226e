"""Leaves that only a kernel multiplies as they are stored: without one, every call lays the weight out."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crunchmark.terms.dense import Leaf

ALIGNED = 64  # bytes: operators load whole registers without looking where x starts


class Kernel(nn.Module, ABC):
    """Multiplies by a leaf's packed form on one device in one dtype.

    Its buffers are laid out for this machine and never written.
    """

    label: ClassVar[str]  # what rows say: "int8 kernel"

    def __init__(self, dtype: torch.dtype, most: int | None) -> None:
        """most: rows of x up to which it is faster than laying the weight out; None: always."""
        super().__init__()
        self.dtype, self.most = dtype, most

    def takes(self, x: Tensor) -> bool:
        """Whether it is to multiply this x (..., in): few rows, its own dtype, and no gradient is wanted."""
        rows = x.numel() // x.shape[-1]
        few = rows > 0 and (self.most is None or rows <= self.most)
        return few and x.dtype == self.dtype and not (torch.is_grad_enabled() and x.requires_grad)

    def forward(self, x: Tensor) -> Tensor:
        """X (..., in) -> (..., out)."""
        flat = x.reshape(-1, x.shape[-1]).contiguous()  # (M, in)
        aligned = flat.data_ptr() % ALIGNED == 0
        y = self.multiply(flat if aligned else flat.clone())  # (M, out)
        return y.view(*x.shape[:-1], -1)  # (..., out)

    @abstractmethod
    def multiply(self, x: Tensor) -> Tensor:
        """X (M, in) -> (M, out)."""

    def keep(self, name: str, tensor: Tensor | None) -> None:
        """A buffer that is resident and in no state dict."""
        self.register_buffer(name, None if tensor is None else tensor.contiguous(), persistent=False)


class Holder(Kernel):
    """A kernel that gives the codes back exactly, so that the leaf need not keep them."""

    @abstractmethod
    def codes(self) -> Tensor:
        """The leaf's codes (out, in) uint8."""


class Laid(Leaf):
    """A leaf run by a kernel where it has one that takes the input, else laid out for this one call."""

    simulated: ClassVar[bool] = True
    kernel: Kernel | None

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__(shape)
        self.kernel = None

    def laid_out(self, dtype: torch.dtype) -> Tensor:
        """The weight (out, in), rounded once to the dtype."""
        return self.dense().to(dtype)  # (out, in)

    def run_by(self, kernel: Kernel | None) -> Self:
        """This leaf with another kernel, or without one."""
        self.kernel = kernel
        return self

    def forward(self, x: Tensor) -> Tensor:
        """X (..., in) -> (..., out) in x's dtype."""
        if self.kernel is not None and self.kernel.takes(x):
            y: Tensor = self.kernel(x)  # (..., out)
            return y
        dtype = product_dtype(x.device, x.dtype)
        return F.linear(x.to(dtype), self.laid_out(dtype)).to(x.dtype)  # (..., out)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """A kernel is of one device: it stays behind when the leaf moves to another."""
        here = next(self.buffers(), torch.empty(0))
        if self.kernel is not None and fn(here.new_empty(0)).device != here.device:
            self.run_by(None)
        return super()._apply(fn, recurse)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """What a kernel holds is saved as the leaf stores it."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.kernel is not None:
            destination |= {f"{prefix}{name}": t for name, t in self.pack()[0].items()}


@cache
def native_bf16() -> bool:
    """Whether this processor's bfloat16 products are faster than its float32 ones; else they are emulated."""
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def product_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """What a weight that is laid out anyway is multiplied in: float32 where bfloat16 would be emulated."""
    emulated = device.type == "cpu" and dtype == torch.bfloat16 and not native_bf16()
    return torch.float32 if emulated else dtype
