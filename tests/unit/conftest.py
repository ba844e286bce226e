from threading import Event

import huggingface_hub.constants as hub_constants
import pytest
import torch
from cells import HOUSE, maker
from transformers import AutoTokenizer

from crunchmark import hub
from crunchmark.cache import Cache
from crunchmark.models import ModelSpec
from crunchmark.pipeline import Runner
from crunchmark.store import Store


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Nothing says offline, but nobody answers: packets go nowhere. The timeouts that were asked for."""
    asked, over = [], Event()

    def silence(*_, timeout):
        asked.append(timeout)
        over.wait(60)  # longer than whoever asks may wait
        raise OSError("timed out")

    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("socket.create_connection", silence)
    hub._knock.cache_clear()
    yield asked
    over.set()
    hub._knock.cache_clear()


@pytest.fixture(scope="session")
def spec(tiny, tmp_path_factory):
    """A tiny Llama on disk with the built-in tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    tiny("llama_gqa", vocab_size=2048).to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(HOUSE / "tasks/nano/model").save_pretrained(folder)
    return ModelSpec(str(folder), name="tiny")


@pytest.fixture
def make(spec, tmp_path):
    """make(method, budget, **fields) -> Cell with one probe task."""
    return maker(spec, tmp_path)


@pytest.fixture
def runner(tmp_path):
    return Runner(Store(tmp_path / "store"), Cache(tmp_path / "cache"))
