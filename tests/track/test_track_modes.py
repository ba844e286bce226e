"""Online or offline: the key, the server, the switch and the settings decide, and a cell always goes on."""

import math
import shutil
import sys
from types import SimpleNamespace

import pytest
from cell_runs import CELL, CONFIG, LOST, ROWS, Fake
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from crunchmark import track
from crunchmark.machine import ROOT
from crunchmark.track import Silent, WandB


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
