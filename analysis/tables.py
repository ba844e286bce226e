"""LLM-KICK's table: task x method down, budgets across, matching cells marked; and a table of sizes.

python -m analysis.tables STUDY [--store results] [--format md,tex,csv] [--metric acc] [--out DIR]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import collect, command, draws, outfile, protocols, style, unscored
from analysis.render import Cell, Grid, latex, markdown

FORMATS = ("md", "tex", "csv")
LEGEND = (
    "**bold ✓** matches dense (paired test, 5 % relative margin); ? undecided; ~ dense is at chance; "
    "· told, not judged; plain: fails; — no such cell. "
    "value ± standard error, or mean ± spread over calibration draws where their number is given; where that "
    "is 0, the 95 % interval."
)


def quality(data: pd.DataFrame, metrics: Sequence[str] = (), tasks: Sequence[str] = ()) -> list[Grid]:
    """One LLM-KICK table per model."""
    chosen = collect.select(data, metrics, tasks)
    collect.check_protocols(chosen)
    points, lost = collect.points(chosen), collect.gone(data)
    away = draws.lost(data)
    points["away"] = [draws.note(away, point) for point in points.itertuples()]
    models = list(dict.fromkeys([*points["model"], *lost["model"]]))
    older = int(data["older"].max()) if len(data) else 0
    legend = LEGEND + (f" {older} older cells of the same settings are not shown." if older else "")
    legend += "".join(f" {line}." for line in protocols.lines(chosen, "aside"))
    grids = []
    for model in models:
        told = collect.flagged(chosen[chosen["model"] == model])
        more = f" Most that any cell has: {'; '.join(told)}." if told else ""
        grids.append(
            _quality(model, points[points["model"] == model], lost[lost["model"] == model], legend + more)
        )
    return grids


def _quality(model: str, points: pd.DataFrame, lost: pd.DataFrame, legend: str) -> Grid:
    """The table of one model."""
    small, lost = points[points["state"] != "dense"], lost[lost["method"] != "dense"]
    budgets = sorted({*small["budget"], *lost["budget"]})
    labels = list(dict.fromkeys([*small["label"], *lost["label"]]))
    grid = Grid(model, ["task", "method", "dense", *map(style.budget_name, budgets)], [], legend)
    best = _best(small)
    cells = {
        (r.task, r.metric, r.label, r.budget): score_cell(r, r.Index in best) for r in small.itertuples()
    }
    gaps = {(r.label, r.budget): r for r in lost.itertuples()}
    for (task, metric), group in points.groupby(["task", "metric"], sort=False):
        first = [Cell(_heading(task, metric, group)), Cell(), _dense(group)]
        block = []
        for label in labels or ["dense"]:
            keys = [(label, budget) for budget in budgets]
            line = [cells.get((task, metric, *k)) or _gap(gaps.get(k), task) for k in keys]
            block.append([first[0], Cell(label), first[2], *line])
            first = [Cell(), Cell(), Cell()]
        grid.blocks.append(block)
    grid.blocks += _unscored(points, lost, labels, budgets)
    return grid


def _best(points: pd.DataFrame) -> set[Any]:
    """Of each task and budget the points whose value, as printed, is the best; none where all are equal."""
    seen = points[np.isfinite(points["value"]) & (points["state"] != "chance")]
    seen = seen.assign(good=seen["value"].where(seen["higher_is_better"], -seen["value"]))
    found: set[Any] = set()
    for _, group in seen.groupby(["task", "metric", "budget"]):
        texts = group["value"].map(style.number)
        if texts.nunique() > 1:
            found |= set(group.index[texts == texts[group["good"].idxmax()]])
    return found


def _unscored(
    points: pd.DataFrame, lost: pd.DataFrame, labels: Sequence[str], budgets: Sequence[float]
) -> list[list[list[Cell]]]:
    """A block for each task that failed in every cell; where nothing is known of tasks, one for all."""
    gaps = {(r.label, r.budget): r for r in lost.itertuples()}
    told = dict.fromkeys(task for row in lost.itertuples() for task in unscored.reasons(row))
    bare = [task for task in told if task not in set(points["task"])]
    blocks = []
    for task in bare or [""] * points.empty:
        head = [Cell(task or "no scores"), Cell(), Cell("—")]
        block = []
        for label in labels:
            line = [_gap(gaps.get((label, budget)), task) for budget in budgets]
            block.append([head[0], Cell(label), head[2], *line])
            head = [Cell(), Cell(), Cell()]
        blocks.append(block)
    return blocks


def _gap(row: Any, task: str = "") -> Cell:
    """A cell that is not there, with the reason below the table: that of the task, where it has its own."""
    reason = "" if row is None else unscored.reason_of(row, task)
    if not reason:
        return Cell()
    return Cell("—", note=f"{row.label} at {style.budget_name(row.budget)} {reason}", why=reason)


def _heading(task: str, metric: str, group: pd.DataFrame) -> str:
    """Task, metric with its direction, items and chance."""
    arrow = "↑" if group["higher_is_better"].iloc[0] else "↓"
    parts = [f"{metric} {arrow}"]
    if group["n"].notna().any():
        parts.append(f"n={int(group['n'].max())}")
    if group["chance"].notna().any():
        parts.append(f"chance {style.number(group['chance'].max(), 2)}")
    return f"{task} ({', '.join(parts)})"


def _dense(group: pd.DataFrame) -> Cell:
    """The dense value: from its own row, else from what the others were compared with."""
    own = group[group["state"] == "dense"]
    if len(own):
        return Cell(with_error(own.iloc[0], own["stderr"].iloc[0]))
    return Cell(style.number(group["dense"].mean()))


def with_error(row: Any, stderr: float) -> str:
    """Value ± stderr, where there is one; its 95 % interval where all answers are the same, which is no 0."""
    value, width = style.number(row.value), style.error(stderr)
    if stderr < 1e-9 and style.known(row.value_low) and row.value_low < row.value_high:  # 0 but for rounding
        return f"{value} [{style.number(row.value_low)}, {style.number(row.value_high)}]"
    return f"{value} ± {width}" if width else value


def score_cell(row: Any, best: bool = False) -> Cell:
    """One measured cell with its mark."""
    text = with_error(row, row.spread if row.seeds > 1 else row.stderr)
    if row.seeds > 1:
        text += f" ({row.seeds} seeds)"
    mark = style.MARKS.get(row.state, "") if row.state != "fail" else ""
    at = f"{row.label} at {style.budget_name(row.budget)}, {style.short_task(row.task)}"
    notes = [collect.broken_note(row, row.label), f"{at}: {row.away}" if row.away else ""]
    return Cell(f"{text} {mark}".rstrip(), row.state == "match", "; ".join(filter(None, notes)), best=best)


SIZE_HEAD = (
    *("method", "budget", "achieved, bytes", "achieved, nominal", "on disk", "of dense file"),
    *("bits/weight, scope", "bits/weight, model", "executed by", "compress", "evaluate", "peak memory"),
)


def sizes(data: pd.DataFrame) -> list[Grid]:
    """One table of sizes per model: method x budget, asked and achieved."""
    legend = "Shares are shares removed; *on disk* is the whole artifact."
    models = data.groupby("model", sort=False)
    return [Grid(model, list(SIZE_HEAD), _size_blocks(group), legend) for model, group in models]


def _size_blocks(data: pd.DataFrame) -> list[list[list[Cell]]]:
    """A block per method, a line per budget."""
    blocks: dict[str, list[list[Cell]]] = {}
    for (label, budget), group in data.groupby(["label", "budget"], sort=False):
        there = group[~group["state"].isin(style.GONE)]
        line = (
            _size_line(there) if len(there) else [_gap(group.iloc[-1]), *[Cell("—")] * (len(SIZE_HEAD) - 3)]
        )
        texts = [Cell(label), Cell(style.budget_name(budget)), *line]
        blocks.setdefault(label, []).append(texts)
    return [sorted(lines, key=lambda line: float(line[1].text)) for lines in blocks.values()]


def _size_line(group: pd.DataFrame) -> list[Cell]:
    """What a cell weighs and what it took; several calibration seeds are averaged."""
    mean = group.drop_duplicates("cell").mean(numeric_only=True)
    share = mean["file_bytes"] / mean["dense_file_bytes"]
    texts = [
        *(style.percent(mean["achieved_bytes"]), style.percent(mean["achieved_nominal"])),
        *(style.human_bytes(mean["file_bytes"]), style.percent(share)),
        *(style.number(mean["bits_scope"], 2), style.number(mean["bits_model"], 2)),
        _executed_by(group),
        *(style.seconds(mean["compress_seconds"]), style.seconds(eval_seconds(group))),
        style.human_bytes(mean["peak_memory_bytes"]),
    ]
    return [Cell(text) for text in texts]


def _executed_by(group: pd.DataFrame) -> str:
    """What runs the packed form; `*` where nothing does. Rows from before the column say only that."""
    said = " / ".join(dict.fromkeys(text for text in group["executed_by"] if text))
    mark = "*" if group["simulated"].any() else ""
    return said + mark if said else "simulated" * bool(mark)


def eval_seconds(group: pd.DataFrame) -> float:
    """Seconds of evaluation of a cell: the sum over its tasks, averaged over calibration seeds."""
    per_task = group.drop_duplicates(["cell", "task"]).groupby("cell")["eval_seconds"]
    return float(per_task.sum(min_count=1).mean())


def quality_csv(data: pd.DataFrame, metrics: Sequence[str] = (), tasks: Sequence[str] = ()) -> str:
    """Long form: a line per task, method and budget with state and reason, full precision."""
    chosen = collect.select(data, metrics, tasks)
    lost = collect.gone(data)
    columns = ["model", "task", "metric", "label", "budget", "value", "stderr", "spread", "seeds", "state"]
    columns += [
        "coverage",
        "flags",
        "value_low",
        "value_high",
        "low",
        "high",
        "p_match",
        "p_fail",
        "dense",
        "chance",
        "n",
        "achieved_bytes",
        "achieved_nominal",
        "file_bytes",
    ]
    columns += ["nearest_budget", "reason"]
    both = [collect.points(chosen), lost.assign(seeds=float("nan"), spread=float("nan"))]
    return str(pd.concat([part.reindex(columns=columns).astype(object) for part in both]).to_csv(index=False))


def sizes_csv(data: pd.DataFrame) -> str:
    """Every size column, unrounded, a line per cell."""
    columns = ["model", "label", "budget", "calib_seed", "state", "achieved_bytes", "achieved_nominal"]
    columns += ["scope_bytes", "dense_scope_bytes", "file_bytes", "dense_file_bytes", "bits_scope"]
    columns += [
        "bits_model",
        "simulated",
        "executed_by",
        "compress_seconds",
        "peak_memory_bytes",
        "nearest_budget",
        "reason",
    ]
    return str(data.drop_duplicates("cell").reindex(columns=columns).to_csv(index=False))


def write(
    data: pd.DataFrame,
    folder: Path,
    formats: Sequence[str] = FORMATS,
    metrics: Sequence[str] = (),
    tasks: Sequence[str] = (),
    environment: str = "table",
) -> list[Path]:
    """Write both tables in every format and return the paths."""
    grids = {"quality": quality(data, metrics, tasks), "size": sizes(data)}
    tables = {"quality": lambda: quality_csv(data, metrics, tasks), "size": lambda: sizes_csv(data)}
    paths = []
    for name, parts in grids.items():
        for form in formats:
            if form == "csv":
                text = tables[name]()
            else:
                shown = (markdown(g) if form == "md" else latex(g, name, environment) for g in parts)
                text = "\n".join(shown)
            paths.append(folder / f"{name}.{form}")
            with outfile.whole(paths[-1]) as temp:
                temp.write_text(text, encoding="utf-8")
    return paths


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Read the options and write the tables."""
    options = command.parser("LLM-KICK style tables of a study")
    options.add_argument("--format", default="md,tex,csv", help="md, tex, csv (default: all three)")
    options.add_argument("--metric", default="", help="metrics, or all (default: the headline of each task)")
    options.add_argument("--task", default="", help="tasks (default: all)")
    chosen = options.parse_args(argv)
    formats = command.listed(chosen.format, "format", FORMATS)
    folder = Path(chosen.out or Path(chosen.store) / chosen.study / "tables")
    metrics, tasks = command.listed(chosen.metric), command.listed(chosen.task)
    return write(command.read(chosen), folder, formats, metrics, tasks)


if __name__ == "__main__":
    sys.exit(command.run(main))
