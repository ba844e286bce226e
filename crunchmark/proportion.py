"""Score tests and intervals of shares of right answers, where resampling sees no spread.

`design` and `extra` let an answer over several draws of calibration data use the same formulas: the variance
over items is multiplied by the one (draws do not repeat each other), the other is added (their means differ).
"""

import math

from numpy.typing import NDArray
from scipy.optimize import brentq

Z = 1.959964  # of a 95 % interval


def wilson(
    share: float, n: int, crit: float = Z, design: float = 1.0, extra: float = 0.0
) -> tuple[float, float]:
    """Wilson's (1927) interval of a share of n items.

    Args:
        share: Of right answers.
        n: Number of items.
        crit: Quantile of the normal or the t distribution.
        design: Factor of the variance over items.
        extra: Variance beside it.
    """
    width = crit**2 * design / n
    middle = share + width / 2
    root = math.sqrt(max(0.0, middle**2 - (1 + width) * (share**2 - crit**2 * extra)))
    return max(0.0, (middle - root) / (1 + width)), min(1.0, (middle + root) / (1 + width))


def difference_variance(gained: float, lost: float, delta: float) -> float:
    """Per item, of the difference of paired shares, in the most likely table whose difference is delta.

    Tango (1998); gained and lost are shares of the items.
    """
    linear = -(gained + lost) + (2 - gained + lost) * delta
    root = math.sqrt(max(0.0, linear**2 + 8 * lost * delta * (1 - delta)))
    return max(0.0, (root - linear) / 2 + delta * (1 - delta))


def tango(
    gained: float, lost: float, n: int, crit: float = Z, design: float = 1.0, extra: float = 0.0
) -> tuple[float, float]:
    """Tango's (1998) score interval of gained - lost, shares of n paired items; the rest as in `wilson`."""
    delta = gained - lost

    def outside(truth: float) -> float:
        variance = difference_variance(gained, lost, truth) * design / n + extra
        return abs(delta - truth) - crit * math.sqrt(variance)

    def bound(end: float) -> float:
        near = delta + math.copysign(1e-9, end)  # at delta itself the variance may be 0
        return end if outside(end) <= 0 or abs(near) >= 1 else float(brentq(outside, near, end, xtol=1e-10))

    return bound(-1.0), bound(1.0)


def ratio_variance(one: float, two: float, gained: float, lost: float, ratio: float) -> float:
    """Per item, of one - ratio * two, in the most likely table where that is 0 (Nam and Blackwelder, 2002).

    Args:
        one: Share answered right now.
        two: Share answered right by dense.
        gained: Share of items right now only.
        lost: Share of items dense was right on only.
        ratio: One over two, by the hypothesis.
    """
    root = math.sqrt((one - ratio**2 * two) ** 2 + 4 * ratio**2 * gained * lost)
    gain = (-one + ratio**2 * (two + 2 * gained) + root) / (2 * ratio * (ratio + 1))
    loss = ratio * gain - (ratio - 1) * (two + gained)  # two + gained: all that either answered
    return max(0.0, ratio * (gain + loss))


def ratio_score(score: NDArray, dense: NDArray, ratio: float) -> float:  # type: ignore[type-arg]
    """Z of P(score = 1) = ratio * P(dense = 1) over paired 0/1 items; 0 where they say nothing."""
    one, two = float(score.mean()), float(dense.mean())
    gained, lost = float((score > dense).mean()), float((score < dense).mean())
    variance = ratio_variance(one, two, gained, lost, ratio)
    return (one - ratio * two) / math.sqrt(variance / len(score)) if variance > 0 else 0.0
