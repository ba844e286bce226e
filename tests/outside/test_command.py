"""What a user types: `python run.py ...`, offline, with names from outside."""

import json

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException

from crunchmark.machine import ROOT
from crunchmark.store import Store

pytestmark = pytest.mark.slow

QUICK = ("method=svd", "limit=3")


def tasks_of(tmp_path):
    """The tasks of each cell of the study `s`, with the ids of their items."""
    store = Store(tmp_path / "results")
    found = {}
    for folder in sorted((tmp_path / "results" / "s").glob("*/cell.json")):
        names = [p.stem.removeprefix("task-") for p in sorted(folder.parent.glob("task-*.json"))]
        key = folder.parent.name
        found[key] = {name: [i[0] for i in store.get_task("s", key, name)["items"]] for name in names}
    return found


def test_a_sweep_over_lm_evals_names_keeps_items_of_each(run, hub, tmp_path, real):
    calib = ("calib=wikitext2", "calib.split=validation", "calib.n=4", "calib.length=64")
    model = f"model.path={real / 'models' / 'stories260K'}"
    done = run("-m", "task=arc_easy,piqa", "method=wanda", "limit=3", model, *calib)
    assert done.returncode == 0, done.stderr[-2000:]
    cells = tasks_of(tmp_path)
    assert len(cells) == 2  # the dense parent and wanda
    for tasks in cells.values():
        assert {name: len(set(ids)) for name, ids in tasks.items()} == {"arc_easy": 3, "piqa": 3}
    row = Store(tmp_path / "results").rows("s")[0]
    assert row["model"] == "stories260K"


def test_a_list_of_tasks_is_one_cell(run, hub, tmp_path):
    done = run("task=[arc_easy,nano_mcr,ppl_nano]", *QUICK)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [set(tasks) for tasks in tasks_of(tmp_path).values()] == [{"arc_easy", "nano_mcr", "ppl_nano"}] * 2


def test_perplexity_of_ones_own_text(run, tmp_path):
    text = tmp_path / "mine.jsonl"
    text.write_text("\n".join(json.dumps({"body": "The quiet boat waited. " * 30}) for _ in range(9)))
    own = (f"task.ppl.path={text}", "task.ppl.field=body", "task.ppl.window=64")
    done = run("task=ppl", *own, f"calib.path={text}", "calib.field=body", "calib.length=32", *QUICK)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = Store(tmp_path / "results").rows("s")
    assert {row["protocol"][:11] for row in rows} == {"ppl-w64-s64"}


@pytest.fixture
def composed():
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        yield lambda *overrides: compose("config", overrides=list(overrides))


@pytest.mark.parametrize(
    ("override", "near", "valid"),
    [
        ("method=svdd", "nearest: svd", "svd_llm, vq, wanda"),
        ("model=llama2", "nearest: llama2_7b", "nano, opt_125m"),
        ("calib=wikitext", "nearest: wikitext2", "c4, fineweb_edu, jsonl, nano, npy, text, wikitext2"),
        ("track=nona", "nearest: none", "none"),
        ("task=kick_nan", "nearest: kick_nano", "ppl_nano"),
        ("task=arc_esy", "nearest: arc_easy", "or any task, group or tag of lm-eval"),
        ("task=[arc_easy,pikka]", "piqa", "or any task"),
        ("method=00000", "'00000' is unknown; valid: afm", "wanda"),
    ],
)
def test_a_wrong_name_is_one_line_with_the_nearest(composed, override, near, valid):
    with pytest.raises(ConfigCompositionException) as e:
        composed(override)
    message = str(e.value)
    assert "\n" not in message
    assert message.startswith(override.split("=")[0] + "='")
    assert near in message
    assert valid in message.split("valid: ")[1]


def test_real_names_still_compose(composed):
    cfg = composed("task=[arc_easy,kick_nano,ppl]", "calib=c4", "method=wanda", "model=pythia_160m")
    assert {"arc_easy", "nano_mcr", "ppl_nano", "ppl"} <= set(cfg.task)
    assert cfg.calib.inputs == "compressed"
    assert (cfg.calib.n, cfg.calib.length) == (128, 2048)


def test_a_config_folder_of_the_users_own_is_asked_first(run, tmp_path):
    (tmp_path / "mine" / "method").mkdir(parents=True)
    own = (ROOT / "conf" / "method" / "svd.yaml").read_text()
    (tmp_path / "mine" / "method" / "ours.yaml").write_text(own)
    done = run("--config-dir", str(tmp_path / "mine"), "--cfg", "job", "method=ours")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "methods.svd.SVD" in done.stdout


def test_the_command_says_a_wrong_name_in_one_line(run):
    done = run("-m", "method=svd,svdd")
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if "svdd" in line]
    assert lines[0].startswith("error: method='svdd' is unknown; nearest: svd")
    assert "Traceback" not in done.stderr


def test_a_model_of_the_hub_without_network_is_one_line(run):
    done = run("model=llama2_7b", "task=ppl_nano")
    assert done.returncode == 2
    line = next(line for line in done.stderr.splitlines() if "Llama-2-7b" in line)
    assert line.startswith("error: model.path=meta-llama/Llama-2-7b-hf is no local folder")
    assert "the hub is offline and it is not in the cache" in line
    assert "Traceback" not in done.stderr
