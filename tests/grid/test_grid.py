"""Grids through run.py: every method in one sweep, again for nothing, and a task more."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from forked import Run
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from transformers import AutoConfig, AutoModelForCausalLM

from crunchmark.pulse import signs

HOUSE = Path(__file__).parents[2]
YAMLS = sorted(HOUSE.glob("conf/*/*.yaml"))
METHODS = sorted(p.stem for p in (HOUSE / "conf/method").glob("*.yaml"))
TEXT = "path=tasks/nano/data/ppl.txt"
GIVEN = {
    f"task/{name}": [f"task.{name}.{TEXT}"] for name in ("ppl", "fidelity")
}  # what a yaml leaves to its user
GIVEN |= {f"task/{v}_instruct": [f"task.{v}_instruct.{TEXT}"] for v in ("kick", "kick_paper", "kick_code")}
GIVEN |= {"task/kick_code_summ": [f"task.kick_code_summ_{b}.path=tasks/nano" for b in "sml"]}
GRID = (
    *("-m", f"method={','.join(METHODS)}", "budget=0.5", "limit=2", "calib.n=4", "study=all"),
    "task=[nano_factoid,ppl_nano]",
)


def table(output):
    """The lines of the table at the end, without the seconds."""
    lines = output[output.index("method ") :].splitlines()
    rows = [line for line in lines if line.split(" ")[0] in METHODS and " budget=" not in line]
    return [line.rsplit(maxsplit=2)[0] for line in rows]


def written(folder, pattern="**/*.json"):
    return {p: p.stat().st_mtime_ns for p in folder.glob(pattern)}


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """As the built-in model, but small and random: here methods are only to get along in one sweep."""
    folder, nano = tmp_path_factory.mktemp("models") / "short", HOUSE / "tasks/nano/model"
    size = {"hidden_size": 96, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 16}
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(nano, **size)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    for file in nano.glob("tokenizer*.json"):
        shutil.copy(file, folder)
    return f"model.path={folder}"


@pytest.fixture(scope="module")
def first(house, short):
    """The whole grid, once."""
    return house(*GRID, short)


@pytest.mark.slow
def test_every_method_in_one_sweep(first, house):
    code, output = first
    assert code == 0, output
    lines = table(output)
    assert len(lines) == len(METHODS)
    assert lines[0].startswith("dense")
    paths = [line.split()[-1] for line in output.splitlines() if line.startswith(("table", "plot"))]
    assert len(paths) >= 2
    assert all((HOUSE / path).is_file() for path in paths)


@pytest.mark.slow
def test_again_computes_nothing_and_prints_the_same(first, house, short):
    before = written(house.folder / "store")
    some = ("svd", "gptq", "slicegpt", "wanda_gptq", "vq", "shortgpt")
    code, output = house("-m", f"method={','.join(some)}", *GRID[2:], short)
    assert code == 0, output
    assert table(output) == table(first[1])  # of the study, whatever was asked for now
    assert written(house.folder / "store") == before


@pytest.mark.slow
def test_a_task_more_recompresses_nothing(first, house, short):
    made = written(house.folder / "cache", "artifacts/*/weights.safetensors")
    assert len(made) == len(METHODS)
    grid = ("-m", "method=svd,gptq", *GRID[2:-1], "task=nano_summ,nano_mcr", short)
    assert house(*grid, "progress=quiet") == (0, "")
    assert written(house.folder / "cache", "artifacts/*/weights.safetensors") == made


@pytest.mark.slow
def test_a_failing_cell_does_not_stop_the_sweep(house, short):
    grid = ("-m", "method=svd,magnitude", "budget=0.3,7", "limit=2", "task=nano_mcr", "study=bad", short)
    code, output = house(*grid)
    assert code == 2
    assert output.count("error: budget=7 is out of range; valid: 0 <= budget < 1, the share to remove") == 2
    assert {line.split()[0] for line in table(output)} == {"dense", "svd", "magnitude"}
    assert "Traceback" not in output


@pytest.mark.slow
def test_kill_9_then_again_is_the_undisturbed_grid(house, short, tmp_path):
    grid = [
        "-m",
        "method=svd,wanda",
        "budget=0.3,0.5",
        "limit=4",
        "calib.n=8",
        "task=nano_mcr,ppl_nano",
        short,
    ]
    words = (*grid, "study=kill", f"store={tmp_path}/s", f"cache.dir={tmp_path}/c")
    kill, process, deadline = tmp_path / "s" / "kill", Run(*words), time.monotonic() + 120
    while time.monotonic() < deadline and not process.ended:
        if len(list(tmp_path.glob("s/kill/*/cell.json"))) > 1 and list(
            tmp_path.glob("s/kill/.running-*.json")
        ):
            break
        time.sleep(0.02)
    process.kill()
    assert process.done()[0] == -signal.SIGKILL
    (left,) = signs(kill)[0].values()
    assert left.gone
    assert left.plan == {"svd": 4, "wanda": 4}
    command = [sys.executable, "run.py", *words]  # the last time as a user starts it, with its own imports
    done = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(kill.glob(".running-*"))
    code, output = house(*grid, "study=kill")
    assert code == 0, output
    assert scores(kill) == scores(house.folder / "store" / "kill")


def scores(folder):
    """Items and rows of all cells, which must be the same to the last bit."""
    found = {}
    for path in sorted(folder.glob("*/task-*.json")):
        data = json.loads(path.read_text())
        found[path.parent.name, path.name] = (data["items"], data["rows"])
    assert len(found) == 10
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [p if p.parent.name == "method" else pytest.param(p, marks=pytest.mark.slow) for p in YAMLS],
    ids=lambda p: f"{p.parent.name}/{p.stem}",
)
def test_every_yaml_composes_and_its_objects_are_made(path):
    group, name = path.parent.name, path.stem
    if group == "hydra":
        pytest.skip("a group of Hydra's own")
    if group == "experiment":
        pytest.skip("its cells compose in test_grids.py")
    with initialize_config_dir(str(HOUSE / "conf"), version_base=None):
        config = compose(
            "config", overrides=[f"{group}={name}", "label=x", *GIVEN.get(f"{group}/{name}", ())]
        )
    resolved = OmegaConf.to_container(config, resolve=True)
    assert resolved[group]
    if group in ("method", "track", "allocate") and name != "replay":  # its file is left to the user
        assert instantiate(resolved[group]) is not None
    if group == "task":
        assert all(instantiate(spec).name == task for task, spec in resolved["task"].items())


def test_the_yaml_files_were_found():
    assert len(YAMLS) >= 30
    assert len(METHODS) >= 9
