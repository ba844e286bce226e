"""Vector quantisation of weights by k-means (Gong et al., 2014, arXiv:1412.6115)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crunchmark import Codebook, Layer, Method, Room, Term, check_runs, check_words, kmeans, nearest, whole


@dataclass(frozen=True)
class VQ(Method):
    """Runs of neighbouring inputs become the nearest of 2^bits words, found by k-means in every layer.

    bits: of a code, null for what fits. length: weights of a run, null for what fits.
    iterations: of k-means at most. sample: runs it looks at, at most.
    """

    bits: int | None = None
    length: int | None = None
    iterations: int = 25
    sample: int = 16384

    random = True

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        check_words(self.bits, self.length)
        whole("method.iterations", self.iterations)
        whole("method.sample", self.sample, least=256)

    def suits(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        """Every layer must have runs of that length, and enough of them."""
        check_runs(shapes, self.bits, self.length)

    def sizes(self, shape: tuple[int, int], room: Room) -> Sequence[int]:
        """Of every setting that pays."""
        return Codebook.sizes(shape, room, self.bits, self.length)

    def compress(self, layer: Layer, room: Room) -> Term:
        """Codes are chosen for the words as they are stored."""
        bits, length = Codebook.fits(layer.shape, room, layer.name, self.bits, self.length)
        runs = layer.weight.reshape(-1, length)  # (out in / length, length)
        book = kmeans(runs, 2**bits, layer.seed, self.iterations, self.sample).to(room.dtype)
        codes, _ = nearest(runs, book.float())
        return Codebook.of(codes.view(layer.shape[0], -1), book, None, room.dtype)
