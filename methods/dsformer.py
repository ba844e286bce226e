"""DSFormer's factors without its training (Chand et al., 2023, arXiv:2312.13211): a basis, sparsely coded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crunchmark import (
    Dense,
    Layer,
    Method,
    Product,
    Room,
    Segments,
    Term,
    Unreachable,
    dense_bytes,
    directions,
    one_of,
    whole,
)


@dataclass(frozen=True)
class DSFormer(Method):
    """W ~ D S: D (out, d) dense, columns of S (d, in) with one entry in each of s segments of d / s rows.

    The paper learns both on the task, straight through the factorisation; that is training and not done here.
    Which side is dense, and what a segment is, are ours, where the paper was not clear to us: D starts as the
    leading left singular vectors, dealt out to the segments in turn, so that each has one of the best s.
    length: rows of a segment, d / s.
    iterations: of coding all columns, one segment after the other, and solving for D.
    """

    length: int = 4
    iterations: int = 20

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        one_of("method.length", self.length, range(1, 257))
        whole("method.iterations", self.iterations, least=0)

    def suits(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        """A segment must be within the rank of every layer."""
        for name, shape in shapes.items():
            if self.length > min(shape):
                raise ValueError(
                    f"method.length={self.length} is above the rank of {name} {shape}; "
                    f"valid: 1 to {min(min(s) for s in shapes.values())}"
                )

    def size(self, shape: tuple[int, int], segments: int, room: Room) -> int:
        """Bytes of D and S; nominal: parameters, as bytes of dense ones."""
        (out, wide), d = shape, segments * self.length
        if room.nominal is not None:
            return 2 * (out * d + wide * segments)
        return room.itemsize * out * d + Segments.size(segments, self.length, wide, room.itemsize)

    def sizes(self, shape: tuple[int, int], room: Room) -> Sequence[int]:
        """Of every number of segments."""
        return [self.size(shape, s, room) for s in range(1, min(shape) // self.length + 1)]

    def compress(self, layer: Layer, room: Room) -> Term:
        """S is fitted to D as D is stored."""
        given = room.nbytes if room.nominal is None else room.nominal * dense_bytes(layer.shape) + 1e-6
        sizes = self.sizes(layer.shape, room)
        segments = sum(size <= given for size in sizes)
        if not segments:
            least = sizes[0] / dense_bytes(layer.shape)
            raise Unreachable(layer.name, sizes[0], room.nbytes, least=least)
        w, basis = layer.weight.double(), directions(layer, "identity").basis
        d = basis[:, : segments * self.length].unflatten(1, (self.length, segments)).mT.flatten(1)
        d, index, values = factorised(w, d, segments, self.iterations)
        kept = d.to(room.dtype)
        index, values = coded(w, kept.double(), index, values)
        sparse = Segments.of(values, index.to(torch.uint8), self.length, room.dtype)
        return Product([Dense(kept, room.dtype), sparse])


def factorised(w: Tensor, d: Tensor, segments: int, iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    """D (out, d), and index and values (segments, in) of S; no step of an iteration raises the error."""
    index = torch.zeros(segments, w.shape[1], dtype=torch.int64)
    index, values = coded(w, d, index, torch.zeros_like(index, dtype=w.dtype))
    for _ in range(iterations):
        s = spread(index, values, d.shape[1] // segments)  # (d, in)
        d = solved(w, s, d)
        index, values = coded(w, d, index, values)
    return d, index, values


def coded(w: Tensor, d: Tensor, index: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The best entry of one segment after the other for every column, the other segments as they are."""
    segments = len(index)
    length = d.shape[1] // segments
    gram = d.T @ d  # (d, d)
    energy = gram.diagonal().clamp(min=1e-300).view(segments, length, 1)
    left = d.T @ w - gram @ spread(index, values, length)  # (d, in): what each atom has of the residual
    index, values = index.clone(), values.clone()
    for j in range(segments):
        lo, hi = j * length, (j + 1) * length
        found = left[lo:hi] + gram[lo:hi, lo + index[j]] * values[j]  # (length, in), without this segment
        at = (found.square() / energy[j]).argmax(0)  # (in,)
        value = found.gather(0, at[None])[0] / energy[j, at, 0]  # (in,)
        left += gram[:, lo + index[j]] * values[j] - gram[:, lo + at] * value
        index[j], values[j] = at, value
    return index, values


def spread(index: Tensor, values: Tensor, length: int) -> Tensor:
    """S (d, in) from where the entries (segments, in) of its segments stand."""
    s = values.new_zeros(len(index), length, index.shape[1])
    return s.scatter_(1, index[:, None], values[:, None]).flatten(0, 1)


def solved(w: Tensor, s: Tensor, d: Tensor) -> Tensor:
    """The D (out, d) of least squared error for S; atoms nobody uses stay as they were."""
    gram = s @ s.T  # (d, d)
    used = gram.diagonal() > 1e-12 * gram.diagonal().max()
    ridge = 1e-12 * gram.diagonal()[used].mean()
    own = gram[used][:, used]
    own.diagonal().add_(ridge)
    new = d.clone()
    new[:, used] = torch.linalg.solve(own, s[used] @ w.T).T
    return new
