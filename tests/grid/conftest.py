"""Runs `run.py` as a user does, in a folder of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """house(*overrides, ok=True) -> (exit code, output); one store and cache for the module."""
    folder = tmp_path_factory.mktemp("house")

    def run(*overrides, **env):
        command = [sys.executable, "run.py", *overrides, f"store={folder}/store", f"cache.dir={folder}/cache"]
        env = os.environ | {"COLUMNS": "130", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"} | env
        done = subprocess.run(command, cwd=HOUSE, env=env, capture_output=True, text=True, timeout=280)
        return done.returncode, re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)

    run.folder = folder
    return run
