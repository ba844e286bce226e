"""Nothing of this machine is used, and nothing leaves it."""

import os

import pytest
import wandb
from cell_runs import Fake

from crunchmark import track


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


@pytest.fixture
def fake(monkeypatch):
    def use(**options):
        made = Fake(**options)
        monkeypatch.setattr(track, "package", lambda: made)
        return made

    return use
