"""How many items tell a match from a fail.

python -m analysis.plan --dense 0.65 [--margin 0.05] [--discordant 0.1] [--loss 0.1] [--power 0.8]
python -m analysis.plan --dense 3.4 --sd 0.2       # means: standard deviation of the paired differences
python -m analysis.plan STUDY [--store results]    # what the undecided cells of a study would need
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from scipy.stats import norm

from analysis import collect, command, pool
from crunchmark.paired import LEVEL, MARGIN, ratio_variance
from crunchmark.store import Store


def items_of_shares(dense: float, change: float, discordant: float, margin: float, power: float) -> float:
    """Items for the score test of paired shares to decide (Nam and Blackwelder, 2002); inf on the margin.

    Args:
        dense: Share the parent has right.
        change: True relative change of that share, -0.1 for a loss of 10 %.
        discordant: Share of items only one of the two has right, without those the change itself takes.
        margin: Relative loss that is allowed.
        power: Chance of a decision.
    """
    ratio, shift = 1 - margin, dense * change
    gained, lost = discordant / 2 + max(0.0, shift), discordant / 2 + max(0.0, -shift)
    if lost > dense + 1e-9 or gained > 1 - dense + 1e-9:
        many = f"too many for dense={dense:g} and a change of {change:+g}"
        raise ValueError(f"discordant={discordant:g}: {many}")
    one, apart = dense + shift, dense + shift - ratio * dense
    null = ratio_variance(one, dense, gained, lost, ratio)
    true = one + ratio**2 * dense - 2 * ratio * (dense - lost) - apart**2
    return _items(apart, math.sqrt(null), math.sqrt(max(0.0, true)), power)


def items_of_means(dense: float, change: float, sd: float, margin: float, power: float) -> float:
    """Items for a paired test of means to decide; inf on the margin.

    Args:
        dense: The parent's mean.
        change: True relative change, negative is a loss.
        sd: Standard deviation of the items' paired differences.
        margin: Relative loss that is allowed.
        power: Chance of a decision.
    """
    return _items(abs(dense) * (change + margin), sd, sd, power)


def _items(apart: float, null: float, true: float, power: float) -> float:
    """Items whose normal test at 2.5 % has that power, a mean being that far apart from the margin."""
    if abs(apart) < 1e-12:
        return math.inf
    reach = float(norm.isf(LEVEL)) * null + float(norm.ppf(power)) * true
    return float(math.ceil(max(1.0, (reach / apart) ** 2)))


def needs(study: pd.DataFrame, power: float) -> pd.DataFrame:
    """What each undecided cell needs: items if the truth is as seen, and if the model is as good as dense.

    Args:
        study: Lines of `analysis.pool.pooled`.
        power: Chance of a decision.
    """
    open_ = study[(study["state"] == "undecided") & study["dense"].gt(0) & study["n"].gt(1)].copy()
    for column, seen in (("as_seen", True), ("if_equal", False)):
        open_[column] = [_need(row, seen, power) for _, row in open_.iterrows()]
    return open_


def _need(row: pd.Series, seen: bool, power: float) -> float:
    sign = 1.0 if row["higher_is_better"] else -1.0
    change = sign * row["delta"] / row["dense"] if seen else 0.0
    if pd.notna(row["lost"]) and row["higher_is_better"]:
        paired = max(2 * min(row["lost"], row["gained"]), 1) / row["n"]
        room = 2 * min(
            1 - row["dense"] - max(0.0, row["dense"] * change), row["dense"] * (1 + min(0.0, change))
        )
        return items_of_shares(row["dense"], change, max(0.0, min(paired, room)), row["margin"], power)
    if row["seeds"] > 1:
        return math.nan  # its interval is as wide as few seeds make it, which no number of items mends
    sd = (row["high"] - row["low"]) / (2 * float(norm.isf(LEVEL))) * math.sqrt(row["n"])
    return items_of_means(row["dense"], change, sd, row["margin"], power)


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Read the options and print one table."""
    options = _options().parse_args(argv)
    _check(options)
    if (options.dense is None) == (not options.study):
        raise collect.AnalysisError("valid is a STUDY or --dense, one of the two")
    try:
        table = _planned(options) if options.dense is not None else _studied(options)
    except ValueError as problem:
        raise collect.AnalysisError(str(problem)) from None
    Console(width=None if sys.stdout.isatty() else 110).print(table)
    return []


def _check(options: argparse.Namespace) -> None:
    """Refuse numbers that would plan nonsense."""
    for name in ("power", "margin", "loss"):
        if not 0 < (value := getattr(options, name)) < 1:
            raise collect.AnalysisError(f"--{name}={value:g}: valid is between 0 and 1")
    if not 0 <= options.discordant <= 1:
        raise collect.AnalysisError(f"--discordant={options.discordant:g}: valid is 0 to 1")
    if options.sd is not None and not 0 < options.sd < math.inf:
        raise collect.AnalysisError(f"--sd={options.sd:g}: valid is above 0")


def _options() -> argparse.ArgumentParser:
    options = command.Options(description="How many items tell a match from a fail")
    options.add_argument("study", nargs="?", default="", help="a study, for what its undecided cells need")
    options.add_argument("--store", default="results", help="folder of studies (default: results)")
    command.mixed_option(options)
    options.add_argument("--dense", type=float, help="the parent's score")
    options.add_argument("--margin", type=float, default=MARGIN, help="relative loss that is allowed (0.05)")
    options.add_argument("--discordant", type=float, default=0.1, help="share of 0/1 items that flip (0.1)")
    options.add_argument("--sd", type=float, help="of paired differences, for scores that are not 0/1")
    options.add_argument("--loss", type=float, default=0.1, help="a relative loss to call a fail (0.1)")
    options.add_argument("--power", type=float, default=0.8, help="chance of a decision (0.8)")
    return options


def _planned(options: argparse.Namespace) -> Table:
    """Items for a model as good as dense, and for one that is worse than the margin."""
    if options.sd is None and not 0 < options.dense < 1:
        raise ValueError(f"--dense={options.dense:g}: valid is between 0 and 1; a mean wants --sd")
    table = Table("truth", "state", "items", title=f"margin {options.margin:g}, power {options.power:g}")
    for change in (0.0, -options.loss):
        given = (options.dense, change)
        rest = (options.margin, options.power)
        if options.sd is None:
            items = items_of_shares(*given, options.discordant, *rest)
        else:
            items = items_of_means(*given, options.sd, *rest)
        state = "match" if change > -options.margin else "fail"
        table.add_row("as dense" if not change else f"{-change:.0%} worse", state, _count(items))
    return table


def _studied(options: argparse.Namespace) -> Table:
    """A line per undecided cell."""
    data = collect.select(command.read(options))
    collect.check_protocols(data)
    found = needs(pool.pooled(Store(options.store), options.study, data), options.power)
    title = f"{options.study}: items to decide, power {options.power:g}"
    table = Table("task", "method", "budget", "seeds", "n", "change", "as seen", "if as dense", title=title)
    for row in found.itertuples():
        here = row.n if row.seeds > 1 else 0
        texts = (row.task, row.label, f"{row.budget:g}", str(row.seeds), str(row.n))
        change = f"{row.delta / row.dense:+.1%}"
        counts = (_count(row.as_seen, here), _count(row.if_equal, here))
        table.add_row(*texts, change, *counts)
    return table


def _count(items: float, there: float = 0) -> str:
    """As text; where there are that many already, it is the seeds that leave the cell undecided."""
    if math.isnan(items) or items <= there:
        return "more seeds"
    return "no number" if math.isinf(items) else f"{items:.0f}"


if __name__ == "__main__":
    sys.exit(command.run(main))
