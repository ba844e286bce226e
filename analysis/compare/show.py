"""A comparison for a terminal, and as Markdown, CSV and JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis import outfile, style
from analysis.compare.changed import Change
from analysis.render import Cell, Grid, markdown, markdown_text
from crunchmark.store import Row

FORMATS = ("md", "csv", "json")
WORST = (
    "lost",
    "regression",
    "worse",
    "not compared",
    "only in A",
    "better",
    "only in B",
)  # told one by one, the worst first
LOOKS = {
    "lost": "bold red",
    "regression": "bold red",
    "worse": "yellow",
    "better": "green",
    "identical": "dim",
}
FEW = 40  # lines that are all shown
NAMED = 12  # cells without another side that a terminal names
VALUES = 2  # different values of one fact that are told one by one
HEAD = ("cell", "task", "n", "A", "B", "B − A [95 %]", "relative", "lost/gained", "p, Holm", "verdict")
SPARE = ("relative", "lost/gained", "n")  # columns, the first that goes first
CHANGED = ("what", "A", "B", "cells")
LEGEND = (
    "Paired tests on the same items. p: of no difference, over all lines (Holm). regression: worse by more "
    "than the margin, over all lines (Holm, one-sided 2.5 %); within margin: a loss of the margin is refuted."
)
NUMBERS = "Published numbers count as exact; their text and windows may be others: look at dense first."


@dataclass
class Comparison:
    """All that is shown."""

    a: str
    b: str
    lines: pd.DataFrame
    changes: list[Change] = field(default_factory=list)
    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)
    strict: bool = False
    published: bool = False

    @property
    def counts(self) -> Counter[str]:
        """How many lines have each verdict."""
        return Counter(self.lines["verdict"])

    @property
    def faults(self) -> int:
        """What makes the exit code 1."""
        missing = self.counts["not compared"] + self.counts["only in A"] + len(self.only_a)
        return self.counts["regression"] + self.counts["lost"] + missing * self.strict

    @property
    def tested(self) -> int:
        """Lines with a test."""
        return int((self.lines["state"] != "").sum())

    def answer(self) -> str:
        """The last line."""
        told = ", ".join(f"{verdict} {count}" for verdict, count in self.counts.most_common())
        more = f"; {len(self.only_a)} cells only in A" if self.only_a else ""
        more += f"; {len(self.only_b)} only in B" if self.only_b else ""
        many = {0: "no regression", 1: "1 regression"}.get(self.faults, f"{self.faults} regressions")
        return f"{many}: {told}{more}"


def show(found: Comparison, console: Console, every: bool = False) -> None:
    """Print it: changes, lines, what has no other side, and the answer."""
    for name, text in (("A", found.a), ("B", found.b)):
        console.print(Text.assemble((name, "bold"), f"  {text}"))
    console.print()
    if found.changes:
        console.print(
            _table(CHANGED, [(cells, "") for cells in _changed(found.changes)], "what else changed")
        )
    elif not found.published:
        console.print(Text("nothing else that is recorded differs: config, code, versions, machine, bytes"))
    console.print()
    chosen = _chosen(found.lines, every)
    if len(chosen):
        told = [(_texts(row), LOOKS.get(row["verdict"], "")) for row in chosen.to_dict("records")]
        console.print(_fitting(told, console.width))
    left = len(found.lines) - len(chosen)
    below = [f"{left} lines without news are not shown: --all shows them"] if left else []
    below += [NUMBERS if found.published else LEGEND, *_apart(found, None if every else NAMED)]
    for line in below:
        console.print(Text(line, style="dim"))
    console.print(Text(found.answer(), style="bold red" if found.faults else "bold green"))


def _fitting(lines: Sequence[tuple[Sequence[str], str]], width: int) -> Table:
    """The scores, without the columns that a narrow terminal has no room for."""
    for spare in range(len(SPARE) + 1):
        kept = [i for i, name in enumerate(HEAD) if name not in SPARE[:spare]]
        told = [([texts[i] for i in kept], look) for texts, look in lines]
        table = _table(
            [HEAD[i] for i in kept], told, "scores", right=[kept.index(i) for i in kept if 1 < i < 9]
        )
        if Console(width=1000).measure(table).maximum <= width:
            break
    return table


def _chosen(lines: pd.DataFrame, every: bool) -> pd.DataFrame:
    """What is told line by line, the worst first."""
    rank = lines["verdict"].map({verdict: i for i, verdict in enumerate(WORST)}).fillna(len(WORST))
    ordered = lines.assign(rank=rank).sort_values("rank", kind="stable")
    return ordered if every or len(lines) <= FEW else ordered[ordered["rank"] < len(WORST)]


def _apart(found: Comparison, most: int | None = None) -> list[str]:
    """Cells without another side, by name; at most so many of each."""
    told = []
    for side, names in (("A", found.only_a), ("B", found.only_b)):
        left = 0 if most is None else len(names) - most
        more = f" and {left} more: --all names them" if left > 0 else ""
        told += [f"only in {side}: {', '.join(names[:most])}{more}"] if names else []
    return told


def _table(
    head: Sequence[str], lines: Sequence[tuple[Sequence[str], str]], title: str, right: Sequence[int] = ()
) -> Table:
    """A table of texts that are no markup, each line in its look."""
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, title=title, title_justify="left")
    for i, name in enumerate(head):
        shown.add_column(name, justify="right" if i in right else "left", overflow="fold")
    for texts, look in lines:
        shown.add_row(*(Text(text, style=look) for text in texts))
    return shown


def _texts(row: Row) -> list[str]:
    """A line as texts."""
    flips = f"{row['lost']:g} / {row['gained']:g}" if style.known(row["lost"]) else ""
    apart = _signed(row["delta"])
    if style.known(row["low"]) and style.known(row["high"]):
        apart += f" [{_signed(row['low'])}, {_signed(row['high'])}]"
    relative = f"{100 * row['change']:+.1f} %".replace("-", "−") if math.isfinite(row["change"]) else ""
    note = row["note"] if row["note"] != row["verdict"] else ""
    verdict = row["verdict"] + (f": {note}" if note else "")
    count = f"{row['n']:.0f}" if style.known(row["n"]) else ""
    values = (style.number(row["value_a"]), style.number(row["value_b"]))
    return [row["title"], row["asked"], count, *values, apart, relative, flips, _p(row["p_holm"]), verdict]


def _signed(value: float) -> str:
    """A difference with its sign; nothing where there is none."""
    if not style.known(value):
        return ""
    text = style.number(value)
    return f"+{text}" if value > 0 else text.replace("-", "−")


def _p(value: float) -> str:
    """A p-value for people."""
    if not style.known(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 1 else "1"


def _changed(changes: Sequence[Change]) -> list[list[str]]:
    """A line per fact and values; a fact with many values is one line that counts them."""
    facts: dict[tuple[str, str], list[Change]] = {}
    for change in changes:
        facts.setdefault((change.kind, change.name), []).append(change)
    out = []
    for (kind, name), own in facts.items():
        what = name if kind in ("versions", "config") and "." in name else f"{kind}: {name}"
        if len(own) > VALUES:
            cells = sum(len(change.cells) for change in own)
            out.append([what, "various", "various", str(cells)])
        else:
            out += [[what, change.a, change.b, _cells(change.cells)] for change in own]
    return out


def _cells(names: Sequence[str]) -> str:
    """Few cells by name, many by number."""
    return ", ".join(names) if len(names) <= VALUES else str(len(names))


def write(found: Comparison, folder: Path, formats: Sequence[str]) -> list[Path]:
    """The whole comparison in every format; the paths."""
    makers: dict[str, Callable[[Comparison], str]] = {"md": _markdown, "csv": _csv, "json": _json}
    paths = []
    for form in formats:
        paths.append(folder / f"compare.{form}")
        with outfile.whole(paths[-1]) as temp:
            temp.write_text(makers[form](found), encoding="utf-8")
    return paths


def _markdown(found: Comparison) -> str:
    """Both tables and the answer."""
    lines = [list(map(Cell, _texts(row))) for row in _chosen(found.lines, True).to_dict("records")]
    parts = [
        markdown_text(f"# {found.a} and {found.b}") + "\n",
        markdown_text(f"**{found.answer()}**") + "\n",
    ]
    if found.changes:
        changed = [list(map(Cell, texts)) for texts in _changed(found.changes)]
        parts.append(markdown(Grid("What else changed", list(CHANGED), [changed])))
    legend = "\n\n".join([NUMBERS if found.published else LEGEND, *_apart(found)])
    parts.append(markdown(Grid("Scores", list(HEAD), [lines], legend)))
    return "\n".join(parts)


def _csv(found: Comparison) -> str:
    """A line per comparison, full precision."""
    return str(found.lines.to_csv(index=False))


def _json(found: Comparison) -> str:
    """Everything; what is no number is null."""
    lines = [{name: _plain(value) for name, value in row.items()} for row in found.lines.to_dict("records")]
    whole = {"a": found.a, "b": found.b, "regression": bool(found.faults), "counts": dict(found.counts)}
    whole |= {"lines": lines, "changes": [asdict(change) for change in found.changes]}
    whole |= {"only_a": found.only_a, "only_b": found.only_b}
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value
