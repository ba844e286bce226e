"""The page behind `python run.py --help`, made from the files under conf/: no list of options is kept here.

python -m analysis.usage
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from analysis.notes import Note, Option, defaults, groups, knobs

CONF = Path(__file__).resolve().parents[1] / "conf"
WIDEST = 100  # columns; longer lines are hard to read
EXAMPLES = (
    ("-m method=svd,slicegpt budget=0.3", "two cells, a table, a plot"),
    ("method=gptq budget=0.7 method.group=64", "one knob set by hand"),
    ("-m method=wanda budget=0.5 seed=0,1,2", "three calibration draws"),
    ("method=svd_llm model.path=FOLDER task=[arc_easy,piqa]", "your model, lm-eval's tasks"),
    ("-m method=wanda budget=0.5 accounting=nominal study=paper", "as papers count"),
)
EXITS = (
    ("0", "every cell has its rows; `skipped` and `unreachable` are answers too"),
    ("1", "a cell failed; the others ran"),
    ("2", "the command names something that is not valid; nothing ran"),
    ("130", "stopped with Ctrl-C; the same command goes on from there"),
)
STAGES = ("method", "allocate", "compensate")  # every entry has knobs of its own
FLAGS = (
    ("-m", "a grid: every comma-separated list becomes an axis"),
    ("--cfg job", "print the composed config and stop"),
    ("--hydra-help", "Hydra's own flags (launchers, completion)"),
    ("-h, --help", "this page"),
)


def text(conf: Path = CONF) -> RenderableType:
    """The whole page.

    Args:
        conf: The folder with config.yaml and a folder for each group.
    """
    config = Note.of(conf / "config.yaml")
    found = groups(conf)
    parts: list[RenderableType] = [
        Text.assemble(("python run.py [-m] [GROUP=ENTRY ...] [OPTION=VALUE ...]", "bold")),
        Text("Compress a language model, measure it, and store the rows."),
        _title("Flags"),
        _lines(FLAGS),
        _title("Options, with their defaults"),
        _options(_top(config)),
    ]
    chosen = defaults(config) | {g: Option(g, "none", "") for g in found if g not in defaults(config)}
    for group in (g for g in chosen if g in found):
        parts += _group(group, found[group], chosen[group])
    parts += [_title("Examples"), *_examples(), _title("Results"), _lines(_places(config))]
    parts += [_title("Exit code"), _lines(EXITS)]
    return Group(*parts)


def _title(name: str) -> Text:
    """A heading with an empty line above."""
    return Text(f"\n{name}", style="bold cyan")


def _lines(rows: Iterable[tuple[str, str]]) -> RenderableType:
    """Names at the left, their meaning beside them."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(min_width=14, no_wrap=True)
    grid.add_column(overflow="fold")
    for name, meaning in rows:
        grid.add_row(Text(name, style="green"), Text(meaning))
    return Padding(grid, (0, 0, 0, 2))


def _options(options: Sequence[Option]) -> RenderableType:
    """One line for each: name=default and what it means."""
    return _lines((f"{o.name}={_short(o.default)}", o.remark) for o in options)


def _short(value: str) -> str:
    """A default that is looked up elsewhere is named by the last part of where."""
    return f"<{value.strip('${}').rpartition('.')[2]}>" if value.startswith("${") else value


def _top(config: Note) -> list[Option]:
    """config.yaml's own keys; what Hydra is told is one line."""
    own = [o for o in config.options if not o.name.startswith(("defaults", "hydra."))]
    return [*own, Option("hydra", "...", "where Hydra works; hydra/launcher=... runs cells elsewhere")]


def _group(name: str, entries: dict[str, Path], chosen: Option) -> list[RenderableType]:
    """A group: its entries, and what can be set of them."""
    notes = {entry: Note.of(path) for entry, path in entries.items()}
    title = Text.assemble(_title(f"{name}="), (f"   default {chosen.default}", "dim"))
    if chosen.remark:
        title.append(f"; {chosen.remark}", style="dim")
    parts: list[RenderableType] = [title]
    if name == "task":
        parts.append(Text("  Also any lm-eval task name, or several in one cell: task=[arc_easy,piqa]"))
        return [*parts, _lines((entry, _first(note, entries[entry])) for entry, note in notes.items())]
    rows = [(entry, _first(note, entries[entry])) for entry, note in notes.items()]
    if name in STAGES:
        rows = [(entry, f"{line}\n{_knobs(notes[entry], name)}".strip()) for entry, line in rows]
        return [*parts, _lines(rows)]
    own = knobs(notes[chosen.default].options, name) if chosen.default in notes else []
    options = [Option(f"{name}.{o.name}", o.default, o.remark) for o in own]
    return [*parts, _lines(rows), *([_options(options)] if options else [])]


def _knobs(note: Note, group: str) -> str:
    """The knobs of an entry in one line."""
    return "  ".join(f"{o.name}={o.default}" for o in knobs(note.options, group))


def _first(note: Note, path: Path) -> str:
    """The first comment of a yaml; a task without one is described by lm-eval's yaml of that name."""
    if note.header:
        return note.header[0]
    folder = next((o.default for o in note.options if o.name.endswith(".include")), "")
    there = path.parents[2] / folder / path.name
    header = Note.of(there).header if folder and there.is_file() else []
    return header[0] if header else ""


def _examples() -> list[RenderableType]:
    """Commands, each with what it is good for on the line above."""
    return [
        Text.assemble((f"  # {why}\n", "dim"), (f"  python run.py {args}", "green")) for args, why in EXAMPLES
    ]


def _places(config: Note) -> list[tuple[str, str]]:
    """Where a run leaves what, by the defaults of config.yaml."""
    values = {o.name: o.default for o in config.options}
    study = f"{values['store']}/{values['study']}"
    return [
        ("rows", f"{study}/<cell>/  (store=, study=)"),
        ("table, plots", f"{study}/tables/, {study}/figures/"),
        ("models", f"{values['cache.dir']}/artifacts/<cell>/  (crunchmark.load)"),
    ]


def main() -> int:
    """Print the page, as wide as the terminal but never wider than is good to read."""
    console = Console(highlight=False)
    console.width = min(console.width, WIDEST)
    console.print(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
