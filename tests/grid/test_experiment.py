"""An experiment through run.py: two processes at once, each with its part."""

import json

import pytest
from forked import Run

TINY = """# @package _global_
defaults:
  - override /hydra/sweeper: grids
  - override /task: nano_mcr
study: tiny
limit: 2
hydra:
  sweeper:
    grids:
      - {method: "magnitude,rtn", budget: "0.5"}
      - {method: svd, budget: "0.3"}
"""
CELLS = {"magnitude budget=0.5", "rtn budget=0.5", "svd budget=0.3"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """tiny(folder, *words) -> the running process of the experiment's cells, one store per folder."""
    conf = tmp_path_factory.mktemp("conf")
    (conf / "experiment").mkdir()
    (conf / "experiment" / "tiny.yaml").write_text(TINY)

    def start(folder, *words):
        where = [f"store={folder}/store", f"cache.dir={folder}/cache"]
        return Run("-m", "--config-dir", str(conf), "experiment=tiny", *words, *where)

    return start


def told(process):
    """The cells a process said it had finished, once it ended well."""
    code, _, errors = process.done()
    assert code == 0, errors
    return [line.partition(":")[0] for line in errors.splitlines() if " budget=" in line]


def scored(folder):
    """Items and rows of all cells, which must be the same to the last bit."""
    found = {}
    for path in sorted(folder.glob("store/tiny/*/task-*.json")):
        data = json.loads(path.read_text())
        found[path.parent.name, path.name] = (data["items"], data["rows"])
    return found


@pytest.mark.slow
def test_two_parts_at_once_are_one_process_and_each_cell_runs_once(tiny, tmp_path):
    both = [tiny(tmp_path / "two", f"hydra.sweeper.part={k}/2") for k in (1, 2)]
    shares = [told(process) for process in both]
    assert sorted(map(len, shares)) == [1, 2]
    assert sorted(cell for share in shares for cell in share) == sorted(CELLS)
    assert set(told(tiny(tmp_path / "one"))) == CELLS
    alone = scored(tmp_path / "one")
    assert len(alone) == 3 + 1
    assert scored(tmp_path / "two") == alone
    made = {name: list((tmp_path / name / "cache/artifacts").glob("[!.]*")) for name in ("one", "two")}
    assert len(made["one"]) == len(made["two"]) == 3 + 1


@pytest.mark.slow
def test_a_config_error_in_a_study_that_is_there_prints_the_error_and_nothing_else(house):
    grid = ("method=magnitude", "limit=2", "task=nano_mcr", "study=there")
    code, output = house(*grid, "budget=0.5")
    assert (code, output.count("on disk")) == (0, 2)  # the cell's own line, and the table
    code, output = house(*grid, "budget=7")
    assert code == 2
    assert output == "error: budget=7 is out of range; valid: 0 <= budget < 1, the share to remove\n"
