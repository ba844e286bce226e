"""LR2VQ without fine-tuning (Zhu et al., 2022, arXiv:2211.11397): codewords of few dimensions, lifted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from crunchmark import (
    Codebook,
    Layer,
    Method,
    Room,
    Term,
    check_runs,
    check_words,
    kmeans,
    nearest,
    principal,
    whole,
)


@dataclass(frozen=True)
class LR2VQ(Method):
    """M ~ K[a] P: rows of M are runs of inputs, P their leading principal directions, K found by k-means.

    The paper trains K and P on the task; here the error is that of P plus that of the clusters.
    bits: of a code, null for what fits. length: weights of a run, null for what fits.
    dims: of a codeword, null for the number with the least error. iterations: of k-means at most.
    sample: runs it looks at, at most.
    """

    bits: int | None = None
    length: int | None = None
    dims: int | None = None
    iterations: int = 25
    sample: int = 16384

    random = True

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        check_words(self.bits, self.length, self.dims)
        whole("method.iterations", self.iterations)
        whole("method.sample", self.sample, least=256)

    def suits(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        """Every layer must have runs of that length, and enough of them."""
        check_runs(shapes, self.bits, self.length, self.dims)

    def sizes(self, shape: tuple[int, int], room: Room) -> Sequence[int]:
        """Of every setting that pays."""
        return Codebook.sizes(shape, room, self.bits, self.length, lifted=True, dims=self.dims)

    def compress(self, layer: Layer, room: Room) -> Term:
        """Directions once, clusters for each number of dimensions that is asked for."""
        bits, length = Codebook.fits(
            layer.shape, room, layer.name, self.bits, self.length, lifted=True, dims=self.dims
        )
        runs = layer.weight.reshape(-1, length)  # (N, length)
        directions = principal(runs.double().T @ runs.double())[0].T.float()  # (length, length)
        tried = range(1, length + 1) if self.dims is None else [self.dims]
        found = [self._with(layer, runs, directions[:d], 2**bits, room) for d in tried]
        return min(found, key=lambda term: float((term.dense() - layer.weight).square().sum()))

    def _with(self, layer: Layer, runs: Tensor, lift: Tensor, words: int, room: Room) -> Codebook:
        """The term with that lift (dims, length); codes are chosen for the words as they are stored."""
        book = kmeans(runs @ lift.T, words, layer.seed, self.iterations, self.sample).to(room.dtype)
        codes, _ = nearest(runs, book.float() @ lift.to(room.dtype).float())
        return Codebook.of(codes.view(layer.shape[0], -1), book, lift, room.dtype)
