"""Figures and tables for a paper or a talk: PDF, PNG, and the numbers behind each as CSV.

python -m analysis.figures STUDY [style=neurips|acl|slides|page] [width=full|half] [--task ...] [--out DIR]
python -m analysis.figures FOLDER       # every picture in it again, from the CSV beside it
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from analysis import (
    collect,
    command,
    compensation,
    curves,
    kick,
    kick_data,
    kinds,
    pareto,
    rooms,
    sheet,
    tables,
    variants,
)
from crunchmark.store import Store

Drawings = Iterator[tuple[str, sheet.Make]]

DRAWN: dict[str, Callable[[pd.DataFrame], Drawings]] = {  # name of a CSV -> the figures that show it
    "pareto": pareto.drawings,
    "pareto-nominal": partial(pareto.drawings, name="pareto-nominal"),
    "curves": curves.drawings,
    "kinds": kinds.drawings,
    "variants": variants.drawings,
    "compensation": compensation.drawings,
    "rooms": rooms.drawings,
}
TEXTS = (
    *("model", "label", "method", "task", "metric", "state", "unit", "kind", "variant", "repair", "level"),
    *("role", "layer", "series", "panel", "axis", "setting", "group", "accounting", "question", "answer"),
    *("target", "cells", "tested", "undecided"),
)


def settings(words: Sequence[str]) -> tuple[str, sheet.Sheet]:
    """The sheet that `style=` and `width=` name, and a name for it.

    Raises:
        AnalysisError: another word, or a value that is not valid; the message says what is.
    """
    asked = {"style": "page", "width": "full"}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in asked:
            raise collect.AnalysisError(f"{word!r}: valid: style={'|'.join(sheet.SHEETS)}, width=full|half")
        asked[name] = value
    style, width = asked["style"], asked["width"]
    if style not in sheet.SHEETS:
        raise collect.AnalysisError(f"style={style!r}: valid: {', '.join(sheet.SHEETS)}")
    if width not in sheet.SHEETS[style]:
        raise collect.AnalysisError(
            f"width={width!r}: valid with style={style}: {', '.join(sheet.SHEETS[style])}"
        )
    return style if width == "full" else f"{style}-{width}", sheet.SHEETS[style][width]


def of_study(
    chosen: argparse.Namespace, folder: Path, formats: Sequence[str], tasks: Sequence[str]
) -> Iterator[Path]:
    """Every figure that the study has the ingredients of, and its tables as LaTeX; what it lacks is said.

    Raises:
        AnalysisError: at the end, when there was nothing to draw.
    """
    data = command.read(chosen)
    yield from tables.write(data, folder, ("tex",), tasks=tasks, environment=sheet.now().table)
    drawn: list[str] = []
    for name, work in _works(data, chosen, tasks).items():
        try:
            table = work()
            paths = sheet.write(name, table, DRAWN[name](table), folder, formats)
        except collect.AnalysisError as lost:
            say(f"{name}: left out: {lost}")
            continue
        drawn.append(name)
        yield from paths
    try:
        if chosen.source or tasks:
            raise collect.AnalysisError("they take a whole study of the store (no --from, no --task)")
        study = kick_data.study(chosen.study, chosen.store, data)
        paths = kick.figures(study, folder, formats, say, besides=drawn)
        drawn += [path.stem for path in paths]
        yield from paths
    except collect.AnalysisError as lost:
        say(f"figures of LLM-KICK: left out: {lost}")
    if not drawn:
        raise collect.AnalysisError(f"study={chosen.study!r}: nothing to draw")


def _works(
    data: pd.DataFrame, chosen: argparse.Namespace, tasks: Sequence[str]
) -> dict[str, Callable[[], pd.DataFrame]]:
    """What of the study each CSV holds."""

    def plans() -> pd.DataFrame:
        if chosen.source:
            raise collect.AnalysisError("--from: plans are in the store only")
        return rooms.shares(data, Store(Path(chosen.store)))

    return {
        "pareto": lambda: pareto.table(data, "bytes", tasks),
        "curves": lambda: curves.table(pareto.chosen_points(data, tasks)),
        "kinds": lambda: kinds.sorted_out(data, "bytes", tasks),
        "variants": lambda: variants.table(data, "bytes", tasks),
        "compensation": lambda: compensation.gains(data, tasks),
        "rooms": plans,
    }


def again(folder: Path, out: Path | None, formats: Sequence[str]) -> Iterator[Path]:
    """Draw every picture in a folder from the CSV beside it; elsewhere (`out`) in these formats.

    Raises:
        AnalysisError: a CSV that cannot be drawn; when the others are drawn, pictures without one.
    """
    pictures = sorted(p for p in folder.rglob("*") if p.suffix.removeprefix(".") in sheet.FORMATS)
    if not pictures:
        raise collect.AnalysisError(f"{folder}: neither a study of the store nor a folder with pictures")
    left = set(pictures)
    for place in dict.fromkeys(path.parent for path in pictures):
        to = place if out is None else out / place.relative_to(folder)
        for table, stem, make in held(place):
            there = [form for form in sheet.FORMATS if place / f"{stem}.{form}" in left]
            if not there:
                continue
            try:
                figures = make()
            except collect.AnalysisError as lost:
                raise collect.AnalysisError(f"{table}: {lost}") from None
            except (KeyError, TypeError, ValueError) as lost:
                raise collect.AnalysisError(
                    f"{table}: not what {stem} is drawn from ({' '.join(str(lost).split())})"
                ) from None
            yield from sheet.save(figures, to / stem, there if out is None else formats)
            left -= {place / f"{name}.{form}" for form in there for name in sheet.names(stem, figures)}
    if left:
        lost = ", ".join(str(path) for path in sorted(left))
        raise collect.AnalysisError(f"{lost}: not drawn: no CSV of that figure beside it")


def held(place: Path) -> Iterator[tuple[Path, str, sheet.Make]]:
    """What the CSVs of a folder hold: where, a figure's name, and what draws it."""
    names = [name for name in (*DRAWN, *kick.FIGURES) if (place / f"{name}.csv").is_file()]
    found = {name: read(place / f"{name}.csv") for name in names}
    told = [table for table in found.values() if "series" in table]
    series = pd.concat([table.reindex(columns=["series", "state"]) for table in told]) if told else None
    looks = {} if series is None else kick.looks_of(kick_data.small(series))
    for name, table in found.items():
        try:
            made = DRAWN[name](table) if name in DRAWN else kick.drawings(name, table, looks)
            yield from ((place / f"{name}.csv", stem, make) for stem, make in made)
        except KeyError as lost:
            raise collect.AnalysisError(f"{place / name}.csv: no column {lost}") from None


def read(path: Path) -> pd.DataFrame:
    """The numbers behind a figure, as they were written."""
    try:
        table = pd.read_csv(
            path,
            dtype=dict.fromkeys(TEXTS, str),
            keep_default_na=False,
            na_values=[""],
        )
    except (ValueError, pd.errors.ParserError) as problem:
        raise collect.AnalysisError(f"{path}: not a table ({' '.join(str(problem).split())})") from None
    told = [name for name in TEXTS if name in table]
    return table.assign(**{name: table[name].fillna("") for name in told})


def main(argv: Sequence[str] | None = None) -> Iterator[Path]:
    """Read the options and draw."""
    options = command.parser("Figures and tables for a paper or a talk")
    options.add_argument(
        "settings", nargs="*", help="style=neurips|acl|slides|page (default: page), width=full|half"
    )
    options.add_argument("--task", default="", help="tasks (default: all)")
    options.add_argument("--format", default="pdf,png", help="png, pdf, svg (default: pdf,png)")
    chosen = options.parse_intermixed_args(argv)
    name, on = settings(chosen.settings)
    formats = command.listed(chosen.format, "format", sheet.FORMATS)
    here, study = Path(chosen.study), Path(chosen.store) / chosen.study
    with sheet.on(on):
        if here.is_dir() and not chosen.source and not (here.name == chosen.study and study.is_dir()):
            yield from again(here, Path(chosen.out) if chosen.out else None, formats)
        else:
            folder = Path(chosen.out or study / "figures" / (name if on.width else ""))
            yield from of_study(chosen, folder, formats, command.listed(chosen.task))


def say(line: str) -> None:
    """Tell what was left out."""
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(command.run(main))
