import time

import huggingface_hub.constants as hub_constants
import pytest

from crunchmark import hub


def silence(*_, **__):
    time.sleep(4)
    raise OSError("timed out")


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Nothing says offline, but nobody answers: packets to this address go nowhere."""
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("socket.create_connection", silence)
    hub._knock.cache_clear()
    yield
    hub._knock.cache_clear()
