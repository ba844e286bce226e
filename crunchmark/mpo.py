"""Matrix product operators: a weight as a chain of small tensors, found by a sweep of truncated SVDs.

A weight (out, in) with out = J_1 ... J_N and in = I_1 ... I_N is laid out as (J_1 I_1, J_2 I_2, ...); what
two neighbours of that chain share is their bond (arXiv:2401.14109).
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import prod

from torch import Tensor

from crunchmark.linalg import Spectrum, spectrum


@cache
def factors(size: int, parts: int) -> tuple[int, ...]:
    """Whole numbers with that product whose sum is least, ascending; of a prime (1, ..., size)."""
    if parts == 1:
        return (size,)
    small = (d for d in range(1, int(size ** (1 / parts) + 1e-9) + 1) if size % d == 0)
    found = [(d, *factors(size // d, parts - 1)) for d in small]
    return tuple(sorted(min(found, key=sum)))


@dataclass(frozen=True)
class Chain:
    """How a weight is cut: core k stands for rows[k] of the outputs and cols[k] of the inputs."""

    rows: tuple[int, ...]
    cols: tuple[int, ...]

    @classmethod
    def balanced(cls, shape: tuple[int, int], cores: int) -> "Chain":
        """The most even factors; large ones of the outputs meet small ones of the inputs."""
        return cls(factors(shape[0], cores), factors(shape[1], cores)[::-1])

    @property
    def sites(self) -> tuple[int, ...]:
        """Numbers a core holds for every pair of its bonds."""
        return tuple(j * i for j, i in zip(self.rows, self.cols, strict=True))

    @property
    def caps(self) -> tuple[int, ...]:
        """The bonds of an exact chain."""
        sites = self.sites
        return tuple(min(prod(sites[:k]), prod(sites[k:])) for k in range(1, len(sites)))

    def bonds(self, most: int) -> tuple[int, ...]:
        """All bonds at `most`, or at what exactness needs where that is less."""
        return tuple(min(most, cap) for cap in self.caps)

    def count(self, most: int) -> int:
        """Numbers in all cores at these bonds."""
        ends = (1, *self.bonds(most), 1)
        return sum(left * p * right for (left, right), p in zip(pairwise(ends), self.sites, strict=True))

    def fits(self, numbers: float) -> int:
        """The largest bond whose cores hold at most that many numbers; 0 where not even bond 1 does."""
        return bisect_right(range(1, max(self.caps, default=1) + 1), numbers, key=self.count)

    def unfolded(self, weight: Tensor) -> Tensor:
        """The weight (out, in) as (J_1 I_1, J_2 I_2 ... J_N I_N)."""
        cores = len(self.rows)
        order = [axis for k in range(cores) for axis in (k, cores + k)]
        return weight.reshape(*self.rows, *self.cols).permute(order).reshape(self.sites[0], -1)

    def sweep(self, weight: Tensor, bonds: Sequence[int], first: Spectrum) -> list[Tensor]:
        """Cores (bond, rows, cols, next bond) float64, left to right: each keeps the best of what is left.

        With two cores no chain of that bond has less error; with more, the squared error is the sum of what
        the truncations dropped.

        Args:
            weight: (out, in).
            bonds: between core k and k + 1, at most `caps`.
            first: spectrum of `unfolded`, which every bond shares.
        """
        cores, rest, left = [], self.unfolded(weight).double(), 1
        for k, bond in enumerate(bonds):
            rest = rest.reshape(left * self.sites[k], -1)  # (left J_k I_k, what comes behind)
            basis = (spectrum(rest) if k else first).basis[:, :bond]
            cores.append(basis.reshape(left, self.rows[k], self.cols[k], bond))
            rest, left = basis.T @ rest, bond
        return [*cores, rest.reshape(left, self.rows[-1], self.cols[-1], 1)]
