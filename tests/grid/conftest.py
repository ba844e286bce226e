"""Runs `run.py` as a user does, in a folder of its own."""

import re

import pytest
from forked import Run


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """house(*overrides, **env) -> (exit code, output); one store and cache for the module."""
    folder = tmp_path_factory.mktemp("house")

    def run(*overrides, **env):
        code, out, errors = Run(
            *(*overrides, f"store={folder}/store", f"cache.dir={folder}/cache"), COLUMNS="130", **env
        ).done()
        return code, re.sub(r"\x1b\[[0-9;]*m", "", out + errors)

    run.folder = folder
    return run
