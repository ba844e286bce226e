"""How results look: numbers, names, marks, and one set of colours for every figure."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


# Okabe and Ito's palette, ordered so that neighbours also differ in lightness (grey print).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000", "#882255", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "h", ">", "p", "d")
LINES: tuple[Any, ...] = ("-", "--", "-.", (0, (1, 1.2)), (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (3, 1)))
WARM = ("#D55E00", "#E69F00", "#A63603", "#C2185B")
COOL = ("#0072B2", "#009E73", "#56B4E9", "#3F51B5")
BAND = "#DCE6F2"
NEUTRAL = ("#CC79A7", "#7F7F7F", "#B8A900")
JUDGED = ("match", "fail", "undecided")
MARKS = {
    "match": "✓",
    "fail": "✗",
    "undecided": "?",
    "chance": "~",
    "measured": "·",
}  # ~: no skill in dense
GONE = ("unreachable", "skipped", "failed")

_KNOWLEDGE = re.compile(r"factoid|mcr|mmlu|trivia|freebase|closed|arc_|nq_|webqs|boolq|sciq|openbookqa|fact")
_CONTEXT = re.compile(r"icra|open_?book|summ|needle|squad|drop|longbench|ruler|niah|context|lambada")

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.7,
    "axes.edgecolor": "#444444",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.6,
    "text.parse_math": False,  # names of models may hold a $
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "crunchmark",
    "savefig.dpi": 200,
}


def known(value: Any) -> bool:
    """True for a value that is there: not None, not nan, not an empty string."""
    return value is not None and value != "" and not (isinstance(value, float) and math.isnan(value))


def printable(text: Any) -> str:
    """Text on one line, whatever a name holds: no line breaks, no codes that a terminal obeys."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in str(text))


def short_task(task: str) -> str:
    """The name of a task without the prefix of its suite."""
    return task.removeprefix("nano_").removeprefix("kick_")


def short_tasks(tasks: Iterable[str]) -> dict[str, str]:
    """Short names of tasks side by side; the whole name where two would read the same."""
    names = {task: short_task(task) for task in tasks}
    short = list(names.values())
    return {task: name if short.count(name) == 1 else task for task, name in names.items()}


def is_perplexity(task: str, metric: str) -> bool:
    """Perplexities live on a logarithmic axis, turned over so that up is better."""
    return "perplexity" in metric or "ppl" in metric or task.endswith("ppl")


def kind_of(task: str, metric: str) -> str:
    """What a task asks for: knowledge, context, perplexity or other."""
    if is_perplexity(task, metric):
        return "perplexity"
    if _KNOWLEDGE.search(task):
        return "knowledge"
    return "context" if _CONTEXT.search(task) else "other"


def human_bytes(size: float | None) -> str:
    """Bytes for people, in powers of 1000: 4.1 MB."""
    if not known(size) or size is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(size) < 999.5 or unit == "TB":
            digits = 0 if unit == "B" or abs(size) >= 99.95 else 1 if abs(size) >= 9.995 else 2
            return f"{size:.{digits}f} {unit}"
        size /= 1000
    raise AssertionError


def seconds(value: float | None) -> str:
    """Seconds for people: 3.2 s, 85 s, 12 min, 3.1 h."""
    if not known(value) or value is None:
        return "–"
    if value < 120:
        return f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def number(value: float | None, digits: int = 3) -> str:
    """A score: three decimals below 10, four figures above, powers of ten when it exploded."""
    if not known(value) or value is None:
        return "–"
    if not math.isfinite(value):
        return "∞" if value > 0 else "-∞"
    size = abs(value)
    if size >= 1e5:
        return f"{value:.1e}"
    return f"{value:.{digits if size < 10 else max(0, 3 - int(math.log10(size)))}f}"


def error(stderr: float | None) -> str:
    """A standard error in as many places as its score; empty where there is none."""
    return number(stderr) if known(stderr) and stderr is not None and math.isfinite(stderr) else ""


def percent(share: float | None) -> str:
    """A share as per cent with one decimal."""
    return f"{100 * share:.1f} %" if known(share) and share is not None else "–"


def budget_name(budget: float) -> str:
    """A budget as it is typed: 0.3, not 0.30000000000000004."""
    return f"{budget:.4g}"


def ink(ground: Sequence[float]) -> str:
    """Letters on a field of this colour: white unless it is light."""
    red, green, blue = ground[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.6 else "white"


def looks(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A colour, a marker and a line style for each method, the same in every panel."""
    return {
        label: {
            "color": COLOURS[i % len(COLOURS)],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": LINES[i % len(LINES)],
        }
        for i, label in enumerate(labels)
    }


def task_looks(tasks: Iterable[tuple[str, str]]) -> dict[str, dict[str, Any]]:
    """Warm colours for knowledge, cool for in-context skill, black for perplexity."""
    wheels = {"knowledge": WARM, "context": COOL, "other": NEUTRAL, "perplexity": ("#000000", "#555555")}
    lines: dict[str, Any] = {"knowledge": "-", "context": "--", "other": "-.", "perplexity": (0, (1, 1.2))}
    used = dict.fromkeys(wheels, 0)
    out: dict[str, dict[str, Any]] = {}
    for i, (task, metric) in enumerate(tasks):
        kind = kind_of(task, metric)
        wheel = wheels[kind]
        out[task] = {
            "color": wheel[used[kind] % len(wheel)],
            "linestyle": lines[kind],
            "marker": MARKERS[i % len(MARKERS)],
        }
        used[kind] += 1
    return out
