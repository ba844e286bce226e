"""Names of lm-eval's own tasks without its slow scan: made once per lm-eval version, then a small JSON file.

The scan of 14,000 yaml files takes some ten seconds, the file is read in milliseconds. No import of lm_eval
unless the file has to be made: Hydra asks here for names before anything heavy is loaded.
"""

import difflib
import functools
import importlib.util
import json
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

Known = dict[str, dict[str, Any]]  # name -> kind, yaml (path or None), tags


def cache_file() -> Path:
    """Where the index of the installed lm-eval lies; the place and version of lm-eval are in the name."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "crunchmark" / f"lm_eval-{version('lm_eval')}.json"


def lm_eval_home() -> Path:
    """The folder of the lm_eval package, found without importing it."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("lm_eval is not installed")
    return Path(spec.submodule_search_locations[0])


@functools.cache
def known() -> Known:
    """Every task, group and tag of the installed lm-eval; yaml paths are relative to lm_eval_home()."""
    path, stamp = cache_file(), (lm_eval_home() / "tasks").stat().st_mtime_ns
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["stamp"] == stamp:
            return found["tasks"]
    except (OSError, ValueError, KeyError):
        pass
    tasks = _scan()
    _write(path, json.dumps({"stamp": stamp, "tasks": tasks}))
    return tasks


def nearest(name: str, names: list[str] | None = None, count: int = 5) -> list[str]:
    """Known names that look like this one."""
    return difflib.get_close_matches(name, list(known()) if names is None else names, count, cutoff=0.5)


def unknown(name: str, names: list[str] | None = None) -> str:
    """The one line that tells a user a task name is wrong."""
    near = ", ".join(nearest(name, names))
    return f"no task {name!r} in lm-eval {version('lm_eval')}" + (f"; nearest: {near}" if near else "")


def _scan() -> Known:
    if sys.stderr.isatty():
        sys.stderr.write("indexing lm-eval's tasks, once per version: about ten seconds\n")
    from lm_eval.tasks import TaskManager

    home = lm_eval_home()
    return {
        name: {
            "kind": entry.kind.name,
            "yaml": str(Path(entry.yaml_path).relative_to(home)) if entry.yaml_path else None,
            "tags": sorted(entry.tags),
        }
        for name, entry in TaskManager().task_index.items()
    }


def _write(path: Path, text: str) -> None:
    """Whole or not at all; a machine that can not be written to scans each time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            file.write(text)
        Path(file.name).replace(path)
    except OSError:
        return
