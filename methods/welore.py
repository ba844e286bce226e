"""WeLore (Jaiswal et al., 2024, arXiv:2407.11239): weights are low rank to different degrees."""

from dataclasses import dataclass
from math import ceil

from crunchmark import Layer, Projected, Spectrum, directions, fraction


@dataclass(frozen=True)
class WeLore(Projected):
    """Truncated SVD of those weights that lose enough of their rank (LRC); the others stay dense (N-LRC).

    The paper's ranks follow one threshold on normalised singular values: allocate=welore. It then trains the
    factors of LRC layers alone; that comes with recovery. N-LRC layers are the cell's `left_dense`.
    min_ratio: share of its rank a weight has to lose; 0.4999 where the factors are trained later.
    """

    min_ratio: float = 0.0

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        super().__post_init__()
        fraction("method.min_ratio", self.min_ratio, zero=True)

    def directions(self, layer: Layer) -> Spectrum:
        """Left singular vectors: no input is looked at."""
        return directions(layer, "identity")

    def most(self, shape: tuple[int, int]) -> int:
        """The largest rank that loses more than `min_ratio` of the full one."""
        return max(1, ceil(min(shape) * (1 - self.min_ratio)) - 1)
