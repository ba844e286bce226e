"""Small multiples, laid out in inches (no solver, no pyplot), with a legend outside the panels.

On the page a figure is as wide as its panels want; on a sheet with a width the panels share it, and those
that do not fit into its height are on a further sheet.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import collect, legends, sheet

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (2.15, 1.75)  # inches of a panel
MOST = 9  # sheets of one figure


def reach(line: pd.DataFrame) -> np.ndarray:
    """How far the 95 % interval goes below and above the value, (2, n); zero where there is none."""
    down = (line["value"] - line["value_low"]).clip(lower=0)
    up = (line["value_high"] - line["value"]).clip(lower=0)
    return np.nan_to_num(np.stack([down, up]).astype(float), posinf=0.0)


@dataclass
class Layout:
    """Inches of one figure's parts."""

    columns: int
    lines: int
    wide: float
    high: float
    gap: float
    between: float
    left: float = 0.75
    right: float = legends.EDGE
    foot: float = 0.62

    @property
    def width(self) -> float:
        """Of the figure."""
        return self.left + self.wide * self.columns + self.gap * (self.columns - 1) + self.right

    @property
    def height(self) -> float:
        """Of the figure."""
        return legends.TOP + self.high * self.lines + self.between * (self.lines - 1) + self.foot


def panels(
    count: int,
    columns: int = 4,
    entries: int = 0,
    shared: bool = False,
    between: float = 0.58,
    letters: int = 0,
    size: tuple[float, float] = SIZE,
    gap: float = 0.0,
    right: float = legends.EDGE,
    least: float = 0.95,
) -> Panels:
    """So many panels, with room for a legend of `entries`.

    Panels that share their y axis stand closer together; `between` is the height between two lines of them.

    Args:
        count: Panels.
        columns: At most, side by side.
        entries: Names in the legend.
        shared: Only the first panel of a line has numbers at its y axis.
        between: Inches between two lines.
        letters: Of the longest entry, so that no line of the legend is wider than the figure.
        size: Inches of a panel on the page.
        gap: Inches between two panels, if not the usual ones.
        right: Inches to the right of all.
        least: Inches a panel needs on a sheet.
    """
    gap = gap or (0.2 if shared else 0.66)
    if sheet.now().width:
        plan = _fitted(
            max(count, 1), columns, entries, letters, Layout(0, 0, *size, gap, between, right=right), least
        )
        return _made(count, plan, spare=not sheet.now().fills)
    columns = count + 1 if count < columns else columns  # a narrow figure has its legend at the right
    lines = math.ceil(max(count, 1) / columns)
    inside = lines * columns > count and entries <= 15
    per_line = 6 if columns >= 4 else columns + 1
    plan = Layout(columns, lines, *size, gap, between, right=right)
    per_line = max(1, min(per_line, int(plan.width / (0.75 + sheet.LETTER * letters))))
    plan.foot += 0 if inside else 0.2 * math.ceil(entries / per_line)
    return _made(count, plan, spare=inside, per_line=per_line)


def _fitted(count: int, columns: int, entries: int, letters: int, wish: Layout, least: float) -> Layout:
    """As many columns as the sheet holds, lines as even as possible, and as many of them as it is high."""
    on = sheet.now()
    gap, between, left = wish.gap * 0.85, wish.between * 0.85, 0.62
    strip = 0.6 + sheet.LETTER * (letters or 18) if on.fills and entries else wish.right
    room = on.width - left - strip
    columns = max(1, min(columns, count, int((room + gap) / (least + gap))))
    columns = math.ceil(count / math.ceil(count / columns))
    wide = (room - gap * (columns - 1)) / columns
    foot = 0.5 if on.fills else 0.5 + 0.16 * math.ceil(entries / max(1, int(on.width / 1.1)))
    high = 0.8 if on.fills else max(0.75, min(wide, wish.wide) * wish.high / wish.wide)
    lines = max(1, int((on.height - legends.TOP - foot + between) / (high + between)))
    lines = min(math.ceil(count / columns), lines)
    if on.fills:
        high = (on.height - legends.TOP - foot - between * (lines - 1)) / lines
    return Layout(columns, lines, wide, high, gap, between, left, strip, foot)


def _made(count: int, plan: Layout, spare: bool, per_line: int = 6) -> Panels:
    """The figures with their panels; the slot after the last one may hold the legend."""
    from matplotlib.figure import Figure as NewFigure

    each = plan.columns * plan.lines
    sheets = math.ceil(count / each)
    if sheets > MOST:
        raise collect.AnalysisError(
            f"{count} panels would be {sheets} sheets, at most {MOST} are drawn; valid: fewer, or style=page"
        )
    made = Panels([], [], None, plan, per_line)
    for start in range(0, max(count, 1), each):
        own = min(each, count - start)
        lines = max(1, math.ceil(own / plan.columns))
        figure = NewFigure(figsize=(plan.width, plan.height))
        grid: np.ndarray = figure.subplots(lines, plan.columns, squeeze=False).ravel()
        for empty in grid[own:]:
            empty.set_axis_off()
        made.figures.append(figure)
        made.lines.append(lines)
        made.axes += list(grid[:own])
        made.spare = grid[own] if spare and own < len(grid) else None
    made.below = [plan.foot] * len(made.figures)
    made.arrange()
    return made


@dataclass
class Panels:
    """Figures, their panels, the last one's slot for a legend (None: outside), so many names a line."""

    figures: list[Figure]
    axes: list[Axes]
    spare: Axes | None
    layout: Layout
    per_line: int = 6
    lines: list[int] = field(default_factory=list)
    extra: float = 0.0  # inches for further lines of the x axis' name
    _texts: list[tuple[Any, str]] = field(default_factory=list)
    below: list[float] = field(default_factory=list)  # inches below the panels of each figure

    def foot(self) -> float:
        """Inches for the numbers and the name of the x axis."""
        return (0.5 if sheet.now().width else 0.7) + self.extra

    def arrange(self) -> None:
        """Give every part its inches."""
        p, on = self.layout, sheet.now()
        for i, (figure, lines) in enumerate(zip(self.figures, self.lines, strict=True)):
            foot, high = self.below[i], p.high
            if on.fills:
                high = (on.height - legends.TOP - foot - p.between * (lines - 1)) / lines
            width, height = p.width, legends.TOP + high * lines + p.between * (lines - 1) + foot
            figure.set_size_inches(width, height)
            figure.subplots_adjust(
                p.left / width, foot / height, 1 - p.right / width, 1 - legends.TOP / height,
                p.gap / p.wide, p.between / high,
            )  # fmt: skip
            places = {
                "x": ((p.left + width - p.right) / 2 / width if on.width else 0.5,
                      (foot - (0.38 + self.extra / 2 if on.width else 0.45)) / height),
                "y": ((0.1 if on.width else 0.16) / width, (foot + height - legends.TOP) / 2 / height),
                "note": (1 - legends.EDGE / width, (foot - 0.45) / height),
                "print": (0.06 / width, 0.04 / height),
            }  # fmt: skip
            for text, place in self._texts:
                if text.figure is figure:
                    text.set_position(places[place])

    def first(self, i: int) -> bool:
        """Whether a panel is the first of its line."""
        p = self.layout
        return i % (p.columns * p.lines) % p.columns == 0

    def last(self, i: int) -> bool:
        """Whether a panel is the last that a line holds."""
        return self.first(i + 1)

    def label(self, x: str, y: str = "") -> None:
        """Name the axes all panels share."""
        look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": sheet.now().letters + 0.5}
        if sheet.now().width:
            room = self.layout.width - self.layout.left
            lines = legends.folded(x, int(room / (sheet.LETTER * look["fontsize"] / 8)))
            x, self.extra = "\n".join(lines), 0.13 * max(0, len(lines) - 1)
            self.below = [inches + self.extra for inches in self.below]
        for figure in self.figures:
            self._texts += [(figure.text(0, 0, x, **look), "x")]
            self._texts += [(figure.text(0, 0, y, rotation=90, **look), "y")]
        self.arrange()

    def note(self, text: str) -> None:
        """Small print below the panels."""
        look: dict[str, Any] = {"fontsize": 6.5, "color": "#666666"}
        for figure in self.figures:
            if not sheet.now().width:
                self._texts += [(figure.text(0, 0, text, ha="right", va="center", **look), "note")]
                continue
            lines = textwrap.wrap(text, max(20, int(self.layout.width / 0.047)))
            self._texts += [(figure.text(0, 0, "\n".join(lines), ha="left", va="bottom", **look), "print")]
        self.arrange()

    def legend(self, first: list[str], measured: bool = False) -> None:
        """One legend outside the panels; those names first, then what else is labelled."""
        _, marks, names, _ = group = self.labelled("", first)
        if sheet.now().width or measured:
            self.groups([group])
        elif self.spare is not None:
            self.spare.legend(
                marks, names, loc="center left", borderaxespad=0, labelspacing=0.3, handlelength=3.2
            )
        else:
            columns = next(iter(legends.even(len(names), self.per_line)), 1)
            self.figures[0].legend(marks, names, loc="lower center", ncols=columns, handlelength=3.2)

    def labelled(self, title: str, first: Sequence[str] = ()) -> legends.Group:
        """What is labelled in any panel, those names first, as a group of the legend."""
        pairs: dict[str, Any] = {}
        for axis in self.axes:
            handles, names = axis.get_legend_handles_labels()
            pairs = dict(zip(names, handles, strict=True)) | pairs
        order = [name for name in first if name in pairs]
        order += [name for name in pairs if name not in order]
        return title, [pairs[name] for name in order], order, "#444444"

    def groups(self, groups: Sequence[legends.Group]) -> None:
        """A legend per group, as measured: in the free slot, at the right of a slide, else below."""
        legends.outside(self, groups)

    def colours(self, shown: Any, name: str) -> None:
        """A colour bar at the right of every figure."""
        from matplotlib.cm import ScalarMappable

        for figure, foot in zip(self.figures, self.below, strict=True):
            width, height = figure.get_size_inches()
            place = (1 - 0.7 / width, foot / height, 0.13 / width, 1 - (legends.TOP + foot) / height)
            bar = ScalarMappable(shown.norm, shown.cmap)
            figure.colorbar(bar, cax=figure.add_axes(place), label=name)

    def small_print(self, figure: Figure) -> float:
        """Inches of the note at the bottom of a figure."""
        notes = [text for text, place in self._texts if place == "print" and text.figure is figure]
        return sum(0.1 + 0.11 * (note.get_text().count("\n") + 1) for note in notes)
