"""When a repair pays: repaired cells against plain ones of the same budget, a heat map of budget by share.

python -m analysis.compensation STUDY [--task ...] [--format png,pdf,svg] [--out DIR]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis import collect, command, panels, sheet, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEYS = ["model", "base", "budget", "accounting", "task", "metric"]
POINT = ["model", "method", "repair", "level", "budget", "task", "metric"]
COLUMNS = [*POINT, "seeds", "plain", "repaired", "gain", "agree", "plain_bytes", "repaired_bytes"]
LEAST, MOST = (
    0.5,
    25.0,
)  # where the colours may end: noise is no effect, and one collapse does not pale all else


def gains(data: pd.DataFrame, tasks: Sequence[str] = ()) -> pd.DataFrame:
    """One line per repaired setting: the value, that of the plain cell, and what the repair gained.

    `gain` is in per cent of the plain perplexity, in points of other scores (100 times the
    difference), and positive where the repair helps. Seeds are averaged; `agree`: all have the same sign.
    """
    measured = collect.select(data, (), tasks)
    collect.check_protocols(measured)
    configs = measured["config"] if "config" in measured else [None] * len(measured)  # older rows
    names = ["repair", "level", "tokens", "base"]
    told = pd.DataFrame([_told(config) for config in configs], index=measured.index, columns=names)
    measured = pd.concat([measured, told], axis=1)
    plain = measured[(measured["repair"] == "") & (measured["method"] != "dense")]
    both = measured[measured["repair"] != ""].merge(plain, on=KEYS, suffixes=("", "_plain"))
    same = (both["tokens"] == both["tokens_plain"]) & (both["calib_seed"] == both["calib_seed_plain"])
    both = both[same | (both["tokens_plain"] == "")]  # a plain cell without data has no draw of its own
    if both.empty:
        raise collect.AnalysisError(
            "study: no repaired cell beside a plain one of the same method, budget and seed; "
            "valid: a grid over compensate=none,eora"
        )
    lines = both.copy().assign(gain=collect.gain(both)).groupby(POINT, sort=False)
    made = lines[["gain", "scope_bytes", "scope_bytes_plain"]].mean()
    made["repaired"], made["plain"] = lines["value"].mean(), lines["value_plain"].mean()
    made["seeds"], made["agree"] = lines.size(), lines["gain"].agg(lambda g: len({*np.sign(g)}) == 1)
    renamed = made.rename(columns={"scope_bytes": "repaired_bytes", "scope_bytes_plain": "plain_bytes"})
    return renamed.reset_index()[COLUMNS]


def _told(config: Any) -> dict[str, str]:
    """Of a cell's config: the repair and its size, the tokens, and all else as one text."""
    config = dict(config) if isinstance(config, Mapping) else {}
    repair, tokens = config.pop("compensate", None) or {}, config.pop("calib", None)
    target = str(repair.get("_target_", "")).split(".")
    rank, share = repair.get("rank"), repair.get("share")
    return {
        "repair": target[-2] if len(target) > 1 else "",
        "level": "" if not repair else f"rank {rank}" if rank else f"share {share:g}",
        "tokens": "" if tokens is None else json.dumps(tokens, sort_keys=True, default=str),
        "base": json.dumps(config, sort_keys=True, default=str),
    }


def drawings(lines: pd.DataFrame) -> Iterator[tuple[str, sheet.Make]]:
    """A figure per model and task."""
    for stem, group in sheet.by_task("compensation", lines):
        yield stem, lambda group=group: draw(group)


def draw(lines: pd.DataFrame) -> list[Figure]:
    """One model and task: a panel per method and repair, budgets by the share that the repair takes."""
    pairs = list(dict.fromkeys(zip(lines["method"], lines["repair"], strict=True)))
    least = 0.27 * lines["budget"].nunique()  # numbers side by side
    made = panels.panels(len(pairs), columns=min(4, len(pairs)), between=0.75, least=least)
    widest = min(MOST, max(LEAST, float(lines["gain"].abs().max())))
    for axis, (method, repair) in zip(made.axes, pairs, strict=True):
        _map(axis, lines[(lines["method"] == method) & (lines["repair"] == repair)], widest)
        axis.set_title(f"{method} + {repair}")
    task, metric = lines[["task", "metric"]].iloc[0]
    unit = "% of perplexity" if style.is_perplexity(task, metric) else f"points of {metric}"
    sizes = " or ".join(dict.fromkeys(level.split()[0] for level in lines["level"]))
    gained = f"{style.short_task(task)}: {unit} gained at equal bytes; ~ seeds disagree"
    made.label(f"budget ({gained})", f"{sizes} of the repair")
    return made.figures


def _map(axis: Axes, lines: pd.DataFrame, widest: float) -> None:
    """Cells coloured by gain, with the number in them; crossed where there is none to compare."""
    budgets = sorted(lines["budget"].unique())
    levels = sorted(lines["level"].unique(), key=lambda name: float(name.split()[-1]))
    values = lines.pivot_table(index="level", columns="budget", values="gain").reindex(levels)[budgets]
    sure = lines.pivot_table(index="level", columns="budget", values="agree").reindex(levels)[budgets]
    axis.imshow(values, cmap="RdBu", vmin=-widest, vmax=widest, aspect="auto", origin="lower")
    axis.set_xticks(range(len(budgets)), [style.budget_name(b) for b in budgets])
    axis.set_yticks(range(len(levels)), [level.split()[-1] for level in levels])
    axis.grid(visible=False)
    for (y, x), gain in np.ndenumerate(values.to_numpy()):
        there = bool(np.isfinite(gain))
        text = (
            f"{'' if sure.iat[y, x] == 1 else '~'}{gain:+.{1 if abs(gain) < 9.95 else 0}f}" if there else "×"
        )
        dark = there and abs(gain) > 0.6 * widest
        axis.text(x, y, text, ha="center", va="center", fontsize=6.5, color="white" if dark else "#222222")


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Read the options and draw the figures."""
    options = command.parser("Where compensation pays at equal bytes")
    options.add_argument("--task", default="", help="tasks (default: all)")
    options.add_argument("--format", default="png", help="png, pdf, svg (default: png)")
    chosen = options.parse_args(argv)
    formats = command.listed(chosen.format, "format", sheet.FORMATS)
    folder = Path(chosen.out or Path(chosen.store) / chosen.study / "figures")
    lines = gains(command.read(chosen), command.listed(chosen.task))
    return sheet.write("compensation", lines, drawings(lines), folder, formats)


if __name__ == "__main__":
    sys.exit(command.run(main))
