import json
from collections import defaultdict
from types import SimpleNamespace

import pytest

from analysis import collect, command, tables
from crunchmark import track

pytestmark = pytest.mark.slow

WHERE = "wandb:me/crunch"


def run(summary, name="svd 0.3", group="demo", state="finished"):
    return SimpleNamespace(name=name, group=group, state=state, summary=summary)


def holding(rows, **facts):
    return run(track.summary(rows), **facts)


class FakeApi:
    """What collect needs of wandb.Api: runs of a project from old to new, filtered by group."""

    def __init__(self, *runs, error=None):
        self.all, self.error = runs, error

    def runs(self, path, filters=None, lazy=True):
        if self.error:
            raise self.error
        assert path == "me/crunch"
        wanted = (filters or {}).get("group")
        return [run for run in self.all if wanted in (None, run.group)]


class RealApi:
    """wandb's own client classes over answers of the shape its server gives."""

    def __init__(self, *nodes):
        self.nodes = nodes

    def runs(self, path, filters=None, lazy=True):
        from wandb.apis.public import Runs

        return Runs(self, *path.split("/"), filters=filters, lazy=lazy)

    def execute_graphql(self, query, variables, **_):
        wanted = json.loads(variables["filters"]).get("group")
        nodes = [node for node in self.nodes if wanted in (None, node["group"])]
        if "summaryMetrics" not in query:
            nodes = [{key: value for key, value in node.items() if key != "summaryMetrics"} for node in nodes]
        edges = [{"node": node, "cursor": str(i)} for i, node in enumerate(nodes)]
        page = {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}
        return {"project": {"internalId": "1", "runCount": len(nodes), "readOnly": False, "runs": page}}


def node(rows, number, group="demo", state="finished"):
    return {
        **{"id": f"id{number}", "name": track.run_id(rows[0]), "displayName": f"run {number}"},
        **{"group": group, "state": state, "config": "{}", "projectId": "1", "historyKeys": None},
        "summaryMetrics": json.dumps(track.summary(rows)),
    }


def cells(rows):
    found = defaultdict(list)
    for row in rows:
        found[row["cell"]].append(row)
    return list(found.values())


def shown(data):
    return collect.points(collect.select(data))


def test_what_the_tracker_tells_is_the_study_as_the_store_has_it(root, rows):
    api = FakeApi(*map(holding, cells(rows)), holding(rows[:1], group="other"))
    away, here = collect.load_wandb(WHERE, "demo", api), collect.load("demo", root)
    assert shown(away).equals(shown(here))
    assert collect.gone(away)["state"].to_list() == collect.gone(here)["state"].to_list()


def test_wandbs_own_client_gives_what_is_read(rows, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    nodes = [node(cell, i) for i, cell in enumerate(cells(rows))]
    found = collect.load_wandb(WHERE, "demo", RealApi(*nodes, node(rows[:1], 99, group="other")))
    assert shown(found).equals(shown(collect.frame(rows)))
    with pytest.raises(
        collect.AnalysisError, match=r"study='dem'.*known: demo, other; did you mean 'demo'\?"
    ):
        collect.load_wandb(WHERE, "dem", RealApi(*nodes, node(rows[:1], 99, group="other")))


def test_runs_that_have_no_rows_yet_are_passed_over(rows):
    api = FakeApi(run({}, state="running"), holding(rows), run({"_runtime": 3}, state="crashed"))
    assert shown(collect.load_wandb(WHERE, "demo", api)).equals(shown(collect.frame(rows)))


def test_a_study_with_unfinished_runs_only_says_so(rows):
    api = FakeApi(run({}, state="running"), run({}, state="crashed"))
    with pytest.raises(
        collect.AnalysisError, match=r"none of its 2 runs in wandb:me/crunch has rows yet \(run"
    ):
        collect.load_wandb(WHERE, "demo", api)


def test_a_missing_group_names_those_there_are(rows):
    with pytest.raises(collect.AnalysisError, match=r"study='dmeo'.*known: demo; did you mean 'demo'\?"):
        collect.load_wandb(WHERE, "dmeo", FakeApi(holding(rows), run({}, group=None)))


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_runs_of_a_cell_the_rows_written_last_count(rows, order):
    old = [row | {"written": 1.0, "value": 0.123} for row in rows]
    new = [row | {"written": 2.0} for row in rows]
    found = collect.load_wandb(WHERE, "demo", FakeApi(*[holding(old), holding(new)][::order]))
    assert len(found) == len(rows)
    assert 0.123 not in set(found["value"])


def test_a_cell_that_failed_first_and_worked_later_has_only_its_scores(rows):
    (cell,) = [cell for cell in cells(rows) if cell[0]["method"] == "svd" and cell[0]["budget"] == 0.3]
    facts = {key: cell[0][key] for key in ("study", "cell", "model", "method", "budget", "accounting")}
    failed = facts | {"state": "failed", "reason": "MemoryError: 3 GB", "written": 1.0}
    worked = [row | {"written": 2.0} for row in cell]
    found = collect.load_wandb(WHERE, "demo", FakeApi(holding([failed]), holding(worked)))
    assert collect.gone(found).empty
    assert len(found) == len(cell)


def test_rows_without_a_time_of_writing_are_put_together(rows):
    api = FakeApi(holding(rows[:5]), holding(rows[3:]))
    assert shown(collect.load_wandb(WHERE, "demo", api)).equals(shown(collect.frame(rows)))


@pytest.mark.parametrize("text", ["[{", "[1]", '{"a": 1}', 7])
def test_a_broken_summary_names_the_run(text):
    with pytest.raises(
        collect.AnalysisError, match=r"run 'svd 0.3': summary 'rows' is not a JSON list of rows"
    ):
        collect.load_wandb(WHERE, "demo", FakeApi(run({"rows": text})))


@pytest.mark.parametrize("where", ["me/crunch", "wandb:", "wandb:me", "wandb:a/b/c", "wandb:/x"])
def test_the_form_of_from_is_said(where):
    with pytest.raises(collect.AnalysisError, match="valid is wandb:entity/project"):
        collect.load_wandb(where, "demo", FakeApi())


def test_an_error_of_the_client_is_one_line(rows):
    away = FakeApi(error=ConnectionError("refused\nwhile retrying"))
    with pytest.raises(collect.AnalysisError, match=r"'wandb:me/crunch': no answer.*refused while") as caught:
        collect.load_wandb(WHERE, "demo", away)
    assert "\n" not in str(caught.value)


def test_the_command_says_one_line_without_a_key(monkeypatch, capsys):
    def keyless(**_):
        raise ValueError("No API key configured")

    monkeypatch.setattr("wandb.Api", keyless)
    assert command.run(tables.main, ["demo", "--from", WHERE]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --from='wandb:me/crunch': no answer from W&B (ValueError: No API key")
