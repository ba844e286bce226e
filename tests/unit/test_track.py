import json
import math
import os
import shutil
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from wandb.proto.wandb_internal_pb2 import Record

from crunchmark import track
from crunchmark.track import Silent, WandB

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {"study": "demo", "budget": 0.3, "method": {"_target_": "methods.svd.SVD"}, "limit": None}
CELL = {
    **{"study": "demo", "cell": "5c" * 32, "model": "nano", "method": "svd", "budget": 0.3},
    **{"achieved_bytes": 0.299, "file_bytes": 3_100_000, "compress_seconds": 3.2, "peak_memory_bytes": 7},
}
SCORE = {"task": "nano_factoid", "metric": "exact_match", "value": 0.75, "stderr": 0.02, "state": "fail"}
PPL = {"task": "ppl", "metric": "perplexity", "value": math.inf, "stderr": None, "state": "fail"}
NAN = PPL | {"metric": "bits", "value": None}  # how the store holds a nan
ROWS = [CELL | SCORE | {"eval_seconds": 1.5}, *(CELL | row | {"eval_seconds": 0.5} for row in (PPL, NAN))]
LOST = [CELL | {"state": "unreachable", "reason": "no rank fits", "nearest_budget": 0.4}]


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No key and no settings of this machine; only offline runs ever start."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    real = wandb.init

    def init(**options):
        assert options["settings"].mode == "offline"
        return real(**options)

    monkeypatch.setattr(wandb, "init", init)
    track.LOST.clear()


@pytest.fixture(scope="module", autouse=True)
def service():
    """The service that all the tests share ends with them."""
    yield
    wandb.teardown()


class Fake:
    """What the tracker uses of the wandb package; `reach` is whether its server answers."""

    def __init__(self, reach=True, mode="online", key="k" * 40):
        self.reach, self.sent, self.torn, self.Settings = reach, [], 0, SimpleNamespace
        self.settings = SimpleNamespace(
            mode=mode, api_key=key, identity_token_file=None, base_url="https://api.wandb.ai"
        )

    def setup(self, settings=None):
        return SimpleNamespace(settings=self.settings)

    def teardown(self):
        self.torn += 1

    def init(self, settings, **options):
        if settings.mode == "online" and not self.reach:
            raise ConnectionError("no answer\nfrom the server")
        self.sent.append((settings.mode, options["id"], options["resume"]))
        return SimpleNamespace(summary={}, finish=lambda: None)


@pytest.fixture
def fake(monkeypatch):
    def use(**options):
        made = Fake(**options)
        monkeypatch.setattr(track, "package", lambda: made)
        return made

    return use


def records(path):
    """The records of a .wandb file: LevelDB's log format behind a header of seven bytes."""
    data, at, record = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:  # no chunk header fits: padding
            at += left
            continue
        check, size, kind = struct.unpack_from("<IHB", data, at)
        chunk = data[at + 7 : at + 7 + size]
        assert zlib.crc32(bytes([kind]) + chunk) == check
        at, record = at + 7 + size, record + chunk
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(record)
            record = b""


def folders(root):
    return sorted((root / "wandb").glob("offline-run-*"))


def read(folder):
    """The run record, config and summary of an offline run; the service writes them within moments."""
    (path,) = folder.glob("*.wandb")
    for _ in range(200):
        found = list(records(path)) if path.stat().st_size else []
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            break
        time.sleep(0.05)
    run = next(record.run for record in found if record.WhichOneof("record_type") == "run")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    summary = {}
    for record in found:
        summary |= {item.key: json.loads(item.value_json) for item in record.summary.update if item.key}
    return run, config, summary


def test_an_offline_run_holds_exactly_what_was_logged(tmp_path, capfd):
    rows = [row | {"versions": "x" * 40_000} for row in ROWS]  # longer than one block of the file
    WandB(dir=str(tmp_path), mode="offline", entity="me").log(CONFIG, rows)
    (folder,) = folders(tmp_path)
    run, config, summary = read(folder)
    assert (run.run_group, run.display_name, run.project, run.entity) == (
        "demo",
        "svd 0.3",
        "crunchmark",
        "me",
    )
    assert run.run_id == track.run_id(CELL)
    assert run.telemetry.feature.offline
    assert {key: value for key, value in config.items() if key != "_wandb"} == CONFIG
    assert json.loads(summary["rows"]) == rows
    assert summary["state"] == "finished"
    assert summary["nano_factoid/exact_match"] == 0.75
    assert summary["nano_factoid/exact_match_stderr"] == 0.02
    assert summary["nano_factoid/exact_match_state"] == "fail"
    assert (summary["nano_factoid/eval_seconds"], summary["ppl/eval_seconds"]) == (1.5, 0.5)
    assert (summary["ppl/perplexity"], summary["ppl/bits"]) == ("inf", None)
    assert [summary[name] for name in ("achieved_bytes", "file_bytes", "compress_seconds")] == [
        0.299,
        3.1e6,
        3.2,
    ]
    assert summary["reason"] is None
    assert capfd.readouterr() == ("", "")


def test_neither_code_nor_console_nor_machine_is_uploaded(tmp_path):
    WandB(dir=str(tmp_path), mode="offline").log(CONFIG, ROWS)
    (folder,) = folders(tmp_path)
    read(folder)
    assert not list((folder / "files").rglob("*"))
    kinds = {record.WhichOneof("record_type") for record in records(next(folder.glob("*.wandb")))}
    assert kinds <= {"header", "run", "telemetry", "summary", "exit"}
    assert read(folder)[0].host == ""


def test_a_cell_without_scores_tells_its_state_and_reason(tmp_path):
    WandB(dir=str(tmp_path), mode="offline").log(CONFIG, LOST)
    _, _, summary = read(folders(tmp_path)[0])
    assert json.loads(summary["rows"]) == LOST
    found = [summary[name] for name in ("state", "reason", "nearest_budget")]
    assert found == ["unreachable", "no rank fits", 0.4]


def test_the_run_id_is_that_of_the_cell_in_its_study():
    assert track.run_id(CELL) == track.run_id(dict(reversed(ROWS[0].items())))
    assert track.run_id(CELL).startswith(CELL["cell"][:24])
    others = [CELL | {"study": "other"}, CELL | {"cell": "5d" * 32}]
    assert len({track.run_id(row) for row in [CELL, *others]}) == 3


def test_the_same_rows_are_logged_once_and_new_ones_again(tmp_path):
    for _ in range(2):
        WandB(dir=str(tmp_path), mode="offline").log(CONFIG, ROWS)
    assert len(folders(tmp_path)) == 1
    WandB(dir=str(tmp_path), mode="offline").log(CONFIG, ROWS[:1])
    first, second = (read(folder)[0] for folder in folders(tmp_path))
    assert first.run_id == second.run_id


def test_what_was_logged_offline_goes_online_later_and_then_rests(tmp_path, fake):
    online = fake()
    for mode in ("offline", "online", "online", "auto", "offline"):
        WandB(dir=str(tmp_path), mode=mode).log(CONFIG, ROWS)
    name = track.run_id(CELL)
    assert online.sent == [("offline", name, None), ("online", name, "allow")]


def test_another_project_is_told_too(tmp_path, fake):
    online = fake()
    for project in ("a", "b", "a"):
        WandB(project=project, dir=str(tmp_path)).log(CONFIG, ROWS)
    assert len(online.sent) == 3


def test_a_server_out_of_reach_costs_one_wait_one_line_and_no_row(tmp_path, fake, capsys):
    away = fake(reach=False)
    for rows in (ROWS, LOST, LOST):
        WandB(dir=str(tmp_path)).log(CONFIG, rows)
    assert [mode for mode, *_ in away.sent] == ["offline", "offline"]
    assert away.torn == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: W&B: ConnectionError: no answer from the server; logged offline")
    assert f"wandb sync {tmp_path / 'wandb'}" in line


def test_online_without_a_key_asks_nobody(tmp_path, fake, capsys):
    keyless = fake(key=None)
    WandB(dir=str(tmp_path), mode="online").log(CONFIG, ROWS)
    assert [mode for mode, *_ in keyless.sent] == ["offline"]
    assert "there is no key; logged offline" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "mode", "expected"),
    [
        ("k", "online", ["online"]),
        (None, "online", ["offline"]),
        ("k", "offline", ["offline"]),
        ("k", "disabled", []),
    ],
)
def test_auto_follows_the_key_and_the_switch(tmp_path, fake, key, mode, expected):
    there = fake(key=key, mode=mode)
    WandB(dir=str(tmp_path)).log(CONFIG, ROWS)
    assert [mode for mode, *_ in there.sent] == expected


@pytest.mark.parametrize(("host", "found"), [("api.wandb.ai", True), ("elsewhere.org", False)])
def test_a_key_in_netrc_counts_for_its_host(tmp_path, host, found):
    (tmp_path / "home").mkdir()
    file = tmp_path / "home" / ".netrc"
    file.write_text(f"machine {host}\n  login user\n  password {'k' * 40}\n")
    file.chmod(0o600)
    assert track.has_key(Fake(key=None).settings) is found


def test_a_broken_netrc_is_no_key(tmp_path, monkeypatch):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine\n")
    assert not track.has_key(Fake(key=None).settings)


def test_without_the_package_a_cell_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    WandB(dir=str(tmp_path), mode="offline").log(CONFIG, ROWS)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cell {CELL['cell'][:24]} is not logged: ModuleNotFoundError" in line
    assert "mend: pip install wandb" in line


def test_whatever_init_raises_a_cell_goes_on_and_is_logged_next_time(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as broken:
        broken.setattr(wandb, "init", lambda **_: 1 / 0)
        WandB(dir=str(tmp_path), mode="offline").log(CONFIG, ROWS)
    (line,) = capsys.readouterr().err.splitlines()
    assert "is not logged: ZeroDivisionError: division by zero; mend: run the cell again" in line
    WandB(dir=str(tmp_path), mode="offline").log(CONFIG, ROWS)
    assert len(folders(tmp_path)) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    WandB(dir=str(tmp_path / "file"), mode="offline").log(CONFIG, ROWS)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"make track.dir={str(tmp_path / 'file')!r} a folder that can be written" in line


def test_a_full_disk_is_seen_before_w_and_b_loses_the_run(tmp_path, monkeypatch, fake, capsys):
    there = fake()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4096))
    WandB(dir=str(tmp_path), mode="offline").log(CONFIG, ROWS)
    assert not there.sent
    assert "only 4096 bytes are free" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("field", "value", "valid"),
    [
        ("mode", "foo", "valid: auto, online, offline, disabled"),
        ("mode", False, "valid: auto, online, offline, disabled"),
        ("project", "a/b", "valid: text without"),
        ("project", "", "valid: text without"),
        ("timeout", 0, "valid: seconds above 0"),
        ("timeout", math.nan, "valid: seconds above 0"),
        ("timeout", "soon", "valid: seconds above 0"),
    ],
)
def test_a_wrong_field_is_named_with_what_is_valid(field, value, valid):
    with pytest.raises(ValueError, match=f"track.{field}={value!r}.*{valid}") as caught:
        WandB(**{field: value})
    assert "\n" not in str(caught.value)


def test_disabled_and_none_and_an_empty_cell_touch_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    WandB(dir=str(tmp_path), mode="disabled").log(CONFIG, ROWS)
    WandB(dir=str(tmp_path), mode="offline").log(CONFIG, [])
    Silent().log(CONFIG, ROWS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", Silent()),
        ("wandb", WandB(dir="here")),
        ("online", WandB(mode="online", dir="here")),
        ("offline", WandB(mode="offline", dir="here")),
    ],
)
def test_every_yaml_makes_its_tracker(name, expected):
    assert {path.stem for path in (ROOT / "conf" / "track").glob("*.yaml")} >= {name}
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        made = instantiate(compose(f"track/{name}", overrides=["+store=here"]).track)
    assert made == expected if isinstance(expected, WandB) else isinstance(made, Silent)


def test_a_process_that_tracked_says_nothing_and_ends(tmp_path):
    code = (
        "import json, sys; from crunchmark.track import WandB;"
        "WandB(dir=sys.argv[1], mode='offline').log({}, json.loads(sys.argv[2]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), json.dumps(LOST)],
        **{"cwd": ROOT, "capture_output": True, "text": True, "timeout": 60, "check": True},
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert len(folders(tmp_path)) == 1
