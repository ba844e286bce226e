"""What lies beyond an axis: its marker is at the edge, with an arrow to where it lies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CAP = 30.0  # a perplexity over so many times dense is beyond the axis
NAME = "beyond the axis"  # in the legend
EDGES = ("value", "value_low", "value_high")
ROOM = 1.25  # of the limit, so that a marker there is whole
DOWN = ((0, 0.5), (0, -1), (-0.5, -0.45), (0, -1), (0.5, -0.45))  # the strokes of an arrow


def there(points: pd.DataFrame) -> bool:
    """Whether any of these points, of whatever tasks, is beyond its axis."""
    low = points[~points["higher_is_better"].astype(bool)]
    return bool(((low["value"] > CAP * low["dense"]) & (low["dense"] > 0) | np.isposinf(low["value"])).any())


def limit(points: pd.DataFrame, dense: float) -> float:
    """The largest value inside the axis of one task; what is better when higher has none."""
    if points["higher_is_better"].iloc[0]:
        return np.inf
    finite = points.loc[np.isfinite(points["value"]), "value"]
    return dense * CAP if dense > 0 else float(finite.max()) if len(finite) else np.inf


def far(points: pd.DataFrame, most: float) -> pd.Series:
    """Which points are beyond the axis; one without a value is not."""
    return points["value"] > most


def held(points: pd.DataFrame, most: float) -> pd.DataFrame:
    """Points as they are drawn: those beyond at the edge, without their interval."""
    return points.assign(
        **{name: points[name].clip(upper=most).mask(far(points, most), most) for name in EDGES}
    )


def line(points: pd.DataFrame, most: float) -> pd.DataFrame:
    """A line as it is drawn: it ends where it leaves the axis, and a point beyond is alone at the edge.

    `mark`: a point, not only an end of the line or a gap. `inside`: a point that has its interval.
    """
    out = far(points, most)
    drawn = held(points, most).assign(mark=True, inside=~out)
    if not out.any():
        return drawn
    ends = list(zip(points["x"], points["value"], out, strict=True))
    rows: list[dict[Any, Any]] = []
    for i, row in enumerate(drawn.to_dict("records")):
        if i and (ends[i][2] or ends[i - 1][2]):
            between = _crossing(ends[i - 1], ends[i], most)
            rows += between if ends[i][2] else between[::-1]
        rows.append(row)
    return pd.DataFrame(rows)


def _crossing(
    before: tuple[float, float, bool], after: tuple[float, float, bool], most: float
) -> list[dict[str, Any]]:
    """Where the line between two points leaves a logarithmic axis, and a gap."""
    plain = {"mark": False, "inside": False}
    gap = plain | {"x": np.nan, "value": np.nan}
    (near, low, _), (away, high, _) = sorted((before, after), key=lambda end: end[2])
    if before[2] == after[2] or not np.isfinite(high) or not low > 0:
        return [gap]
    end = min(high, most * ROOM)
    share = np.log(end / low) / np.log(high / low)
    return [plain | {"x": near + share * (away - near), "value": end}, gap]


def stairs(best: pd.DataFrame, most: float) -> pd.DataFrame:
    """A frontier's staircase as it is drawn: it enters the axis at its first point inside."""
    inside = best[~far(best, most)]
    foot = inside.head(1).assign(value=most * ROOM)
    return pd.concat([foot, inside]) if len(inside) < len(best) else inside


def arrows(axis: Axes, at: Iterable[float], colour: str, right: bool = False) -> None:
    """An arrow across the lower edge below each of these places, or across the right edge."""
    if not (places := list(at)):
        return
    ends = np.full(len(places), float(right))
    x, y = (ends, places) if right else (places, ends)
    transform = axis.get_yaxis_transform() if right else axis.get_xaxis_transform()
    axis.plot(x, y, transform=transform, clip_on=False, zorder=6, **_look(colour, right))


def named(axis: Axes) -> None:
    """The arrow for the legend."""
    axis.plot([], [], label=NAME, **_look("#333333"))


def edge(axis: Axes, most: float) -> None:
    """End a perplexity axis a little beyond the edge, and name the arrow."""
    axis.set_ylim(top=most * ROOM)
    named(axis)


def _look(colour: str, right: bool = False) -> dict[str, Any]:
    """An arrow as a marker: no method's marker has a stem."""
    from matplotlib.path import Path

    strokes = [(-y, x) for x, y in DOWN] if right else DOWN
    codes = [Path.MOVETO, Path.LINETO, Path.MOVETO, Path.LINETO, Path.LINETO]
    marker = {"marker": Path(strokes, codes), "markersize": 8, "markeredgewidth": 1.0}
    return marker | {"color": colour, "markerfacecolor": "none", "linestyle": "none"}
