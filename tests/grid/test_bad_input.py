"""What a user gets wrong on the command line: one line, exit code 2, nothing stored."""

import json

import pytest

BAD = {
    "budget=-1": "budget=-1 is out of range; valid: 0 <= budget < 1",
    "budget=1": "budget=1 is out of range",
    "budget=nan": "budget=nan is out of range",
    "budget=much": "budget='much' is no number",
    "accounting=byte": "accounting='byte' is unknown; valid: bytes, nominal",
    "scope=all": "scope='all' is unknown; valid: blocks, model",
    "study=../evil": "study='../evil' is no name",
    "label=": "label='' is empty",
    "device=cuda": "device=cuda but this machine offers torch no GPU; valid: cpu",
    "device=meta": "device='meta' is not supported; valid: cpu",
    "seed=-1": "calib.seed=-1 is out of range",
    "limit=0": "limit=0",
    "calib.inputs=foo": "calib.inputs='foo' is unknown; valid: dense, compressed",
    "calib.batch=0": "calib.batch=0 is out of range",
    "calib.nn=3": "calib.nn is no field; nearest: n",
    "model.compute=foo": "model.compute='foo' is unknown; valid: bfloat16, float16, float32",
    "model.dtype=float32": "model.dtype='float32' would store twice",
    "model.path=absent/folder": "model.path=absent/folder is no local folder",
    "model.trust_remote_code=maybe": "model.trust_remote_code='maybe' is no switch",
    "cache.max_gb=0": "cache.max_gb=0 is out of range; valid: a positive number",
    "method._target_=os.system": "_target_='os.system' is refused; valid: a name under crunchmark.",
    "method._target_=crunchmark.terms.Dense": "method can not be made",
    "track._target_=methods.svd.SVD": "is of another kind; valid: a Tracker",
    "method.runn=4": "method.runn is no field; nearest: run",
    "method.run=1": "",
    "method.run=x": "method.run='x' is out of range",
    "method=wandaa": "method='wandaa' is unknown; nearest: wanda",
    "model=nanoo": "model='nanoo' is unknown; nearest: nano",
    "task=arc_esy": "nearest: arc_easy",
    "calib=c5": "calib='c5' is unknown; nearest: c4",
    "track=wandbb": "track='wandbb' is unknown; nearest: wandb",
    "track._target_=crunchmark.track.WandB": "",
    "foo=1": "foo is no field",
    "budget.x=1": "budget.x is no field; valid: budget=VALUE",
    "experiment=kick_nano": "experiment=kick_nano has grids, of which one run would take none; valid: -m",
    "+experiment=kick_nano": "experiment=kick_nano has grids",
    "hydra.sweeper.part=1/2": "hydra.sweeper.part belongs to an experiment; valid: beside -m experiment=NAME",
}
LATER = {"method.run=1", "track._target_=crunchmark.track.WandB"}  # not wrong before a cell runs


@pytest.mark.slow
@pytest.mark.parametrize("word", sorted(BAD.keys() - LATER))
def test_one_line_and_nothing_stored(house, word):
    chosen = [] if word.startswith("method=") else ["method=wanda"]
    code, output = house(*chosen, "study=bad_input", "task=nano_mcr", "limit=2", word)
    lines = output.splitlines()
    assert code == 2, output
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert BAD[word] in lines[0]
    assert not (house.folder / "store").exists()


@pytest.mark.slow
def test_what_is_damaged_is_named_and_made_again_once_deleted(house):
    grid = ("method=magnitude", "budget=0.4", "task=nano_mcr", "limit=2", "study=damage")
    assert house(*grid)[0] == 0
    cell = next(p for p in (house.folder / "store/damage").glob("*/cell.json") if "nitude" in p.read_text())
    good, weights_key = cell.read_text(), json.loads(cell.read_text())["artifact"]
    cell.write_text(good[: len(good) // 2])
    code, output = house(*grid)
    assert code == 1
    assert f"{cell} is damaged" in output
    assert "delete it" in output
    assert "Traceback" not in output
    cell.unlink()
    for items in (house.folder / "cache/scores").glob("*/items.json"):
        items.unlink()
        items.parent.rmdir()
    weights = house.folder.joinpath(weights_key) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    next(cell.parent.glob("task-*.json")).unlink()
    code, output = house(*grid)
    assert code == 1
    assert "sha256 of weights.safetensors" in output
    assert "delete the folder" in output
    for file in weights.parent.iterdir():
        file.unlink()
    weights.parent.rmdir()
    assert house(*grid)[0] == 0
