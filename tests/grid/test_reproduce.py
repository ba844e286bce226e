"""Every experiment under reproduce/ composes, asks for the budgets it expects, and names its source."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import OmegaConf

from crunchmark.cell import check_expected
from crunchmark.machine import ROOT

CONF = ROOT / "conf"
NAMES = sorted(path.stem for path in (CONF / "experiment" / "reproduce").glob("*.yaml"))


def composed(*overrides):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base=None):
        return compose("config", list(overrides), return_hydra_config=True)


def test_there_are_as_many_as_documented():
    assert len(NAMES) == 11
    page = Path(ROOT, "docs", "reproduce.md").read_text()
    assert all(f"`{name}`" in page for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_composes_and_asks_for_what_it_expects(name):
    config = composed(f"experiment=reproduce/{name}", "hydra.job.num=0")
    (grid,) = config.hydra.sweeper.grids
    expected = OmegaConf.to_container(config.expected)
    assert check_expected(expected) == expected
    assert config.study == name
    assert str(grid.budget).split(",") == list(expected["values"])
    assert list(config.task) == [expected["task"]]
    task = instantiate(config.task[expected["task"]])
    assert expected["metric"] in task.metrics()
    assert (task.window, task.bos) == (2048, True)
    assert instantiate(config.method) is not None
    chosen = config.hydra.runtime.choices
    around = [] if chosen.allocate == "uniform" else [chosen.allocate]
    assert name == "_".join([chosen.method, *around, chosen.model])
    assert (config.calib.n in (128, 256, 1024), config.calib.length) == (True, 2048)
    assert config.accounting == "nominal"
    assert expected["status"] == "not attempted here"
    assert "arXiv" in expected["source"] or "second hand" in expected["source"]


def test_half_a_claim_is_refused():
    assert check_expected(None) is None
    for claim in ({"value": 3}, 5.0, {}):
        with pytest.raises(ValueError, match=r"expected=.* is incomplete; valid: null, or dense, metric"):
            check_expected(claim)
