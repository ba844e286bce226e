"""Which cells fit in so many bytes and keep the tasks that matter, best first, and where their files are.

python -m analysis.choose STUDY --max-bytes 4.5GB --keep task=0.95 [--keep other=0.9] [--model NAME]

Exit code 0: a cell fits and keeps them; 1: none does; 2: a mistake of the caller's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis import amounts, command, rerun, style
from analysis.candidates import Cell, cells, ratio
from analysis.collect import AnalysisError
from crunchmark.store import Store

MANIFEST = "manifest.json"  # of an artifact that is whole
LOOKS = {"kept": "green", "undecided": "yellow", "lost": "red"}


def artifact(cell: Cell, cache: Path) -> Path | None:
    """The folder of its packed model, if it is still there."""
    told = cell.row.get("artifact")
    if not style.known(told):
        return None
    places = (Path(str(told)), cache / "artifacts" / Path(str(told)).name)
    return next((place for place in places if (place / MANIFEST).is_file()), None)


def taken(cell: Cell, data: pd.DataFrame, cache: Path) -> str:
    """How to get it: the path, or the command that makes it."""
    place = artifact(cell, cache)
    if place is not None:
        return style.printable(place)
    key = cell.row["cell"]
    line = rerun.command(cell.row, rerun.asked(data[data["cell"] == key]).get(key, {}))
    return style.printable(line) or "its record does not say how it was made"


def main(argv: Sequence[str] | None = None) -> command.Answer:
    """Read the options, print what fits and keeps, say whether any does."""
    given = _options().parse_args(argv)
    if given.top < 1:
        raise AnalysisError(f"--top={given.top}: valid is 1 or more")
    limit = amounts.size(given.max_bytes, "max-bytes")
    shares = [amounts.share(part, "keep") for text in given.keep for part in text.split(",")]
    data = of_model(command.read(given), given.model)
    keep = named(data, shares)
    store = None if given.source else Store(given.store)
    found = cells(data, keep, store, given.study)
    if not found:
        raise AnalysisError(f"study={given.study!r}: no cell has a size and a score on {', '.join(keep)}")
    console = Console(width=None if sys.stdout.isatty() else 160)
    good = _show(found, keep, limit, console, given, data)
    return command.Answer([], 0 if good else 1)


def _options() -> argparse.ArgumentParser:
    options = command.parser(
        "Which cells fit in so many bytes and keep the tasks that matter, best first.", False
    )
    options.epilog = "Exit code 0: one fits and keeps them; 1: none does; 2: a wrong option."
    options.add_argument("--max-bytes", required=True, help=f"of the file on disk, as 4.5GB: {amounts.VALID}")
    options.add_argument(
        "--keep",
        action="append",
        required=True,
        help="task=0.95: the share of dense's score to keep, or perplexity within 5 %% of it; again for more "
        "tasks; all=0.95: every task that was judged",
    )
    options.add_argument("--model", default="", help="which model, where a study has several")
    options.add_argument("--top", type=int, default=5, help="cells to show (default: 5)")
    options.add_argument(
        "--cache", default=".cache/crunchmark", help="cache.dir (default: .cache/crunchmark)"
    )
    return options


def of_model(data: pd.DataFrame, model: str) -> pd.DataFrame:
    """The rows of one model: shares of different dense models are not to be ordered."""
    models = [style.printable(name) for name in dict.fromkeys(data["model"])]
    if model and model not in models:
        raise AnalysisError(f"--model={model!r}: not in this study; valid: {', '.join(models)}")
    if not model and len(models) > 1:
        raise AnalysisError(f"--model: the study has several, name one: {', '.join(models)}")
    return data[data["model"].map(style.printable) == model] if model else data


def named(data: pd.DataFrame, shares: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Shares by the names that tasks have in the study; `all` stands for the judged ones not named."""
    scored = data[(data["task"] != "") & data["headline"]]
    there = list(dict.fromkeys(scored["task"]))
    every: dict[str, float] = {}
    out: dict[str, float] = {}
    for name, share in shares:
        alike = [task for task in there if name in (task, style.short_task(task))]
        if name == "all":
            alike = list(dict.fromkeys(scored.loc[scored["state"].isin(style.JUDGED), "task"]))
        elif name in there:
            alike = [name]
        if not alike or (len(alike) > 1 and name != "all"):
            what = "several tasks are called so" if alike else "not in this study"
            what = "no task of this study was judged" if name == "all" else what
            valid = ", ".join(map(style.printable, ["all", *there]))
            raise AnalysisError(f"--keep={name!r}: {what}; valid: {valid}")
        own = every if name == "all" else out
        if own.keys() & alike:
            raise AnalysisError(f"--keep={name!r}: named twice, with {own[alike[0]]:g} and {share:g}")
        own |= dict.fromkeys(alike, share)
    return every | out


def _show(
    found: Sequence[Cell],
    keep: Mapping[str, float],
    limit: float,
    console: Console,
    given: argparse.Namespace,
    data: pd.DataFrame,
) -> bool:
    """Print the answer; whether there is one."""
    fits = [cell for cell in found if cell.file_bytes <= limit]
    counts = {status: [c for c in fits if c.status == status] for status in LOOKS}
    told = ", ".join(f"{len(own)} {status}" for status, own in counts.items())
    console.print(Text(f"{len(fits)} of {len(found)} cells fit in {style.human_bytes(limit)}: {told}"))
    shown = (counts["kept"] + counts["undecided"])[: given.top] if counts["kept"] else []
    if shown:
        _print(shown, keep, console)
    else:
        shown = _nearest(found, fits, keep, limit, console)
    for cell in shown:
        line = Text.assemble(
            (style.printable(f"{cell.name}{cell.draw}: "), "bold"), taken(cell, data, Path(given.cache))
        )
        console.print(line, soft_wrap=True)
    if counts["undecided"]:
        many = (
            "one cell that fits is"
            if len(counts["undecided"]) == 1
            else f"{len(counts['undecided'])} that fit are"
        )
        console.print(
            Text(
                f"{many} undecided: python -m analysis.plan {given.study} says how many items would tell",
                "dim",
            )
        )
    return bool(counts["kept"])


def _nearest(
    found: Sequence[Cell], fits: Sequence[Cell], keep: Mapping[str, float], limit: float, console: Console
) -> list[Cell]:
    """Where nothing fits and keeps: the smallest that keeps, and the best that fits."""
    tasks = ", ".join(f"{style.short_task(task)} at {share:g}" for task, share in keep.items())
    console.print(
        Text(style.printable(f"nothing that fits in {style.human_bytes(limit)} keeps {tasks}"), "bold red")
    )
    small = min((c for c in found if c.status == "kept"), key=lambda c: c.file_bytes, default=None)
    near = fits[0] if fits else min(found, key=lambda c: c.file_bytes)
    pairs = [("smallest that keeps", small), ("best that fits" if fits else "smallest of all", near)]
    pairs = [("smallest, and keeps", near)] if small is near else pairs
    shown = [cell for _, cell in pairs if cell is not None]
    _print(shown, keep, console, [name for name, cell in pairs if cell is not None])
    return shown


def _print(
    shown: Sequence[Cell], keep: Mapping[str, float], console: Console, what: Sequence[str] = ()
) -> None:
    """A table of cells; without the bounds of the scores where there is no room for them."""
    table = _table(shown, keep, what, bounds=True)
    if Console(width=1000).measure(table).maximum > console.width:
        table = _table(shown, keep, what, bounds=False)
    console.print(table)


def _table(shown: Sequence[Cell], keep: Mapping[str, float], what: Sequence[str], bounds: bool) -> Table:
    """A line per cell."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    names = style.short_tasks(keep)
    for name in (*([""] if what else []), "cell", "on disk"):
        table.add_column(name, justify="right" if name == "on disk" else "left", overflow="fold")
    for task, share in keep.items():
        higher = shown[0].scores[task].higher_is_better
        bar = f"≥ {100 * share:g} %" if higher else f"≤ {100 * (2 - share):g} %"
        table.add_column(Text(style.printable(f"{names[task]} {bar}")), justify="right")
    table.add_column("")
    for i, cell in enumerate(shown):
        scores = [_score(cell.scores[task], bounds) for task in keep]
        head = [Text(what[i])] if what else []
        size, look = style.human_bytes(cell.file_bytes), LOOKS[cell.status]
        table.add_row(*head, Text(style.printable(cell.name)), size, *scores, Text(cell.said, look))
    return table


def _score(score: Any, bounds: bool) -> Text:
    """A value, what it is of dense, and between which bounds."""
    value = style.number(score.value)
    if score.state == "dense" or not style.known(ratio(score)):
        return Text(value)
    text = f"{value} = {100 * ratio(score):.1f} %"
    if bounds and style.known(score.low) and style.known(score.high):
        low, high = (100 * (1 + end / score.dense) for end in (score.low, score.high))
        text += f" [{low:.1f}, {high:.1f}]"
    return Text(f"{text} {style.MARKS.get(score.state, '')}")


if __name__ == "__main__":
    sys.exit(command.run(main))
