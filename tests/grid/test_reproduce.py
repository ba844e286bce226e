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


def named(config, task):
    """METHOD[_ALLOCATOR][_NofM][_gGROUP][_WINDOW]_MODEL: what a study's name says of it."""
    chosen, method = config.hydra.runtime.choices, config.method
    run, group = method.get("run", 0), method.get("group") or -1
    told = [] if chosen.allocate == "uniform" else [chosen.allocate]
    told += [f"{run // 2}of{run}"] if run else []
    told += [f"g{group}"] if group > 0 else []
    told += [str(task.window)] if task.window != 2048 else []
    return "_".join([chosen.method, *told, chosen.model])


def test_there_are_as_many_as_documented():
    assert len(NAMES) == 50
    page = Path(ROOT, "docs", "reproduce.md").read_text()
    listed = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert [name for name in NAMES if name not in listed] == []
    for name in NAMES:
        expected = OmegaConf.load(CONF / "experiment" / "reproduce" / f"{name}.yaml").expected
        shown = ", ".join(f"{budget}: {value:g}" for budget, value in expected["values"].items())
        assert f"| {expected.dense:g} | {shown} |" in listed[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_composes_and_asks_for_what_it_expects(name):
    config = composed(f"experiment=reproduce/{name}", "hydra.job.num=0")
    expected = OmegaConf.to_container(config.expected)
    assert check_expected(expected) == expected
    assert config.study == name
    asked = [budget for grid in config.hydra.sweeper.grids for budget in str(grid.budget).split(",")]
    assert asked == list(expected["values"])
    assert list(config.task) == [expected["task"]]
    task = instantiate(config.task[expected["task"]])
    assert expected["metric"] in task.metrics()
    assert task.bos is ("2410.14649" not in expected["source"])  # EvoPress's code adds none
    assert None not in (instantiate(config.method), instantiate(config.allocate))
    assert name == named(config, task)
    assert config.calib.length in (task.window, 2048)
    assert config.calib.n in (16, 32, 128, 256, 1024, 2048)
    assert config.accounting == "nominal"
    assert expected["status"] == "not attempted here"
    assert "arXiv" in expected["source"] or "second hand" in expected["source"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("shortgpt_evopress")])
def test_a_search_as_long_as_the_paper_has_it(name):
    grids = composed(f"experiment=reproduce/{name}", "hydra.job.num=0").hydra.sweeper.grids
    for grid, removed in zip(grids, (4, 8, 12, 16), strict=True):  # of 32 blocks
        cell = [f"{option}={value}" for option, value in grid.items()]
        config = composed(f"experiment=reproduce/{name}", "hydra.job.num=0", *cell)
        assert config.budget == removed / 32
        assert instantiate(config.allocate).generations == int(removed * (32 - removed) / 1.5)


def test_half_a_claim_is_refused():
    assert check_expected(None) is None
    for claim in ({"value": 3}, 5.0, {}):
        with pytest.raises(ValueError, match=r"expected=.* is incomplete; valid: null, or dense, metric"):
            check_expected(claim)
