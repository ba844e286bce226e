"""What methods may need to know of a layer's inputs. Sums are float64, squares and products float32."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from crunchmark.linalg import Factor, damped_inverse

T = TypeVar("T")


class Stat(ABC):
    """What is known of a layer over all calibration tokens."""

    @property
    @abstractmethod
    def value(self) -> Tensor:
        """What the papers write, float32 unless said otherwise."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Tensors that `load` reads back exactly."""

    @classmethod
    @abstractmethod
    def load(cls, state: dict[str, Tensor]) -> Self:
        """The statistic that `state` wrote."""


class InputStat(Stat):
    """A sum over a layer's inputs: starts at zero, is updated with batches, merges with another part's."""

    tokens: int

    @classmethod
    @abstractmethod
    def zero(cls, width: int) -> Self:
        """The statistic of no tokens for inputs (..., width)."""

    @abstractmethod
    def update(self, x: Tensor) -> None:
        """Add the tokens of x (..., width)."""

    @abstractmethod
    def merge(self, other: Self) -> Self:
        """The statistic over both parts' tokens."""


def rows(x: Tensor) -> Tensor:
    """(..., width) -> (tokens, width) in float32."""
    return x.detach().reshape(-1, x.shape[-1]).float()  # (tokens, width)


def finite(energy: Tensor) -> Tensor:
    """The energy (width,) of inputs, which is not finite as soon as one of them is not.

    Raises:
        ValueError: a value is nan or inf.
    """
    if not torch.isfinite(energy).all():
        raise ValueError("calibration inputs hold nan or inf; valid: finite activations")
    return energy


class InputNorm(InputStat):
    """L2 norm of every input channel over all calibration tokens (Wanda, arXiv:2306.11695)."""

    def __init__(self, sums: Tensor, tokens: int = 0) -> None:
        self.sums = sums  # (in,), float64, sum of squares
        self.tokens = tokens

    @classmethod
    def zero(cls, width: int) -> Self:
        """No tokens yet."""
        return cls(torch.zeros(width, dtype=torch.float64))

    def update(self, x: Tensor) -> None:
        """Add squared inputs."""
        flat = rows(x)
        self.sums += finite(flat.square().sum(0, dtype=torch.float64)).to(self.sums.device)
        self.tokens += flat.shape[0]

    def merge(self, other: Self) -> Self:
        """Sums add."""
        return type(self)(self.sums + other.sums, self.tokens + other.tokens)

    @property
    def value(self) -> Tensor:
        """(in,), float32: ||x_j||_2."""
        return self.sums.sqrt().float()

    def state(self) -> dict[str, Tensor]:
        """Sums and token count."""
        return {"sums": self.sums, "tokens": torch.tensor(self.tokens)}

    @classmethod
    def load(cls, state: dict[str, Tensor]) -> Self:
        """From sums and token count."""
        return cls(state["sums"], int(state["tokens"]))


class InputMean(InputStat):
    """Mean and mean magnitude of every input channel (AFM, arXiv:2405.18146; ASVD, arXiv:2312.05821)."""

    def __init__(self, sums: Tensor, absolutes: Tensor, tokens: int = 0) -> None:
        self.sums, self.absolutes = sums, absolutes  # (in,) each, float64, sums of x and of |x|
        self.tokens = tokens

    @classmethod
    def zero(cls, width: int) -> Self:
        """No tokens yet."""
        return cls(torch.zeros(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64))

    def update(self, x: Tensor) -> None:
        """Add inputs and their magnitudes."""
        flat = rows(x)
        self.absolutes += finite(flat.abs().sum(0, dtype=torch.float64)).to(self.absolutes.device)
        self.sums += flat.sum(0, dtype=torch.float64).to(self.sums.device)
        self.tokens += flat.shape[0]

    def merge(self, other: Self) -> Self:
        """Sums add."""
        both = (self.sums + other.sums, self.absolutes + other.absolutes)
        return type(self)(*both, self.tokens + other.tokens)

    @property
    def value(self) -> Tensor:
        """(in,), float32: the mean of x_j."""
        return (self.sums / max(1, self.tokens)).float()

    @property
    def outer(self) -> Tensor:
        """(in, in), float64: n m m^T, what the mean has in X^T X."""
        return self.sums.outer(self.sums) / max(1, self.tokens)

    @property
    def absolute(self) -> Tensor:
        """(in,), float32: the mean of |x_j|."""
        return (self.absolutes / max(1, self.tokens)).float()

    def state(self) -> dict[str, Tensor]:
        """Sums and token count."""
        return {"sums": self.sums, "absolutes": self.absolutes, "tokens": torch.tensor(self.tokens)}

    @classmethod
    def load(cls, state: dict[str, Tensor]) -> Self:
        """From sums and token count."""
        return cls(state["sums"], state["absolutes"], int(state["tokens"]))


class Gram(InputStat):
    """X^T X over all calibration tokens; the Hessian of the layer-wise error up to a factor."""

    def __init__(self, sums: Tensor, tokens: int = 0) -> None:
        self.sums = sums  # (in, in), float64
        self.tokens = tokens
        self._memo: dict[str, Any] = {}

    @classmethod
    def zero(cls, width: int) -> Self:
        """No tokens yet."""
        return cls(torch.zeros(width, width, dtype=torch.float64))

    def update(self, x: Tensor) -> None:
        """Add x^T x; the product in float32, the sum in float64."""
        flat = rows(x)
        product = flat.T @ flat  # (in, in)
        finite(product.diagonal())
        self.sums += product.to(self.sums.device)
        self.tokens += flat.shape[0]
        self._memo.clear()

    def merge(self, other: Self) -> Self:
        """Sums add."""
        return type(self)(self.sums + other.sums, self.tokens + other.tokens)

    @property
    def value(self) -> Tensor:
        """(in, in), float64."""
        return self.sums

    def inverse(self, damp: float, descending: bool = False) -> Factor:
        """`damped_inverse` of this Gram, made once for all layers and methods that ask for it."""
        return self.memo(f"inverse {damp} {descending}", lambda: damped_inverse(self.sums, damp, descending))

    def memo(self, key: str, make: Callable[[], T]) -> T:
        """What was derived from this Gram (an inverse factor, a spectrum), made once."""
        if key not in self._memo:
            self._memo[key] = make()
        result: T = self._memo[key]
        return result

    def state(self) -> dict[str, Tensor]:
        """Sums and token count."""
        return {"sums": self.sums, "tokens": torch.tensor(self.tokens)}

    @classmethod
    def load(cls, state: dict[str, Tensor]) -> Self:
        """From sums and token count."""
        return cls(state["sums"], int(state["tokens"]))
