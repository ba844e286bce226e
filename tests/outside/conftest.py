import json
from types import SimpleNamespace

import pytest
from forked import Run

from crunchmark.hub import DATA
from crunchmark.machine import ROOT
from crunchmark.models import ModelSpec

REAL = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def real():
    """The folder of real text, data sets and models beside the repository."""
    if not REAL.is_dir():
        pytest.skip("no ../shared/data here: real text, data sets and models are not in the repository")
    return REAL


@pytest.fixture(scope="session")
def stories(real):
    """A real small Llama that was trained on TinyStories, 260 thousand parameters."""
    return ModelSpec(str(real / "models" / "stories260K"))


@pytest.fixture(scope="session")
def llama(stories):
    return stories.load(), stories.tokenizer()


@pytest.fixture(scope="session")
def tales(real, tmp_path_factory):
    """A hundred of the stories as JSON lines."""
    rows = json.loads((real / "tinystories" / "tinystories_1000.json").read_text())
    path = tmp_path_factory.mktemp("tales") / "tales.jsonl"
    plain = [row for row in rows if row.isascii()]
    path.write_text("\n".join(json.dumps({"text": row}) for row in plain[:100]))
    return path


@pytest.fixture
def hub(real, monkeypatch):
    """The data sets as a user names them: no need to stand in their folder."""
    monkeypatch.setenv(DATA, str(real / "hub"))
    return real / "hub"


@pytest.fixture
def run(tmp_path):
    """run("method=svd", ...) -> the finished process of `python run.py ...` with a store of its own."""

    def call(*args, **env):
        where = [f"store={tmp_path / 'results'}", f"cache.dir={tmp_path / 'cache'}", "study=s"]
        code, out, errors = Run(*args, *where, **env).done()
        return SimpleNamespace(returncode=code, stdout=out, stderr=errors)

    return call
