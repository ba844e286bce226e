"""k-means, the same for the same points in whatever order they come."""

import torch
from torch import Tensor

CHUNK = 2**16  # points compared with all means at a time


def nearest(points: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """The closest mean of each point, and its squared distance; memory is bounded by CHUNK points.

    Args:
        points: (N, d) float32.
        means: (k, d) float32.

    Returns:
        (N,) int64, of equally close ones any, and (N,) float32.
    """
    codes, apart, lengths = [], [], means.square().sum(1)  # (k,)
    for part in points.split(CHUNK):
        least = torch.addmm(lengths, part, means.T, alpha=-2).min(1)  # (n, k) -> (n,)
        codes.append(least.indices)
        apart.append((least.values + part.square().sum(1)).clamp(min=0))
    return torch.cat(codes), torch.cat(apart)


def kmeans(points: Tensor, k: int, seed: int, iterations: int, sample: int) -> Tensor:
    """The k means: started by k-means++ (Arthur and Vassilvitskii, 2007), moved until they rest.

    Means that no point is closest to start again at the points worst served.

    Args:
        points: (N, d) float32.
        k: means.
        seed: of the start.
        iterations: moves at most.
        sample: points that are looked at, at most.

    Returns:
        (k, d) float32.

    Raises:
        ValueError: there are fewer points than means.
    """
    if min(len(points), sample) < k:
        raise ValueError(f"{k} means of {min(len(points), sample)} points; valid: at most one per point")
    generator = torch.Generator().manual_seed(seed)
    points = _drawn(points, sample, generator)
    means = _started(points, k, generator)
    for _ in range(iterations):
        moved = _moved(points, means)
        if torch.equal(moved, means):
            break
        means = moved
    return means


def _drawn(points: Tensor, sample: int, generator: torch.Generator) -> Tensor:
    """At most `sample` points, evenly spaced in their order along a random line, not in the order given."""
    line = torch.randn(points.shape[1], generator=generator, dtype=torch.float64)
    key = points.new_zeros(len(points), dtype=torch.float64)  # (N,)
    for column, slope in zip(points.T, line, strict=True):
        key += column.double() * slope
    count = min(sample, len(points))
    return points[key.argsort(stable=True)[torch.arange(count) * len(points) // count]]  # (count, d)


def _started(points: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """The first k means: points, each drawn by its squared distance from those before."""
    picks = [int(torch.randint(len(points), (1,), generator=generator))]
    apart = (points - points[picks[0]]).square().sum(1)  # (N,)
    for _ in range(k - 1):
        total = apart.double().cumsum(0)
        drawn = torch.rand(1, generator=generator, dtype=torch.float64) * total[-1]
        picks.append(min(int(torch.searchsorted(total, drawn, right=True)), len(points) - 1))
        apart = torch.minimum(apart, (points - points[picks[-1]]).square().sum(1))
    return points[picks]


def _moved(points: Tensor, means: Tensor) -> Tensor:
    """The mean of the points each is closest to."""
    codes, apart = nearest(points, means)
    counts = codes.bincount(minlength=len(means))  # (k,)
    sums = torch.zeros(means.shape, dtype=torch.float64).index_add_(0, codes, points.double())
    moved = (sums / counts.clamp(min=1)[:, None]).float()
    empty = counts == 0
    moved[empty] = points[apart.topk(int(empty.sum())).indices]
    return moved
