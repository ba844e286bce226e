"""A W&B workspace and report of a study: frontier, parallel coordinates, table of tasks, stage timings.

python -m analysis.dashboard STUDY --entity E [--project crunchmark] [--from wandb:E/P] [--dry] [--out DIR]
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import collect, command, outfile, style
from crunchmark.store import run_id

SECONDS = ("load_seconds", "allocate_seconds", "compress_seconds", "pack_seconds")
STAGES = ("allocate", "compensate")
SIZES = ("achieved_bytes", "file_bytes")
LONGEST = 128  # characters of a report's name
WIDE, HIGH = 24, 9  # of a report's grid
MISSING = "wandb_workspaces: not installed; pip install 'crunchmark-bench[dashboard]' brings it"


@dataclass(frozen=True)
class Score:
    """A score as the tracker names it; `higher` is better or not."""

    task: str
    metric: str
    higher: bool

    @property
    def key(self) -> str:
        """Its name in a run's summary."""
        return f"{self.task}/{self.metric}"

    @property
    def title(self) -> str:
        """Its name above a panel."""
        return f"{style.short_task(self.task)}: {self.metric.replace('_', ' ')}"


@dataclass(frozen=True)
class Dashboard:
    """What a study needs to be shown: its scores, and a colour for the run of each cell."""

    study: str
    scores: list[Score]
    colours: dict[str, str]
    models: list[str]

    @classmethod
    def of(cls, data: pd.DataFrame, study: str) -> Dashboard:
        """The headline scores of a study; a method has one colour, the same as in the figures.

        Raises:
            AnalysisError: nothing was measured, a task under two protocols, or W&B's filters cannot hold the
                study's or a model's name.
        """
        models = list(dict.fromkeys(data["model"]))
        for field, name in [("study", study), *(("model", name) for name in models if len(models) > 1)]:
            if re.search(r"""['"\\]""", name) or not name.isprintable():
                told = f"{field}={name!r}: no filter of W&B holds it"
                raise collect.AnalysisError(f"{told}; valid: a name without quotes, \\ or line breaks")
        chosen = collect.select(data)
        collect.check_protocols(chosen)
        measured = chosen.drop_duplicates(["task", "metric"])
        if measured.empty:
            raise collect.AnalysisError(f"study={study!r}: no headline row to show")
        scores = [Score(row.task, row.metric, bool(row.higher_is_better)) for row in measured.itertuples()]
        cells = data.drop_duplicates("cell")
        looks = style.looks(label for label in dict.fromkeys(cells["label"]) if label != "dense")
        colours = {
            run_id({"cell": row.cell, "study": study}): looks[row.label]["color"]
            for row in cells.itertuples()
            if row.label != "dense"
        }
        return cls(study, scores, colours, models)

    def frontier(self, best: bool = True) -> list[Any]:
        """A panel per task: score over file bytes; of one model also the best score up to each size."""
        import wandb_workspaces.reports.v2 as wr

        return [
            wr.ScatterPlot(
                title=f"{score.title} over bytes",
                x=wr.SummaryMetric("file_bytes"),
                y=wr.SummaryMetric(score.key),
                log_y=style.is_perplexity(score.task, score.metric) or None,
                running_ymax=(best and score.higher) or None,
                running_ymin=(best and not score.higher) or None,
                layout=wr.Layout(x=12 * (i % 2), y=HIGH * (i // 2), w=12, h=HIGH),
            )
            for i, score in enumerate(self.scores)
        ]

    def coordinates(self) -> list[Any]:
        """From the setting on the left to bytes and scores; up is better on every axis of a score."""
        import wandb_workspaces.reports.v2 as wr

        column = wr.ParallelCoordinatesPlotColumn
        columns = [column(wr.SummaryMetric("model"), "model")] if len(self.models) > 1 else []
        columns += [column(wr.Config("label"), "method"), column(wr.Config("budget"), "budget")]
        columns += [column(wr.SummaryMetric(name), name) for name in (*STAGES, "file_bytes")]
        columns += [
            column(wr.SummaryMetric(score.key), score.title, inverted=not score.higher or None)
            for score in self.scores
        ]
        layout = wr.Layout(x=0, y=0, w=WIDE, h=12)
        return [wr.ParallelCoordinatesPlot(columns=columns, title="Settings and scores", layout=layout)]

    def timings(self) -> list[Any]:
        """Mean seconds of every stage, and of every task, by method."""
        import wandb_workspaces.reports.v2 as wr

        tasks = [f"{task}/eval_seconds" for task in dict.fromkeys(score.task for score in self.scores)]
        return [
            wr.BarPlot(
                title=title,
                metrics=list(names),
                groupby=wr.Config("label"),
                groupby_aggfunc="mean",
                title_x="seconds",
                layout=wr.Layout(x=12 * i, y=0, w=12, h=12),
            )
            for i, (title, names) in enumerate((("Seconds by stage", SECONDS), ("Seconds by task", tasks)))
        ]

    def columns(self) -> list[str]:
        """The table: what was asked for, what came of it, and each score."""
        asked = ["run:displayName", "config:label.value", "config:budget.value"]
        told = ["model", *STAGES, "state", *SIZES, "removed_without_fail"]
        told += [name for score in self.scores for name in (score.key, f"{score.key}_state")]
        return asked + [f"summary:{name}" for name in told]

    def workspace(self, entity: str, project: str) -> Any:
        """A view of the project that shows the runs of this study alone."""
        import wandb_workspaces.workspaces as ws
        from wandb_workspaces import expr

        frontier = self.frontier(best=len(self.models) == 1)
        parts = {"Frontier": frontier, "Settings": self.coordinates(), "Timings": self.timings()}
        made = ws.Workspace(
            entity=entity,
            project=project,
            name=self.workspace_title,
            sections=[ws.Section(name=name, panels=found, is_open=True) for name, found in parts.items()],
            settings=ws.WorkspaceSettings(max_runs=100),
            runset_settings=ws.RunsetSettings(
                filters=expr.And(expr.Metric("Group") == self.study),
                run_settings={run: ws.RunSettings(color=colour) for run, colour in self.colours.items()},
                pinned_columns=self.columns(),
            ),
        )
        made._internal_name = f"nw-{self.name}-v"
        return made

    @property
    def name(self) -> str:
        """The workspace's address at W&B, the same each time, so that it is written over and not doubled."""
        return hashlib.sha256(f"crunchmark {self.study}".encode()).hexdigest()[:11]

    def report(self, entity: str, project: str) -> Any:
        """The same panels with words between them."""
        import wandb_workspaces.reports.v2 as wr
        from wandb_workspaces import expr

        def grid(panels: list[Any], columns: Sequence[str] = (), model: str = "") -> Any:
            of_model = [expr.Summary("model") == model] if model else []
            runs = wr.Runset(
                name=self.study,
                filters=expr.And(expr.Metric("Group") == self.study, *of_model),
                run_settings={run: wr.RunSettings(color=colour) for run, colour in self.colours.items()},
                visible_columns=list(columns),
                column_order=list(columns),
                lock_columns=bool(columns) or None,
            )
            return wr.PanelGrid(runsets=[runs], panels=panels, hide_run_sets=not columns)

        several = self.models if len(self.models) > 1 else [""]

        def each(panels: list[Any]) -> list[Any]:
            named = [([wr.H3(model)] if model else [], grid(panels, model=model)) for model in several]
            return [block for title, own in named for block in (*title, own)]

        return wr.Report(
            entity=entity,
            project=project,
            title=self.title,
            description="Compressed language models: what they weigh and what they still know.",
            width="fluid",
            blocks=[
                wr.H2("Frontier"),
                wr.P("Score over bytes on disk. The line is the best score of anything as small."),
                *each(self.frontier()),
                wr.H2("Settings and scores"),
                grid(self.coordinates()),
                wr.H2("Tasks"),
                wr.P("Each score against dense on the same items: match, fail or undecided."),
                grid([], self.columns()),
                wr.H2("Stage timings"),
                *each(self.timings()),
            ],
        )

    @property
    def title(self) -> str:
        """The report's name, of at most 128 characters, by which it is found and written over."""
        whole = f"Crunchmark {self.study}"
        return whole if len(whole) <= LONGEST else f"{whole[: LONGEST - 12]} {self.name}"

    @property
    def workspace_title(self) -> str:
        """The name people see; W&B takes no symbols there."""
        return "".join("-" if unicodedata.category(sign)[0] == "S" else sign for sign in self.title)


def write(folder: Path, made: dict[str, Any]) -> list[Path]:
    """What would be sent, as JSON: `workspace.json` and `report.json`."""
    paths = [folder / f"{kind}.json" for kind in made]
    for path, one in zip(paths, made.values(), strict=True):
        spec = one._to_model().spec.model_dump(mode="json", by_alias=True, exclude_none=True)
        with outfile.whole(path) as temp:
            temp.write_text(json.dumps(spec, indent=1) + "\n", encoding="utf-8")
    return paths


def save(made: dict[str, Any], api: Any) -> list[str]:
    """Send both, over those of an earlier call where there are any; their addresses."""
    workspace, report = made["workspace"], made["report"]
    path = f"{workspace.entity}/{workspace.project}"
    try:
        old = type(workspace).from_url(f"https://wandb.ai/{path}?nw={workspace._internal_name[3:-2]}")
    except ValueError as absent:
        if "not found" not in str(absent):
            raise
    else:
        workspace._internal_id = old._internal_id
    found = [one for one in api.reports(path) if one.display_name == report.title]
    report.id = found[0].id if found else ""
    return [workspace.save().url, report.save().url]


def main(argv: Sequence[str] | None = None) -> list[Path] | command.Answer:
    """Read the options, write both as JSON, and send them unless `--dry`."""
    options = command.parser("A W&B workspace and report of a study")
    options.add_argument("--entity", default="", help="user or team (default: that of --from)")
    options.add_argument("--project", default="", help="default: that of --from, or crunchmark")
    options.add_argument("--dry", action="store_true", help="write the JSON of both and send nothing")
    chosen = options.parse_args(argv)
    data = command.read(chosen)
    away = chosen.source.partition(":")[2].split("/") if chosen.source else ["", "crunchmark"]
    entity, project = chosen.entity or away[0], chosen.project or away[1]
    if not entity and not chosen.dry:
        raise collect.AnalysisError("--entity='': valid: the user or team whose project it is, or --dry")
    shown = Dashboard.of(data, chosen.study)
    try:
        made = {"workspace": shown.workspace(entity, project), "report": shown.report(entity, project)}
    except ImportError as problem:
        raise collect.AnalysisError(MISSING) from problem
    paths = write(Path(chosen.out or Path(chosen.store) / chosen.study / "dashboard"), made)
    if chosen.dry:
        return paths
    try:
        import wandb

        wandb.setup(wandb.Settings(silent=True, x_graphql_timeout_seconds=20, x_graphql_retry_max=1))
        addresses = save(made, wandb.Api(timeout=20))
    except Exception as problem:  # the client's own kinds of error, its transport's, and ValueError
        text = " ".join(f"{type(problem).__name__}: {problem}".split())
        sys.stderr.write(f"error: not sent to W&B ({text}); check --entity, --project and `wandb login`\n")
        return command.Answer(paths, 2)
    sys.stdout.writelines(f"{address}\n" for address in addresses)
    return paths


if __name__ == "__main__":
    sys.exit(command.run(main))
