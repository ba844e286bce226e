"""Legends outside the panels, at places that fit their measured size."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

    from analysis.panels import Panels

Group = tuple[str, list[Any], list[str], str]  # title, marks, names, colour of the title
TOP, EDGE = 0.3, 0.12  # inches of a figure above and beside its panels
LEAST = 6.0  # points of a letter
BESIDE = 0.36  # of a slide for a legend at its right
SPACE = 0.08  # inches between legends


def outside(made: Panels, groups: Sequence[Group]) -> None:
    """A legend per group in the free slot, at the right of a slide where it is narrow, else below."""
    for axis in made.axes if sheet.now().width else ():
        _shrink(axis, made)
    beside = sheet.now().fills and _strip(made, groups)
    for i, figure in enumerate(made.figures if not beside else ()):
        if not (figure is made.figures[-1] and _inside(made, groups)):
            _below(made, i, groups)


def _inside(made: Panels, groups: Sequence[Group]) -> bool:
    """Whether the slot after the last panel holds the legend; it is there then."""
    if made.spare is None or len(groups) > 1:
        return False
    figure, p = made.figures[-1], made.layout
    _, marks, names, _ = groups[0]
    look: dict[str, Any] = {"borderaxespad": 0, "borderpad": 0, "labelspacing": 0.3, "handlelength": 2.4}
    legend = made.spare.legend(marks, names, loc="upper left", **look)
    wide, high = _inches(legend)
    if wide > p.wide + p.right - 0.02 or high > p.high + made.foot() - 0.05:
        legend.remove()
        return False
    made.below[-1] = made.foot() + made.small_print(figure)
    made.arrange()
    return True


def _below(made: Panels, i: int, groups: Sequence[Group]) -> None:
    """Legends below the panels, side by side as long as the figure is wide."""
    figure, width = made.figures[i], made.layout.width - 0.1
    found = _legends(figure, groups, 1)
    for columns in even(len(groups[0][2])) if len(groups) == 1 else ():
        wider = _legends(figure, groups, columns)
        if _inches(wider[0])[0] <= width:
            found[0].remove()
            found = wider
            break
        wider[0].remove()
    sizes = [_inches(legend) for legend in found]
    pitch = max(wide for wide, _ in sizes) + (0.12 if len(found) > 1 else 0.0)
    line = max(1, min(len(found), int((width + 0.12) / pitch)))
    highs = [max(high for _, high in sizes[k : k + line]) + SPACE for k in range(0, len(found), line)]
    made.below[i] = made.foot() + sum(highs) + made.small_print(figure)
    made.arrange()
    total = figure.get_size_inches()
    x, y = (total[0] - line * pitch) / 2, made.below[i] - made.foot()
    for k, legend in enumerate(found):
        above, at = divmod(k, line)
        _put(legend, x + at * pitch, y - sum(highs[:above]))


def _strip(made: Panels, groups: Sequence[Group]) -> bool:
    """Whether legends are at the right of every slide: smaller or in columns where they are many."""
    slide = sheet.now()
    most = slide.height - TOP - 0.1
    sizes = np.arange(slide.letters - 0.5, LEAST - 0.1, -0.5)
    for columns, size in [(columns, size) for columns in (1, 2) for size in sizes]:
        drawn = [_legends(f, groups, columns if len(groups) == 1 else 1, float(size)) for f in made.figures]
        stacks = [_stacked(found, most) for found in drawn]
        wide = [max(_inches(legend)[0] for legend in stack) + 0.1 for stack in stacks[0]]
        fits = len(wide) <= columns and _high(stacks[0]) <= most
        if fits and sum(wide) < BESIDE * slide.width:
            break
        for legend in (legend for found in drawn for legend in found):
            legend.remove()
    else:
        _widen(made, EDGE)
        return False
    _widen(made, sum(wide) + 0.15)
    for own in stacks:
        for i, stack in enumerate(own):
            y = slide.height - TOP
            for legend in stack:
                _put(legend, slide.width - sum(wide[i:]) - 0.05, y)
                y -= _inches(legend)[1] + SPACE
    return True


def _widen(made: Panels, right: float) -> None:
    """Give a slide's panels all but so many inches at the right."""
    p = made.layout
    p.right = right
    p.wide = (sheet.now().width - p.left - p.right - p.gap * (p.columns - 1)) / p.columns
    made.below = [made.foot() + made.small_print(one) for one in made.figures]
    made.arrange()


def _stacked(found: list[Legend], most: float) -> list[list[Legend]]:
    """Legends below each other, a further stack where one is full."""
    stacks: list[list[Legend]] = [[]]
    for legend in found:
        if stacks[-1] and _high([[*stacks[-1], legend]]) > most:
            stacks.append([])
        stacks[-1].append(legend)
    return stacks


def _high(stacks: list[list[Legend]]) -> float:
    """Inches of the highest stack."""
    return max(sum(_inches(legend)[1] + SPACE for legend in stack) - SPACE for stack in stacks)


def _put(legend: Legend, x: float, y: float) -> None:
    """The upper left corner at these inches."""
    figure = legend.get_figure(root=True)
    width, height = figure.get_size_inches()
    legend.set_bbox_to_anchor((x / width, y / height), transform=figure.transFigure)


def _legends(
    figure: Figure, groups: Sequence[Group], columns: int, size: float | None = None
) -> list[Legend]:
    """A legend per group, not yet at its place."""
    look: dict[str, Any] = {"loc": "upper left", "borderaxespad": 0, "borderpad": 0, "alignment": "left"}
    look |= {"labelspacing": 0.25, "handlelength": 2.6, "columnspacing": 1.4, "fontsize": size}
    found = []
    for title, marks, names, colour in groups:
        legend = figure.legend(marks, names, title=title or None, ncols=columns, **look)
        if title:
            legend.get_title().set(
                color=colour, fontweight="bold", fontsize=size or sheet.now().letters - 0.5
            )
        found.append(legend)
    return found


def even(names: int, most: int = 8) -> list[int]:
    """Numbers of columns that hold as many names each, but for one: the largest first, at least two."""
    return [n for n in range(min(most, names), 1, -1) if n == math.ceil(names / math.ceil(names / n))]


def _inches(artist: Any) -> tuple[float, float]:
    """Width and height as drawn."""
    box = artist.get_window_extent()
    dpi = artist.get_figure(root=True).dpi
    return box.width / dpi, box.height / dpi


def _shrink(axis: Axes, made: Panels) -> None:
    """Break a long name of an axis, and let the letters of a long title be smaller."""
    from matplotlib.text import Text

    p, name = made.layout, axis.yaxis.label
    room = _inches(axis)[1] + 0.25  # panels are further apart, and titles do not begin so far left
    _smaller(name, _inches(name)[1], room)
    if _inches(name)[1] > room:
        name.set_text("\n".join(folded(name.get_text(), len(name.get_text()) * 2 // 3)))
    if _inches(axis.xaxis.label)[0] > p.wide + p.gap:
        axis.set_xlabel("\n".join(folded(axis.get_xlabel(), len(axis.get_xlabel()) * 2 // 3)))
        made.extra = max(made.extra, 0.13)
    room = p.wide + (EDGE - 0.02 if made.last(made.axes.index(axis)) else max(0.02, p.gap - 0.25))
    for text in (child for child in axis.get_children() if isinstance(child, Text) and child.get_text()):
        _smaller(text, _inches(text)[0], room)


def _smaller(text: Any, inches: float, room: float) -> None:
    """Smaller letters, as far as they are legible, where the text is longer than its room."""
    if inches > room:
        text.set_fontsize(max(LEAST, text.get_fontsize() * 0.98 * room / inches))


def folded(text: str, letters: int) -> list[str]:
    """The text in lines of at most so many letters, about as long as each other."""
    lines = math.ceil(len(text) / max(1, letters))
    return textwrap.wrap(text, min(letters, math.ceil(len(text) / lines * 1.2))) if lines > 1 else [text]
