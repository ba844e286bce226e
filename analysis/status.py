"""How far a sweep is: of this terminal's, or of one that runs elsewhere and shares the store's folder.

python -m analysis.status STUDY [--store results] [--watch]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from analysis import collect, command, style
from analysis.pace import Pace
from crunchmark.pulse import BEAT, Sign, signs

Part = str | tuple[str, str]  # text, or text and its style
OUTCOMES = {
    **{"done": "green", "cached": "cyan", "begun": "", "failed": "bold red"},
    **{"skipped": "yellow", "unreachable": "yellow", "refused": "red"},
}
STEADY = 5.0  # seconds after which a cell between two stages waits for something
LONGEST = 5  # failures that are told
PART = 50  # one part of the time, at most, for reading
BAR, STEPS = 30, 12  # columns of bars
DAY = 86400.0  # seconds
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
        self._next = 0.0

    def look(self, now: float) -> None:
        """Read the study's folder: not more often than processes write, nor all the time where it is huge."""
        if now < self._next:
            return
        start = time.perf_counter()
        found, self.damaged = signs(self.store / self.study)
        self.signs = list(found.values())
        self.pace.refresh()
        self._next = now + max(BEAT, PART * (time.perf_counter() - start))

    def at_work(self, now: float) -> bool:
        """Whether any process shows a sign of life."""
        return any(not sign.silent(now) for sign in self.signs)

    def draw(self, now: float) -> RenderableType:
        """All of it, as of now."""
        self.look(now)
        if own := self.own and self.own():
            alike = [sign for sign in self.signs if sign.sweep == own.sweep and sign.name != own.name]
            saved = self._saved()
            lines = [*sweep(style.printable(self.study), [own, *alike], self.pace, now, bool(alike))]
            return Group(*lines, *([_line("  ", *saved, " in what is stored")] if saved else []))
        sweeps: dict[str, list[Sign]] = {}
        for sign in self.signs:
            if not sign.silent(now):
                sweeps.setdefault(sign.sweep, []).append(sign)
        parts: list[RenderableType] = [
            line for group in sweeps.values() for line in sweep("sweep", group, self.pace, now, True)
        ]
        parts += [line for sign in self.signs if sign.silent(now) for line in silent(sign, now)]
        lost = [*self.pace.damaged, *self.damaged]
        parts += [Text(f"{path} can not be read; delete it", "yellow") for path in lost]
        return Group(self._stored(), *self._failures(), *(parts or [Text("nothing runs", "dim")]))

    def _stored(self) -> Text:
        """How many cells are stored, how they ended, and what they saved."""
        states, saved = self.pace.states(), self._saved()
        cells = states.total()
        head = f"{style.printable(self.study)}: {cells or 'no'} cell{'s' * (cells != 1)} stored"
        told = ["  ", *_counts(states)] if cells else []
        return _line((head, "bold"), *told, *(["  ·  ", *saved] if saved else []))

    def _saved(self) -> list[Part]:
        saved, dense = self.pace.saved()
        if not dense:
            return []
        return [f"{style.human_bytes(saved)} of {style.human_bytes(dense)} saved ({saved / dense:.0%})"]

    def _failures(self) -> Iterator[Text]:
        """The cells that failed, and why."""
        failed = [cell for cell in self.pace.cells if cell.state == "failed"]
        for cell in failed[:LONGEST]:
            yield _line(
                ("  failed ", "red"),
                f"{style.printable(cell.name)}: {style.printable(cell.reason) or 'no reason recorded'}",
            )
        if len(failed) > LONGEST:
            yield _line((f"  and {len(failed) - LONGEST} more", "dim"))


def sweep(name: str, group: Sequence[Sign], pace: Pace, now: float, where: bool) -> Iterator[Text]:
    """A sweep: how many of its cells are over, how they ended, when the rest may, what each process does."""
    ended = sum((Counter(counts) for sign in group for counts in sign.ended.values()), Counter())
    total = sum(sum(sign.plan.values()) for sign in group)
    bar = ["  ", *_bar(ended.total(), total, BAR)] if total else []
    yield _line((name, "bold"), *bar, f"  {ended.total()}{f' of {total}' if total else ''} cells")
    told = [part for part in (_counts(ended), remaining(group, pace, now)) if part]
    if told:
        yield Text.assemble("  ", *told[0], *(["  ·  ", *told[1]] if told[1:] else []))
    for sign in group:
        if sign.kind or len(group) == 1:
            yield _line("  ", *process(sign, pace, now), (f"  ({who(sign)})" if where else "", "dim"))


def process(sign: Sign, pace: Pace, now: float) -> list[Part]:
    """What one process does."""
    event, spent = sign.event, now - sign.stage_started
    if not event.cell:
        return [("between cells" if sign.ended else "starting", "dim")]
    parent = ", the parent" if event.method == "dense" != sign.kind else ""
    words: list[Part] = [("dense" if event.method == "dense" else at(sign), "bold"), f"{parent}  "]
    if not event.stage:
        return [*words, ("starting" if spent < STEADY else "waiting for another process", "dim")]
    words += [(style.printable(event.stage), "cyan"), "  "]
    if event.step:
        words += [
            *_bar(event.step - 1, event.steps, STEPS),
            f"  {style.printable(event.unit)} {event.step} of {event.steps}  ",
        ]
    usual = pace.stage(event.kind, event.stage)
    return [*words, (f"{span(spent)}{f', usually {span(usual)}' if usual is not None else ''}", "dim")]


def remaining(group: Sequence[Sign], pace: Pace, now: float) -> list[Part]:
    """When a sweep may end, by what such cells took in this study; says of how many nothing is known."""
    plan = sum((Counter(sign.plan) for sign in group), Counter())
    for sign in group:
        plan.subtract({kind: sum(counts.values()) for kind, counts in sign.ended.items()})
    took = {kind: pace.cell(kind) for kind, cells in plan.items() if cells > 0}
    unknown = sum(plan[kind] for kind, seconds in took.items() if seconds is None)
    known = [plan[kind] * seconds for kind, seconds in took.items() if seconds is not None]
    if not known:
        return ["time left unknown: no such cell measured yet"] if unknown else []
    working = [sign for sign in group if sign.kind]
    spent = sum(min(took.get(sign.kind) or 0.0, now - sign.cell_started) for sign in working)
    left = max(0.0, sum(known) - spent) / max(1, len(working))
    more = f", and {unknown} cell{'s' * (unknown > 1)} of unknown time" if unknown else ""
    return [f"about {span(left)} left{more}"]


def silent(sign: Sign, now: float) -> Iterator[RenderableType]:
    """A process that shows no sign of life: since when, where it was, and what may have become of it."""
    beat = datetime.fromtimestamp(sign.beat)
    clock = f"{beat:%H:%M:%S}" if now - sign.beat < DAY else f"{beat:%Y-%m-%d %H:%M}"
    yield Text(f"no sign of life since {clock} ({span(now - sign.beat)} ago): {who(sign)}", "yellow")
    over = sum(sum(counts.values()) for counts in sign.ended.values())
    whole = sum(sign.plan.values()) or over
    of = f"{over} of {whole}" if sign.plan else f"{over}"
    was = (
        f"it was at {at(sign)}, {style.printable(sign.event.stage) or 'between stages'}; "
        if sign.kind
        else ""
    )
    fate = "it is gone" if sign.gone else "it or its machine is stopped, or busy with something long"
    mend = "; the same command goes on from there" if sign.gone else ""
    yield Padding(
        Text(f"{fate}; {was}{of} cell{'s were' if whole != 1 else ' was'} over{mend}"),
        (0, 0, 0, 2),
        expand=False,
    )


def who(sign: Sign) -> str:
    """A process."""
    return f"{style.printable(sign.host)}, process {sign.pid}"


def at(sign: Sign) -> str:
    """The cell a process is at."""
    return f"{style.printable(sign.event.kind)} {sign.event.budget:.4g}"


def span(seconds: float) -> str:
    """Whole seconds, minutes or hours."""
    return f"{max(0.0, seconds):.0f} s" if seconds < 119.5 else style.seconds(seconds)


def _counts(counts: Counter[str]) -> list[Part]:
    """`3 done  1 failed`, the usual first."""
    order = [*OUTCOMES, *sorted(set(counts) - set(OUTCOMES))]
    words = [
        (f"{counts[name]} {style.printable(name)}", OUTCOMES.get(name, "")) for name in order if counts[name]
    ]
    return [part for word in words for part in ("  ", word)][1:]


def _bar(done: int, total: int, width: int) -> list[Part]:
    """A bar that can be read without colours."""
    full = width * min(done, total) // max(1, total)
    return [("━" * full, "green"), ("─" * (width - full), "dim")]


def _line(*parts: Part) -> Text:
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
    if not board.pace.cells and not board.signs and not board.damaged and not board.pace.damaged:
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
    given = {"console": console, "refresh_per_second": 1, "transient": True}
    with Live(get_renderable=lambda: board.draw(time.time()), **given) as picture:
        picture.refresh()
        try:
            while board.at_work(time.time()):
                time.sleep(BEAT)
        except KeyboardInterrupt:
            return


def _options() -> argparse.ArgumentParser:
    options = command.Options(description="How far a sweep is")
    options.add_argument("study", help="name of the study: a folder of the store")
    options.add_argument("--store", default="results", help="folder of studies (default: results)")
    options.add_argument("--watch", action="store_true", help="again and again, until nothing runs any more")
    return options


if __name__ == "__main__":
    sys.exit(command.run(main))
