"""What a sweep prints when it ends: one table for the terminal, and where the files are."""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from analysis import brief, collect, protocols, style, unscored
from analysis.tables import eval_seconds


class Shape(NamedTuple):
    """How much a terminal has room for."""

    errors: bool = True
    tight: bool = False  # no spaces inside a cell, no leading zeros
    folded: bool = False  # a line for each word of a heading, and errors below their values


_SHAPES = (
    Shape(),
    Shape(tight=True),
    Shape(tight=True, folded=True),
    Shape(errors=False, tight=True, folded=True),
)
COLOURS = {"match": "green", "fail": "red", "undecided": "yellow", "dense": "bold"}


def table(rows: Sequence[dict[str, Any]] | pd.DataFrame, width: int = 120) -> Group:
    """A row per cell, dense first, and the reasons of those without scores below.

    Errors stand below their values where the terminal is narrow, and are left out where that is too wide.
    """
    data = protocols.drop(rows if isinstance(rows, pd.DataFrame) else collect.frame(rows))
    bare = _unscored(data)
    for shape in _SHAPES:
        shown, notes = _table(data, shape, bare)
        if _width(shown) <= width:
            break
    left_out = []
    chosen = collect.select(data)
    tasks = [*dict.fromkeys(chosen["task"]), *bare]
    told = set(chosen.loc[chosen["state"].isin(["measured", "chance"]), "task"])  # no verdict hangs on these
    while _width(shown) > width and len(tasks) > 1:
        gone = next((task for task in reversed(tasks) if task in told), tasks[-1])
        tasks.remove(gone)
        left_out.append(style.short_task(gone))
        kept = data[data["task"].isin(["", *tasks])]
        shown, notes = _table(kept, _SHAPES[-1], [task for task in bare if task in tasks])
    more = [f"no room here for {', '.join(reversed(left_out))}"] if left_out else []
    lines = [*(f"{i} {text}" for text, i in notes.items()), *_told(data), *more]
    return Group(shown, *(Text(line, style="dim") for line in lines))


def _told(data: pd.DataFrame) -> list[str]:
    """What a reader must know of the rows that no cell shows."""
    told = protocols.lines(data, "aside")
    judged = data["metric"].str.startswith(
        "judge_"
    )  # a judge is beside the headline where a task has its own
    measured = data[(data["task"] != "") & (data["headline"] | judged)]
    return told + [f"flagged in {line}" for line in collect.flagged(measured)]


def _width(shown: Table) -> int:
    """Columns the table wants."""
    wide = Console(width=1000)
    return wide.measure(shown).maximum


def _table(data: pd.DataFrame, shape: Shape, bare: Sequence[str]) -> tuple[Table, dict[str, int]]:
    """The table in one of its shapes, and its notes; bare tasks have no scores to show."""
    chosen = collect.select(data)
    tasks = list(dict.fromkeys(zip(chosen["task"], chosen["metric"], strict=True)))
    tasks += [(task, "") for task in bare]
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0 if shape.tight else 1), pad_edge=False)
    names, many = style.short_tasks(task for task, _ in tasks), data["model"].nunique() > 1
    for name in [*(["model"] if many else []), "method"]:
        shown.add_column(name, no_wrap=True)
    for name in ("removed", "on disk", *(names[task] for task, _ in tasks), "time"):
        heading = style.printable(name)
        heading = heading.replace("_", "\n").replace(" ", "\n") if shape.folded else heading
        shown.add_column(Text(heading), justify="right", no_wrap=True)
    scores = dict(iter(chosen.groupby("cell", sort=False)))
    data = data.assign(label=_with_draws(data).map(style.printable))
    notes: dict[str, int] = {}
    for cell, group in data.groupby("cell", sort=False):
        head = [Text(style.printable(group["model"].iloc[0]))] if many else []
        if cell not in scores:
            shown.add_row(*head, *_gone(group.iloc[-1], len(tasks), notes))
            continue
        lost = group[group["state"].isin(style.GONE)]
        gaps = {task: _gap(lost, task, notes) for task, _ in tasks if task not in set(scores[cell]["task"])}
        shown.add_row(*head, *_cell(group, scores[cell], tasks, shape, gaps))
    return shown, notes


def _unscored(data: pd.DataFrame) -> list[str]:
    """Tasks that no cell has a score of, and that failed in a cell with other scores."""
    chosen = collect.select(data)
    lost = data[data["state"].isin(style.GONE) & data["cell"].isin(chosen["cell"])]
    told = dict.fromkeys(task for row in lost.itertuples() for task in unscored.reasons(row))
    return [task for task in told if task not in set(chosen["task"])]


def _with_draws(data: pd.DataFrame) -> pd.Series:
    """The label, and which calibration draw it is where a setting has several."""
    draws = data.groupby(["model", "label", "budget"])["calib_seed"].transform("nunique")
    return data["label"].where(draws < 2, data["label"] + " #" + data["calib_seed"].astype(str))


def _gone(row: Any, tasks: int, notes: dict[str, int]) -> list[Text]:
    """A cell without scores: its state, and a number that leads to the reason below the table."""
    whole = unscored.why(row).removeprefix(f"{row['state']}: ")
    end = _numbered(row["state"], unscored.reasons(row).values() or [whole], notes)
    texts = [row["label"], _share(row["budget"]), end, *["—"] * tasks, ""]
    return [Text(text, style="dim") for text in texts]


def _gap(lost: pd.DataFrame, task: str, notes: dict[str, int]) -> Text:
    """A task without a score in a cell that has others; blank where it was not asked."""
    if lost.empty:
        return Text("")
    row = lost.iloc[-1]
    reason = unscored.reason_of(row, task).removeprefix(f"{row['state']}: ")
    return Text(_numbered(row["state"], [reason], notes) if reason else "", style="dim")


def _numbered(state: str, reasons: Iterable[str], notes: dict[str, int]) -> str:
    """A state with the numbers of its reasons."""
    numbers = [str(notes.setdefault(reason, len(notes) + 1)) for reason in dict.fromkeys(reasons)]
    return f"{state} {','.join(numbers)}"


def _share(share: float) -> str:
    """A share in as few characters as it needs: 30, 29.8."""
    return f"{100 * share:.1f}".removesuffix(".0")


def _cell(
    group: pd.DataFrame,
    scores: pd.DataFrame,
    tasks: list[tuple[str, str]],
    shape: Shape,
    gaps: Mapping[str, Text],
) -> list[Text]:
    """A cell with scores."""
    first = group.iloc[0]
    dense = first["state"] == "dense"
    removed = f"→{_share(first['achieved_bytes'])}" if style.known(first["achieved_bytes"]) else ""
    share = "–" if dense else f"{_share(first['budget'])}{removed}%"
    size = style.human_bytes(first["file_bytes"]) + ("*" if group["simulated"].any() else "")
    size = size.replace(" ", "") if shape.tight else size
    rows = {(r.task, r.metric): r for r in scores.itertuples()}
    texts = [_score(rows[key], shape) if key in rows else gaps.get(key[0], Text()) for key in tasks]
    spent = pd.Series([first["compress_seconds"], eval_seconds(group)]).sum(min_count=1)
    emphasis = "bold" if dense else ""
    head = [Text(first["label"], style=emphasis), Text(share), Text(size)]
    return [*head, *texts, Text(style.seconds(spent))]


def _score(row: Any, shape: Shape) -> Text:
    """`0.873 ±.017 ✓`, coloured by state."""
    value, error = style.number(row.value), style.error(row.stderr) if shape.errors else ""
    error = f"±{error.removeprefix('0') if error.startswith('0.') else error}" if error else ""
    mark, look = style.MARKS.get(row.state, " "), COLOURS.get(row.state, "")
    if not shape.tight:
        return Text(f"{value}{' ' * bool(error)}{error} {mark}", style=look)
    value = value.removeprefix("0") if value.startswith("0.") else value
    if not shape.folded:
        return Text(f"{value}{error}{mark}", style=look)
    return Text.assemble((f"{value}{mark}", look), (f"\n{error} ", "dim") if error else "")


def show(
    study: str, store_root: str | Path = "results", console: Console | None = None, quiet: bool = False
) -> None:
    """Print the table of a study, write its tables and figures, and say where they are.

    quiet: only what went wrong is printed.
    """
    console = console or Console()
    told = Console(quiet=True) if quiet else console
    try:
        data = protocols.drop(collect.load(study, store_root))
    except (collect.AnalysisError, OSError) as problem:
        console.print(f"no table: {problem}", style="yellow", markup=False, highlight=False)
        return
    told.print()
    if brief.large(data):
        told.print(brief.table(data, told.width))
    else:
        told.print(table(data, told.width))
        told.print(
            "✓ match (5 % of dense)  ✗ fail  ? undecided  ~ at chance  · told  * simulated",
            style="dim",
        )
    _files(data, Path(store_root) / study, console, told)


def _files(data: pd.DataFrame, folder: Path, console: Console, told: Console) -> None:
    """Write tables and figures; what cannot be written is said, not raised."""
    from analysis import pareto, tables

    works: list[tuple[str, Any]] = [
        ("table", lambda: tables.write(data, folder / "tables")[:1]),
        ("plot", lambda: _pictures(pareto.write(data, folder / "figures", ("png",)))),
    ]
    for name, work in works:
        try:
            paths = work()
        except (collect.AnalysisError, OSError) as problem:
            console.print(f"{name}: not written: {problem}", style="yellow", markup=False, highlight=False)
            continue
        for path in paths:
            told.print(f"{name:<6}{path}", soft_wrap=True, markup=False, highlight=False)


def _pictures(paths: list[Path]) -> list[Path]:
    """Without the numbers behind them."""
    return [path for path in paths if path.suffix == ".png"]


class Finish:
    """A Hydra callback that shows the study when the sweep, or the single run, has ended.

    Hydra's sweeper raises on a failed cell and then leaves out `on_multirun_end`; so the table
    is also promised to `atexit`, and printed there if it was not printed before.
    """

    def __init__(self) -> None:
        self._ran = self._shown = False
        self._cells = 0  # jobs, but for those whose config was no cell

    def on_run_start(self, config: Any, **_: Any) -> None:
        """Nothing to do: a sweep that can not be composed has nothing to show."""

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        """Nothing to do."""

    def on_job_start(self, config: Any, **_: Any) -> None:
        """Promise the table."""
        self._cells += 1
        self._promise(config)

    def on_job_end(self, config: Any, job_return: Any = None, **_: Any) -> None:
        """A job that returns false says that its config was no cell."""
        if getattr(job_return, "_return_value", None) is False:  # the property raises what a job raised
            self._cells -= 1

    def on_compose_config(self, config: Any, **_: Any) -> None:
        """Nothing to do (only Hydra 1.4 calls it)."""

    def on_run_end(self, config: Any, **_: Any) -> None:
        """Show what one run left."""
        self._show(config)

    def on_multirun_end(self, config: Any, **_: Any) -> None:
        """Show what the sweep left."""
        self._show(config)

    def _promise(self, config: Any) -> None:
        """Print at the exit of the process what was not printed before."""
        if not self._ran:
            self._ran = True
            atexit.register(self._show, config)

    def _show(self, config: Any) -> None:
        """Show the study, once; nothing where no cell ran or was stored: what went wrong has been said."""
        study, store = str(config.study), str(config.store)
        if self._cells and not self._shown and (Path(store) / study).is_dir():
            self._shown = True
            show(study, store, quiet=getattr(config, "progress", "") == "quiet")
