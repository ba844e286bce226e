"""What figures are drawn on: the text width of a venue or a slide, and its letters.

The sheet is ambient, as matplotlib's own settings are: `with on(sheet): ...`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis import outfile, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg")
CM = 1 / 2.54
LETTER = 0.062  # inches of a letter of 8 points, about

Make = Callable[[], "list[Figure]"]  # draws one figure; several sheets where its panels do not fit on one


@dataclass(frozen=True)
class Sheet:
    """Inches for a figure. Without a width it is as wide as its panels want; a slide is always as high."""

    width: float = 0.0
    height: float = 0.0  # at most; the rest of a page is for the caption
    fills: bool = False
    letters: float = 8.5  # points of an axis label
    dpi: float = 200
    table: str = "table"  # LaTeX's float for what is as wide

    @property
    def rc(self) -> dict[str, Any]:
        """Matplotlib's settings."""
        size = self.letters
        sizes = {
            "font.size": size,
            "axes.labelsize": size,
            "axes.titlesize": size + (0.5 if self.width else 1),
        }
        sizes |= {"xtick.labelsize": size - 1, "ytick.labelsize": size - 1, "legend.fontsize": size - 0.5}
        thin = {"lines.linewidth": 1.1, "lines.markersize": 3.6} if self.width and not self.fills else {}
        return style.RC | sizes | thin | {"savefig.dpi": self.dpi}


PAGE = Sheet()
SHEETS = {  # style -> width -> sheet
    "page": {"full": PAGE},  # Markdown and HTML
    "neurips": {  # neurips_2024.sty: text 5.5 x 9 in, one column; half: two figures side by side
        "full": Sheet(5.5, 8.0, letters=7.5, dpi=300),
        "half": Sheet(2.68, 8.0, letters=7.5, dpi=300),
    },
    "acl": {  # acl.sty: text 16 x 24.7 cm, columns 0.6 cm apart; half: one column
        "full": Sheet(16 * CM, 8.6, letters=7.5, dpi=300, table="table*"),
        "half": Sheet(7.7 * CM, 8.6, letters=7.5, dpi=300),
    },
    "slides": {  # beamer, aspectratio=169: 16 x 9 cm; the PNG has 1920 x 1080 points
        "full": Sheet(16 * CM, 9 * CM, fills=True, letters=8.5, dpi=1920 / (16 * CM)),
    },
}
_SHEET: ContextVar[Sheet] = ContextVar("sheet", default=PAGE)


def now() -> Sheet:
    """The sheet that is drawn on."""
    return _SHEET.get()


@contextmanager
def on(sheet: Sheet) -> Iterator[None]:
    """Draw on this sheet, with its letters."""
    import matplotlib

    token = _SHEET.set(sheet)
    try:
        with matplotlib.rc_context(sheet.rc):
            yield
    finally:
        _SHEET.reset(token)


def names(stem: str, figures: Sequence[Figure]) -> list[str]:
    """A file name for each sheet of a figure."""
    return [stem, *(f"{stem}-{i}" for i in range(2, len(figures) + 1))]


def save(figures: Sequence[Figure], stem: Path, formats: Sequence[str]) -> list[Path]:
    """One figure in every format, without dates, so that the same rows give the same bytes.

    Of several sheets the second is STEM-2, and so on.
    """
    dates: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    paths = []
    for name, figure in zip(names(stem.name, figures), figures, strict=True):
        for form in formats:
            paths.append(stem.with_name(f"{name}.{form}"))
            with outfile.whole(paths[-1]) as temp:
                figure.savefig(temp, format=form, metadata=dates.get(form))
    return paths


def write(
    name: str,
    table: pd.DataFrame,
    drawings: Iterator[tuple[str, Make]],
    folder: Path,
    formats: Sequence[str],
) -> list[Path]:
    """The numbers behind some figures as one CSV, unrounded, and each figure in every format."""
    paths = [folder / f"{name}.csv"]
    with outfile.whole(paths[0]) as temp:
        table.to_csv(temp, index=False)
    with on(now()):
        for stem, make in drawings:
            paths += save(make(), folder / stem, formats)
    return paths


def by_model(name: str, table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """File name and lines of each model's figure."""
    models = list(dict.fromkeys(table["model"]))
    stems = _own([f"{name}-{model}" if len(models) > 1 else name for model in models])
    for stem, model in zip(stems, models, strict=True):
        yield stem, table[table["model"] == model]


def by_task(name: str, table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """File name and lines of the figure of each model and task."""
    several = table["model"].nunique() > 1
    groups = list(table.groupby(["model", "task", "metric"], sort=False))
    parts = [[name, *([model] if several else []), style.short_task(task)] for (model, task, _), _ in groups]
    stems = _own(["_".join(part) for part in parts])
    yield from zip(stems, (group for _, group in groups), strict=True)


def _own(names: Sequence[str]) -> list[str]:
    """Names with models or tasks in them as names of files; of alike ones the second ends in -2."""
    tame = [re.sub(r"[^A-Za-z0-9._-]+", "_", name) for name in names]
    seen = [tame[:place].count(name) for place, name in enumerate(tame)]
    return [f"{name}-{count + 1}" if count else name for name, count in zip(tame, seen, strict=True)]
