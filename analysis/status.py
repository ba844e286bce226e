"""How far a sweep is: of this terminal's, or of one that runs elsewhere and shares the store's folder.

python -m analysis.status STUDY [--store results] [--watch]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from analysis import collect, command, style
from analysis.pace import Pace
from crunchmark.pulse import BEAT, Sign, signs

OUTCOMES = {
    **{"done": "green", "cached": "cyan", "begun": "", "failed": "bold red"},
    **{"skipped": "yellow", "unreachable": "yellow", "refused": "red"},
}
STEADY = 5.0  # seconds after which a cell between two stages waits for something
LONGEST = 5  # failures that are told
BAR = 30  # columns
WIDE = 110  # columns where there is no terminal


class Board:
    """The picture of a study: its sweeps, what else left a file, what is stored.

    own: this process's own sign, fresher than its file; the board is then of its sweep alone.
    """

    def __init__(self, store: str | Path, study: str, own: Callable[[], Sign] | None = None) -> None:
        self.store, self.study, self.own = Path(store), study, own
        self.pace = Pace(store, study)
        self.signs: list[Sign] = []
        self.damaged: list[Path] = []
        self._looked = 0.0

    def look(self, now: float) -> None:
        """Read the study's folder, but not more often than processes write to it."""
        if now - self._looked < BEAT:
            return
        self._looked = now
        found, self.damaged = signs(self.store / self.study)
        self.signs = list(found.values())
        self.pace.refresh()

    def at_work(self, now: float) -> bool:
        """Whether any process shows a sign of life."""
        return any(not sign.silent(now) for sign in self.signs)

    def draw(self, now: float) -> RenderableType:
        """All of it, as of now."""
        self.look(now)
        told, own = self.signs, self.own() if self.own else None
        if own:
            told = [own, *(s for s in told if s.sweep == own.sweep and s.pid != own.pid)]
        sweeps: dict[str, list[Sign]] = {}
        for sign in told:
            if not sign.silent(now):
                sweeps.setdefault(sign.sweep, []).append(sign)
        parts = [sweep(self.study, group, self.pace, now, alone=own is not None) for group in sweeps.values()]
        if own:
            return Group(*parts, *self._saved())
        parts += [silent(sign, now) for sign in told if sign.silent(now)]
        parts += [_line((f"{path} can not be read; delete it", "yellow")) for path in self.damaged]
        if not parts:
            parts = [_line(("nothing runs", "dim"))]
        return Group(self._stored(), *self._failures(), *parts)

    def _stored(self) -> Text:
        """How many cells are stored, and how they ended."""
        states = self.pace.states()
        cells = states.total()
        head = f"{plain(self.study)}: {cells or 'no'} cell{'s' * (cells != 1)} stored"
        return _line((head, "bold"), ": " if cells else "", *_counts(states), *self._saved_words())

    def _saved_words(self) -> list[str]:
        saved, dense, cells = self.pace.saved()
        if not cells:
            return []
        share, of = f"{saved / dense:.0%}", style.human_bytes(dense)
        return [f"  ·  {style.human_bytes(saved)} of {of} saved ({share})"]

    def _saved(self) -> list[Text]:
        words = self._saved_words()
        cells = self.pace.saved()[2]
        return [_line((f"  {words[0].strip(' ·')} in {cells} compressed cells", "dim"))] if words else []

    def _failures(self) -> Iterable[Text]:
        """The cells that failed, and why."""
        failed = [cell for cell in self.pace.cells if cell.state == "failed"]
        for cell in failed[:LONGEST]:
            yield _line(
                ("  failed ", "red"), f"{plain(cell.name)}: {plain(cell.reason) or 'no reason recorded'}"
            )
        if len(failed) > LONGEST:
            yield _line((f"  and {len(failed) - LONGEST} more", "dim"))


def sweep(study: str, group: Sequence[Sign], pace: Pace, now: float, alone: bool) -> RenderableType:
    """A sweep: how many of its cells are over and how they ended, when it may end, what each process does."""
    ended = sum((Counter(counts) for sign in group for counts in sign.ended.values()), Counter())
    total = sum(sum(sign.plan.values()) for sign in group)
    over, left = ended.total(), remaining(group, pace, now)
    head = Table.grid(padding=(0, 2))
    told = f"{over} of {total} cells" if total else f"{over} cells"
    full = BAR * min(over, total) // max(1, total)
    bar = [Text.assemble(("━" * full, "green"), ("─" * (BAR - full), "dim"))] if total else []
    head.add_row(Text(plain(study), "bold"), *bar, Text(told), Text(left, "dim"))
    lines = [_line("  ", *_counts(ended))] if ended else []
    return Group(
        head,
        *lines,
        *(_line("  ", *process(sign, pace, now, alone)) for sign in group if sign.kind or not alone),
    )


def process(sign: Sign, pace: Pace, now: float, alone: bool) -> list[str | tuple[str, str]]:
    """What one process does."""
    event, where = sign.event, [] if alone else [(f"  ({plain(sign.host)}, process {sign.pid})", "dim")]
    if not event.cell:
        return [("between cells" if sign.ended else "starting", "dim"), *where]
    parent = event.method == "dense" and event.kind != sign.kind
    name = f"{plain(event.kind)} {event.budget:.4g}" if event.method != "dense" else "dense"
    words: list[str | tuple[str, str]] = [
        (name, "bold"),
        f", the parent of {plain(sign.kind)}" if parent else "",
    ]
    spent = now - sign.stage_started
    if not event.stage:
        waits = "between stages, or waiting for another process" if spent > STEADY else "starting"
        return [*words, (f"  {waits}", "dim"), *where]
    words += ["  ", (plain(event.stage), "cyan")]
    words += [f"  {plain(event.unit)} {event.step} of {event.steps}"] if event.step else []
    usual = pace.stage(event.kind, event.stage)
    return [
        *words,
        (f"  {span(spent)}{f', usually {span(usual)}' if usual is not None else ''}", "dim"),
        *where,
    ]


def remaining(group: Sequence[Sign], pace: Pace, now: float) -> str:
    """When a sweep may end, by what such cells took in this study; says of how many nothing is known."""
    plan = sum((Counter(sign.plan) for sign in group), Counter())
    if not plan:
        return ""
    for sign in group:
        plan.subtract({kind: sum(counts.values()) for kind, counts in sign.ended.items()})
    took = {kind: pace.cell(kind) for kind, cells in plan.items() if cells > 0}
    unknown = sum(plan[kind] for kind, seconds in took.items() if seconds is None)
    left = sum(plan[kind] * seconds for kind, seconds in took.items() if seconds is not None)
    for sign in group:
        whole = took.get(sign.kind)
        left -= min(whole or 0.0, now - sign.cell_started) if sign.kind else 0.0
    left = max(0.0, left) / max(1, sum(1 for sign in group if sign.kind))
    if not took:
        return ""
    if unknown == sum(plan[kind] for kind in took):
        return "time left unknown: none measured yet"
    more = f" and {unknown} cell{'s' * (unknown > 1)} of unknown time" if unknown else ""
    return f"about {span(left)}{more} left"


def silent(sign: Sign, now: float) -> Text:
    """A process that shows no sign of life: since when, what is known of it, where it was, what to do."""
    at = datetime.fromtimestamp(sign.beat)
    clock = f"{at:%H:%M:%S}" if now - sign.beat < 86400 else f"{at:%Y-%m-%d %H:%M}"
    over = sum(sum(counts.values()) for counts in sign.ended.values())
    total = sum(sign.plan.values())
    where = (
        f" at {plain(sign.kind)} {sign.event.budget:.4g}, {plain(sign.event.stage) or 'between stages'}"
        if sign.kind
        else ""
    )
    fate = (
        f"the process is gone{where}; {over}{f' of {total}' if total else ''} cells were over; "
        "the same command goes on from there"
        if sign.gone
        else f"it may be stopped, or its machine{where}; it may also be busy with something long"
    )
    who = f"{plain(sign.host)}, process {sign.pid}"
    told = f"no sign of life since {clock} ({span(now - sign.beat)} ago): {fate}"
    return Text.assemble((f"{who}: ", "bold"), (told, "yellow"))


def span(seconds: float) -> str:
    """Whole seconds, minutes or hours."""
    return f"{max(0.0, seconds):.0f} s" if seconds < 119.5 else style.seconds(seconds)


def plain(text: str) -> str:
    """A name from a file, with nothing in it that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _counts(counts: Counter[str]) -> list[str | tuple[str, str]]:
    """`3 done  1 failed`, the usual first."""
    names = sorted(counts, key=lambda name: list(OUTCOMES).index(name) if name in OUTCOMES else len(OUTCOMES))
    words = [(f"{counts[name]} {plain(name)}", OUTCOMES.get(name, "")) for name in names if counts[name]]
    return [part for word in words for part in ("  ", word)][1:]


def _line(*parts: str | tuple[str, str]) -> Text:
    """One line that is cut where the terminal ends."""
    line = Text.assemble(*parts)
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Read the options and print how it stands."""
    options = _options().parse_args(argv)
    store, study = Path(options.store), options.study
    if not store.is_dir():
        raise collect.AnalysisError(
            f"store={options.store!r}: no such folder; run a sweep first or pass --store"
        )
    board, now = Board(store, study), time.time()
    board.look(now)
    if not board.pace.cells and not board.signs and not board.damaged:
        raise collect.AnalysisError(
            collect.missing("study", study, collect.Store(store).studies(), options.store)
        )
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    if options.watch and not console.is_terminal:
        raise collect.AnalysisError("--watch wants a terminal; valid: without it, as often as you like")
    if options.watch and board.at_work(now):
        watch(board, console)
    console.print(board.draw(time.time()))
    return []


def watch(board: Board, console: Console) -> None:
    """Draw the board again and again, until nothing is at work any more or Ctrl-C."""
    with Live(
        get_renderable=lambda: board.draw(time.time()), console=console, refresh_per_second=1, transient=True
    ):
        try:
            while board.at_work(time.time()):
                time.sleep(BEAT)
        except KeyboardInterrupt:
            return


def _options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description="How far a sweep is")
    options.add_argument("study", help="name of the study: a folder of the store")
    options.add_argument("--store", default="results", help="folder of studies (default: results)")
    options.add_argument("--watch", action="store_true", help="again and again, until nothing runs any more")
    return options


if __name__ == "__main__":
    sys.exit(command.run(main))
