"""Rows of older and newer versions of the schema, from the store and from W&B."""

import json
from types import SimpleNamespace

import pytest
from scored_study import DENSE, GOOD, cell, compared

from analysis import collect, command, pool, schema, tables
from crunchmark.store import SCHEMA, Store


def edited(root, study, change):
    """Every JSON file of a study, changed in place."""
    for path in (root / study).glob("*/*.json"):
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))


def bare(data):
    """As rows were before there was a schema version."""
    for row in data.get("rows", []):
        for name in ("higher_is_better", "headline", "margin"):
            row.pop(name)


def api(rows):
    """A W&B whose one run left these rows."""
    run = SimpleNamespace(name="run", group="old", state="finished", summary={"rows": json.dumps(rows)})
    return SimpleNamespace(runs=lambda path, **_: [run])


@pytest.fixture
def root(tmp_path):
    for study, nats in (("old", GOOD["ppl"]), ("worse", [x + 1 for x in GOOD["ppl"]])):
        cell(tmp_path, study, "dense", 0.0, DENSE)
        cell(tmp_path, study, "wanda", 0.2, {"mcr": GOOD["mcr"], "ppl": nats}, DENSE)
    return tmp_path


def test_there_is_a_step_from_every_older_version():
    assert len(schema.STEPS) == SCHEMA


def test_rows_without_a_version_are_judged_in_the_right_direction(root):
    for study in ("old", "worse"):
        edited(root, study, bare)
    data = collect.load("old", root)
    assert dict(zip(data["task"], data["higher_is_better"], strict=True)) == {"mcr": True, "ppl": False}
    assert set(data["margin"]) == {0.05}
    found = compared(root, "old", "worse")
    assert {line.task: line.verdict for line in found.lines.itertuples() if line.cell_a.startswith("w")} == {
        "mcr": "identical",
        "ppl": "regression",
    }


def test_old_tasks_of_a_cell_that_was_written_again_are_old(root):
    edited(root, "old", lambda data: data.update(schema=SCHEMA) if "cell" in data else bare(data))
    assert {row["schema"] for row in Store(root).rows("old")} == {0}
    assert not collect.load("old", root).query("task == 'ppl'")["higher_is_better"].any()


def test_a_metric_without_a_margin_is_told_by_rows_that_have_a_version(root):
    def told(data):
        data["schema"] = SCHEMA
        for row in data.get("rows", []):
            row["margin"] = None
            row["state"] = "dense" if row["state"] == "dense" else "measured"

    edited(root, "old", told)
    found = compared(root, "old", "old")
    assert set(found.lines["margin"]) == {None}
    assert set(found.lines["state"]) == {"measured"}


@pytest.mark.parametrize("where", ["cell", "rows"])
@pytest.mark.parametrize("version", [SCHEMA + 1, "x", None, -1])
def test_an_unknown_version_is_one_line_that_names_it(root, capsys, where, version):
    edited(root, "old", lambda data: data.update(schema=version if where in data else SCHEMA))
    assert command.run(tables.main, ["old", "--store", str(root)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: study='old', cell='")
    assert f"schema={version!r}: known are 0 to {SCHEMA}; newer rows need" in err
    assert err.count("\n") == 1


def test_rows_of_wandb_have_versions_too(root):
    edited(root, "old", bare)
    rows = Store(root).rows("old")
    found = collect.load_wandb("wandb:me/crunch", "old", api(rows))
    assert not found.query("task == 'ppl'")["higher_is_better"].any()
    with pytest.raises(collect.AnalysisError, match=f"schema={SCHEMA + 1}: known are 0 to"):
        collect.load_wandb("wandb:me/crunch", "old", api([{**row, "schema": SCHEMA + 1} for row in rows]))


def test_items_without_the_metric_of_their_row_are_one_line(root, capsys):
    def renamed(data):
        data["items"] = [[item[0], "other", *item[2:]] for item in data.get("items", [])]

    cell(root, "old", "wanda", 0.2, GOOD, DENSE, key="f" * 24, calib_seed=1)
    edited(root, "old", renamed)
    assert command.run(tables.main, ["old", "--store", str(root)]) == 2
    err = capsys.readouterr().err
    assert "has no stored items of its metric 'score'" in err
    assert err.count("\n") == 1
    with pytest.raises(ValueError, match="of its metric 'score'"):
        pool.Reader(Store(root), "old").side("f" * 24, "mcr", "score")


@pytest.mark.parametrize("name", ["method", "metric", "value"])
def test_a_row_without_what_every_version_has_is_refused_by_name(root, name):
    def without(data):
        for row in [data, *data.get("rows", [])]:
            row.pop(name, None)

    edited(root, "old", without)
    with pytest.raises(collect.AnalysisError, match=rf"^study=.*, cell='.*': a row without {name}; delete"):
        collect.load("old", root)
