"""Which run a cell is: its own, the same anywhere; under an agent of a W&B sweep, the agent's."""

import pytest
import yaml
from cell_runs import CELL, CONFIG, LOST, ROWS, folders, read
from hydra import compose, initialize_config_dir

from crunchmark import told, track
from crunchmark.machine import ROOT
from crunchmark.track import WandB

SWEEP = yaml.safe_load((ROOT / "docs" / "wandb_sweep.yaml").read_text(encoding="utf-8"))
DENSE = [CELL | {"method": "dense", "budget": 0.0, "cell": "de" * 32}]


@pytest.fixture
def agent(monkeypatch, tmp_path):
    """What `wandb agent` leaves in the environment of the program it starts."""
    (tmp_path / "params.yaml").write_text("budget: {value: 0.3}\n")
    values = ("sweep1", str(tmp_path / "params.yaml"), "agents1")
    for name, value in zip(track.AGENT, values, strict=True):
        monkeypatch.setenv(name, value)
    track.package().teardown()
    yield
    monkeypatch.undo()
    track.package().teardown()


@pytest.mark.slow
def test_a_cell_logged_on_two_machines_is_one_run_started_anew_each_time(tmp_path):
    runs = []
    for machine in ("a", "b"):
        WandB(dir=str(tmp_path / machine), mode="offline").log(CONFIG, LOST)
        runs += [read(folder)[0] for folder in folders(tmp_path / machine)]
    assert [run.run_id for run in runs] == [track.run_id(CELL)] * 2
    assert not any(run.resumed or run.sweep_id for run in runs)


def test_ids_are_what_they_were_or_synced_runs_would_double():
    assert track.run_id(CELL) == "5c5c5c5c5c5c5c5c5c5c5c5c-5bae4238"


@pytest.mark.slow
def test_an_agents_run_is_its_cells_and_dense_has_its_own(tmp_path, agent):
    tracker = WandB(dir=str(tmp_path), mode="offline")
    for rows in (
        DENSE,
        LOST,
        DENSE,
        LOST,
    ):  # logged before, but the agent waits for it
        tracker.log(CONFIG, rows)
    runs = [read(folder)[0] for folder in folders(tmp_path)]
    found = sorted((run.run_id, run.sweep_id) for run in runs)
    assert found == [("agents1", "sweep1"), ("agents1", "sweep1"), (track.run_id(DENSE[0]), "")]


@pytest.mark.parametrize("allocate", SWEEP["parameters"]["allocate"]["values"])
def test_the_sweeps_command_is_one_that_hydra_takes(allocate):
    given = {"budget": 0.42, "allocate": allocate}
    assert given.keys() == SWEEP["parameters"].keys()
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args  # seconds, of each collection

    made = create_sweep_command_args({"args": {name: {"value": value} for name, value in given.items()}})
    at = SWEEP["command"].index("${program}")
    words = [*SWEEP["command"][at + 1 : -1], *made["args_no_hyphens"]]
    assert SWEEP["command"][at - 2 :: len(SWEEP["command"]) - 1] == ["${env}", "${args_no_hyphens}"]
    assert (ROOT / SWEEP["program"]).is_file()
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        config = compose("config", overrides=words)
    assert (config.budget, config.study, config.track.mode) == (0.42, "wandb_sweep", "online")
    assert config.method["_target_"].startswith("methods.wanda.")
    assert config.allocate["_target_"].split(".")[-2] in (allocate, "allocation")
    assert config.track.project == SWEEP["project"]


def test_the_sweep_looks_at_what_a_run_tells():
    name = SWEEP["metric"]["name"]
    assert told.summary([row | {"state": "match"} for row in ROWS])[name] == CELL["achieved_bytes"]
    assert told.summary(ROWS)[name] == -1.0
    assert told.summary([ROWS[0] | {"state": "match"}, ROWS[1]])[name] == -0.5
    assert told.summary([ROWS[0] | {"state": "match"}, ROWS[1] | {"headline": False}])[name] == 0.299
    assert told.summary(LOST)[name] is None
    crashed = {"state": "failed", "reasons": {"mcr": "out of memory"}, "achieved_bytes": 0.7}
    assert told.summary([crashed, ROWS[0] | {"state": "match"}])[name] == -0.5
    budget = SWEEP["parameters"]["budget"]
    assert 0 <= budget["min"] < budget["max"] < 1


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"allocate": {"_target_": "methods.allocate.owl.OWL"}}, ("owl", "none")),
        ({"compensate": {"_target_": "methods.compensate.eora.EoRA"}}, ("uniform", "eora")),
        ({}, ("uniform", "none")),
        (None, (None, None)),
    ],
)
def test_stages_have_the_names_of_the_command_line(config, expected):
    found = told.summary([CELL | {"config": config}])
    assert (found["allocate"], found["compensate"]) == expected


def test_a_run_that_tells_more_than_it_did_is_logged_again(tmp_path, fake, monkeypatch):
    there = fake()
    for name in ("summary", "less", "less"):
        if name == "less":
            monkeypatch.setattr(track, "summary", lambda rows: {"rows": "[]"})
        WandB(dir=str(tmp_path)).log(CONFIG, ROWS)
    assert len(there.sent) == 2
