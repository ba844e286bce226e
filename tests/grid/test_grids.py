"""A sweep of several grids: which cells it has, how it is shared out, what is refused."""

from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from hydra_plugins.crunchmark_grids import Grids, Products

CONF = str(Path(__file__).parents[2] / "conf")
TWO = [{"method": "svd,rtn", "budget": "0.1,0.2"}, {"method": "rtn,gptq", "budget": 0.2, "seed": "0,1"}]


def cells(grids, part="1/1", arguments=()):
    return Grids(grids, part).cells(OverridesParser.create(), list(arguments))


def test_all_cells_of_all_grids():
    found = cells(TWO)
    assert len(found) == 4 + 4
    assert ["method=svd", "budget=0.1"] in found
    assert ["method=gptq", "budget=0.2", "seed=1"] in found


def test_the_command_line_replaces_an_option_and_twins_run_once():
    assert cells(TWO, arguments=["budget=0.5", "limit=2"])[0] == ["method=svd", "budget=0.5", "limit=2"]
    assert len(cells(TWO, arguments=["seed=0", "budget=0.5"])) == len({"svd", "rtn", "gptq"})


@pytest.mark.parametrize("parts", [1, 2, 3, 20])
def test_parts_share_the_cells_out(parts):
    shares = [cells(TWO, f"{k}/{parts}") for k in range(1, parts + 1)]
    assert sorted(cell for share in shares for cell in share) == sorted(cells(TWO))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("part", ["3/2", "0/2", "1", "a/b", "1/0", "-1/2"])
def test_what_is_no_part_is_refused_with_what_would_be(part):
    with pytest.raises(HydraException, match=rf"hydra.sweeper.part='{part}'; valid: k/n"):
        cells(TWO, part)
    with pytest.raises(HydraException, match="grids is empty"):
        cells([])


def test_before_all_runs_a_cell_of_each_kind_is_composed():
    """Values decide nothing; groups and names of options do."""
    composed = []
    loader = SimpleNamespace(
        list_groups=lambda _: ["method", "allocate", "hydra"],
        load_sweep_config=lambda master_config, sweep_overrides: composed.append(sweep_overrides),
    )
    cells = [
        [f"method={m}", f"allocate={a}", f"budget={b}", f"seed={s}", "method.run=4"]
        for m, a, b, s in product(("svd", "rtn"), ("uniform", "owl"), (0.1, 0.2, 0.3), (0, 1))
    ]
    for sweeper in (Grids([]), Products()):
        composed.clear()
        sweeper.hydra_context, sweeper.config = SimpleNamespace(config_loader=loader), {}
        sweeper.validate_batch_is_legal([*cells, ["method=svd", "~track"], ["+hydra/launcher=joblib"]])
        assert len(composed) == 4 + 2
        assert ["method=svd", "~track"] in composed


def test_a_sweep_is_lean_where_nothing_else_is_said():
    GlobalHydra.instance().clear()
    with initialize_config_dir(CONF, version_base=None):
        target = compose("config", ["method=svd"], return_hydra_config=True).hydra.sweeper._target_
    assert target == f"{Products.__module__}.Products"


@pytest.mark.slow
@pytest.mark.parametrize("name", [p.stem for p in Path(CONF, "experiment").glob("*.yaml")])
def test_every_cell_of_an_experiment_composes(name):
    GlobalHydra.instance().clear()
    with initialize_config_dir(CONF, version_base=None):
        grids = compose("config", [f"experiment={name}"], return_hydra_config=True).hydra.sweeper.grids
        batch = cells([dict(grid) for grid in grids])
        distinct = {tuple(sorted(o for o in cell if not o.startswith(("budget", "seed")))) for cell in batch}
        assert len(batch) > 100
        for cell in batch[:: max(1, len(batch) // 10)]:
            assert compose("config", [f"experiment={name}", *cell]).study == name
        assert len(distinct) > 10


@pytest.mark.parametrize("grids", [5, "a", ["a"]])
def test_what_is_no_list_of_grids_is_refused(grids):
    with pytest.raises(HydraException, match=r"hydra\.sweeper\.grids=.*; valid: a list of options"):
        cells(grids)
