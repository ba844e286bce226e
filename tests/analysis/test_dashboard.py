import importlib
import json
import re
from types import SimpleNamespace

import pytest
import synthetic_study

from analysis import collect, command, dashboard
from crunchmark.store import run_id
from crunchmark.told import summary

wandb = pytest.importorskip("wandb")
pytest.importorskip("wandb_workspaces")  # its parts take seconds, of each collection


class Server:
    """Answers in the shapes the server's API declares; keeps views by id, as upsertView does."""

    app_url = "https://wandb.test"

    def __init__(self):
        self.views, self.sent = {}, []

    def execute_graphql(self, query, variables):
        declared = set(re.findall(r"\$(\w+): ", query.partition("{")[0]))
        name = re.search(r"(?:query|mutation) (\w+)", query)[1]
        self.sent.append((name, variables))
        if name == "View":
            found = [
                {"node": {key: view[key] for key in ("id", "displayName", "spec")}}
                for view in self.views.values()
                if view["name"] == variables["viewName"]
            ]
            return {"project": {"allViews": {"edges": found}}}
        assert set(variables) - {"locked"} <= declared
        key, new = variables.get("id") or f"Vmlldzo{len(self.views)}", not variables.get("id")
        self.views[key] = variables | {"id": key}
        project = {"id": "p", "name": variables["projectName"], "entityName": variables["entityName"]}
        return {"upsertView": {"view": self.views[key] | {"project": project}, "inserted": new}}

    def kind(self, kind):
        return [view for view in self.views.values() if view["type"] == kind]


class Api:
    def __init__(self, server):
        self._service_api = server

    def projects(self, entity):
        return [SimpleNamespace(name="crunchmark")]

    def reports(self, path):
        views = self._service_api.kind("runs")
        return [SimpleNamespace(id=view["id"], display_name=view["displayName"]) for view in views]


@pytest.fixture
def server(monkeypatch):
    made = Server()
    monkeypatch.setattr(wandb, "Api", lambda **_: Api(made))
    return made


@pytest.fixture
def dry(root, tmp_path):
    argv = ["demo", "--store", str(root), "--dry", "--out", str(tmp_path / "out")]
    assert command.run(dashboard.main, argv) == 0
    return [json.loads((tmp_path / "out" / f"{kind}.json").read_text()) for kind in ("workspace", "report")]


def named(node):
    """Every key of a run that a spec looks at."""
    if isinstance(node, dict):
        yield from node.get("metrics", []) if node.get("metrics") else []
        for value in node.values():
            yield from named(value)
        yield from named(list(node))
    elif isinstance(node, list):
        for value in node:
            yield from named(value)
    elif isinstance(node, str) and node.startswith(("summary:", "config:")):
        yield node.removeprefix("summary:")


def test_every_key_of_every_panel_is_one_the_tracker_writes(dry, rows):
    cells = {}
    for row in rows:
        cells.setdefault(row["cell"], []).append(row)
    written = {name for cell in cells.values() for name in summary(cell)}
    config = {"config:label.value", "config:budget.value"}  # what run.py names each cell by
    for spec in dry:
        used = set(named(spec))
        assert used <= written | config, used - written - config
        assert used >= {"file_bytes", "nano_factoid/exact_match", "nano_ppl/perplexity", *config}
        assert used >= {f"{stage}_seconds" for stage in ("load", "allocate", "compress", "pack")}


def test_the_specs_are_what_w_and_b_reads(dry):
    workspace, report = dry
    internal = importlib.import_module("wandb_workspaces.workspaces.internal")
    assert internal.WorkspaceViewspec.model_validate(workspace)
    sections = workspace["section"]["panelBankConfig"]["sections"]
    views = [[panel["viewType"] for panel in section["panels"]] for section in sections]
    assert views == [["Scatter Plot"] * 3, ["Parallel Coordinates Plot"], ["Bar Chart"] * 2]
    grids = [block for block in report["blocks"] if block["type"] == "panel-grid"]
    assert len(grids) == 4
    for runs in [*workspace["section"]["runSets"], *(g["metadata"]["runSets"][0] for g in grids)]:
        assert '"demo"' in json.dumps(runs["filters"])
    lower = [p["config"] for p in sections[0]["panels"] if "showMinYAxisLine" in p["config"]]
    assert [panel["yAxis"] for panel in lower] == ["summary:nano_ppl/perplexity"]


def test_a_method_has_one_colour(dry, rows):
    colours = dry[0]["section"]["customRunColors"]
    found = {(row["method"], colours.get(run_id(row))) for row in rows}
    assert len(found) == len({row["method"] for row in rows}) == len({colour for _, colour in found})
    assert ("dense", None) in found


@pytest.mark.slow
def test_sent_twice_it_is_the_same_workspace_and_report(root, server, capsys):
    for _ in range(2):
        assert command.run(dashboard.main, ["demo", "--store", str(root), "--entity", "me"]) == 0
    assert [len(server.kind(kind)) for kind in ("project-view", "runs")] == [1, 1]
    assert {v["displayName"] for v in server.views.values()} == {"Crunchmark demo"}
    assert all(v["entityName"] == "me" and v["projectName"] == "crunchmark" for v in server.views.values())
    out = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("https://wandb.test/me/crunchmark") for line in out) == 4


def test_without_a_key_the_specs_are_written_and_it_says_so(root, monkeypatch, capsys):
    def keyless(**_):
        raise ValueError("No API key configured.\nUse `wandb login`")

    monkeypatch.setattr(wandb, "Api", keyless)
    assert command.run(dashboard.main, ["demo", "--store", str(root), "--entity", "me"]) == 2
    out, err = capsys.readouterr()
    assert [line.rpartition("/")[2] for line in out.splitlines()] == ["workspace.json", "report.json"]
    (line,) = err.splitlines()
    assert "not sent to W&B (ValueError: No API key configured. Use `wandb login`)" in line


def test_without_an_entity_it_says_what_is_missing(root, capsys):
    assert command.run(dashboard.main, ["demo", "--store", str(root)]) == 2
    assert "--entity=''" in capsys.readouterr().err


def test_a_study_with_no_score_has_nothing_to_show(tmp_path, rows, store_rows, capsys):
    store_rows(tmp_path / "r", "demo", [row for row in rows if "task" not in row])
    assert command.run(dashboard.main, ["demo", "--store", str(tmp_path / "r"), "--dry"]) == 2
    assert "study='demo': no headline row" in capsys.readouterr().err


def test_models_are_kept_apart():
    rows = [row for name in ("large", "small") for row in synthetic_study.rows("demo", model=name)]
    made = dashboard.Dashboard.of(collect.frame(rows), "demo")
    specs = [m._to_model().spec.model_dump(mode="json", by_alias=True, exclude_none=True)
             for m in (made.workspace("me", "p"), made.report("me", "p"))]  # fmt: skip
    panels = specs[0]["section"]["panelBankConfig"]["sections"][0]["panels"]
    assert not any("showMinYAxisLine" in p["config"] or "showMaxYAxisLine" in p["config"] for p in panels)
    assert "summary:model" in json.dumps(specs[0])
    grids = [block["metadata"] for block in specs[1]["blocks"] if block["type"] == "panel-grid"]
    filters = [json.dumps(grid["runSets"][0]["filters"]) for grid in grids]
    assert [('"large"' in text, '"small"' in text) for text in filters] == [
        (True, False), (False, True), (False, False), (False, False), (True, False), (False, True)
    ]  # fmt: skip
    hostile = [row | {"model": "a'b"} if row["model"] == "small" else row for row in rows]
    with pytest.raises(collect.AnalysisError, match="model="):
        dashboard.Dashboard.of(collect.frame(hostile), "demo")


def test_studies_alike_have_reports_of_their_own(rows):
    names = ["lr=1", "lr+1", "s" * 300, "s" * 299]
    made = [dashboard.Dashboard.of(collect.frame(rows), name) for name in names]
    assert len({one.title for one in made}) == len(names)
    assert max(len(one.title) for one in made) <= 128


@pytest.mark.parametrize("study", ["x) or (y", "ünï", "Group == 1 $", "s" * 300])
def test_hostile_names_stay_names(rows, study):
    made = dashboard.Dashboard.of(collect.frame(rows), study)
    for one in (made.workspace("me", "p"), made.report("me", "p")):
        spec = json.loads(one._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
        assert json.dumps(study) in json.dumps(spec)


@pytest.mark.parametrize("study", ["a'b", 'a "b"', "back\\slash", "line\nbreak"])
def test_names_that_a_filter_would_break_are_refused(rows, study):
    with pytest.raises(collect.AnalysisError, match="valid: a name without quotes") as caught:
        dashboard.Dashboard.of(collect.frame(rows), study)
    assert "\n" not in str(caught.value)
