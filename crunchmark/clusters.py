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
    if points.shape[1] == 1:  # on a line: between the midpoints of neighbours
        order = means[:, 0].argsort()
        codes = order[nearest_of_rows(points.T, means[order].T)[0]]
        return codes, (points - means[codes]).square()[:, 0]
    parts, apart, lengths = [], [], means.square().sum(1)  # (k,)
    for part in points.split(CHUNK):
        least = torch.addmm(lengths, part, means.T, alpha=-2).min(1)  # (n, k) -> (n,)
        parts.append(least.indices)
        apart.append((least.values + part.square().sum(1)).clamp(min=0))
    return torch.cat(parts), torch.cat(apart)


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


def divided(points: Tensor, weights: Tensor, k: int) -> Tensor:
    """Means of the parts of each row: of all splits of a part in two the best is made, until there are k.

    Args:
        points: (N, K).
        weights: (N, K), at least 0.
        k: parts.

    Returns:
        (N, k) float64, ascending; equal ones where no split is better than none.
    """
    points, mass, moment = _running(points, weights)
    at = torch.arange(points.shape[1], device=points.device).expand(points.shape)  # (N, K)
    first, last = torch.zeros_like(at), torch.full_like(at, points.shape[1])  # (N, K), of the point's part
    starts = [first[:, :1]]
    for _ in range(k - 1):
        m, s = mass[:, :-1] - mass.gather(1, first), moment[:, :-1] - moment.gather(1, first)  # left of it
        n, t = mass.gather(1, last) - mass[:, :-1], moment.gather(1, last) - moment[:, :-1]  # from it on
        saved = torch.where((m > 0) & (n > 0), m * n / (m + n) * (s / m - t / n).square(), 0.0)  # (N, K)
        cut = saved.argmax(1, keepdim=True)  # (N, 1)
        starts.append(cut)
        low, high = first.gather(1, cut), last.gather(1, cut)  # (N, 1)
        last = torch.where((at >= low) & (at < cut), cut, last)
        first = torch.where((at >= cut) & (at < high), cut, first)
    begins = torch.cat(starts, 1).sort(1).values  # (N, k)
    return _centres(begins, points, mass, moment, points.gather(1, begins)).sort(1).values


def kmeans_of_rows(points: Tensor, weights: Tensor, means: Tensor, iterations: int) -> Tensor:
    """Weighted k-means of the numbers in each row, moved from these means until all rest.

    A mean that no weight is closest to stays. The weighted error of a row rises in no move.

    Args:
        points: (N, K).
        weights: (N, K), at least 0.
        means: (N, k), where to start.
        iterations: moves at most.

    Returns:
        (N, k) float64, ascending.
    """
    points, mass, moment = _running(points, weights)
    means = means.double().sort(1).values
    none = torch.zeros_like(means[:, :1], dtype=torch.int64)  # (N, 1)
    for _ in range(iterations):
        begins = torch.cat([none, torch.searchsorted(points, _between(means))], 1)  # (N, k)
        moved = _centres(begins, points, mass, moment, means).sort(1).values
        if torch.equal(moved, means):
            break
        means = moved
    return means


def nearest_of_rows(points: Tensor, means: Tensor) -> Tensor:
    """Which of the row's means (N, k), ascending, each of the points (N, K) is closest to: (N, K) int64."""
    return torch.searchsorted(_between(means.double()), points.double())


def _between(means: Tensor) -> Tensor:
    """Midpoints of neighbours, (N, k - 1)."""
    return ((means[:, 1:] + means[:, :-1]) / 2).contiguous()


def _running(points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points (N, K) ascending, and the weight and moment (N, K + 1) of those before each; float64."""
    points, order = points.double().sort(1)
    weights = weights.double().gather(1, order)
    none = torch.zeros_like(points[:, :1])  # (N, 1)
    sums = (torch.cat([none, values.cumsum(1)], 1) for values in (weights, weights * points))
    mass, moment = sums
    return points, mass, moment


def _centres(begins: Tensor, points: Tensor, mass: Tensor, moment: Tensor, otherwise: Tensor) -> Tensor:
    """Means (N, k) of the parts that begin at these points; where a part has no weight, another number.

    Sums of little weight behind those of much are off in their last bits: a mean stays among its points.
    """
    ends = torch.cat([begins, torch.full_like(begins[:, :1], points.shape[1])], 1)  # (N, k + 1)
    held = mass.gather(1, ends).diff(dim=1)  # (N, k)
    means = moment.gather(1, ends).diff(dim=1) / held  # (N, k)
    least = points.gather(1, begins.clamp(max=points.shape[1] - 1))  # (N, k)
    means = means.clamp(least, points.gather(1, (ends[:, 1:] - 1).clamp(min=0)))
    return torch.where(held > 0, means, otherwise)
