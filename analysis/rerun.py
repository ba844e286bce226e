"""Where a setting came from, and the command that measures it again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.notes import Note
from analysis.style import known

CONF = Path(__file__).resolve().parents[1] / "conf"
STAGES = ("method", "allocate", "compensate")
_BEFORE_QUOTE = re.compile(r'(\\*)("|\Z)')
_PLAIN = re.compile(r"[A-Za-z0-9_./:@+-]+")


def command(cell: Mapping[str, Any], tasks: Mapping[str, float | None], conf: Path = CONF) -> str:
    """The command line of one cell, as far as its record tells; "" for rows from before there was one.

    Args:
        cell: What `cell.json` holds, or a row.
        tasks: Names of the tasks it was asked, and how many items at most; None where rows tell no limit.
        conf: The folder of the yaml files, whose defaults need not be said.
    """
    config = cell.get("config")
    if not isinstance(config, Mapping):
        return ""
    study, place = _word(f"{cell.get('study') or 'cell'}_again"), _word(f"PATH_OF_{cell.get('model')}")
    words = [f"study={study}"]
    words += [f"model={m}" if (m := _model(cell, conf)) else f"model.path={place}"]
    words += [
        f"{name}={_word(cell[name])}" for name in ("budget", "accounting", "scope") if known(cell.get(name))
    ]
    words += [f"seed={cell['calib_seed']}"] if known(cell.get("calib_seed")) else []
    stages = [word for stage in STAGES for word in _stage(stage, config.get(stage), conf)]
    words += stages
    label = cell.get("method")
    words += [f"label={_word(label)}"] if known(label) and f"method={label}" not in stages else []
    words += _others(config, conf)
    words += [f"task=[{','.join(map(_word, _asked(tuple(tasks), conf)))}]"] if tasks else []
    words += _limited(tasks)
    return "python run.py " + " ".join(shlex.quote(word) for word in words)


def asked(rows: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """What each cell was asked, by cell: tasks, and their limits where the rows tell one."""
    found: dict[str, dict[str, float | None]] = {}
    for row in rows[rows["task"] != ""].drop_duplicates(["cell", "task"]).itertuples():
        found.setdefault(row.cell, {})[row.task] = row.limit if known(row.limit) else None
    return found


def _limited(tasks: Mapping[str, float | None]) -> list[str]:
    """One limit where all tasks have it, else each its own."""
    if len(set(tasks.values())) == 1:
        return [f"limit={limit:.0f}" for limit in set(tasks.values()) if limit is not None]
    return [f"task.{task}.limit={limit:.0f}" for task, limit in tasks.items() if limit is not None]


@cache
def _asked(tasks: tuple[str, ...], conf: Path) -> list[str]:
    """The entries of conf/task/ that ask these tasks; a name that none has is lm-eval's."""
    entries = _entries("task", conf)
    own = {
        task: [e for e, (_, o) in entries.items() if any(k.startswith(f"{task}.") for k in o)]
        for task in tasks
    }
    return list(dict.fromkeys(task if task in entries or not own[task] else own[task][0] for task in tasks))


def _word(value: Any) -> str:
    """A value as Hydra's grammar takes it: quoted where it holds more than letters, digits and the like."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else _text(value)
    if _PLAIN.fullmatch(text) or (text.startswith(("[", "{")) and not isinstance(value, str)):
        return text
    return f'"{_BEFORE_QUOTE.sub(_escaped, text)}"'


def _escaped(found: re.Match[str]) -> str:
    """Backslashes count only before a quote, where each is written twice."""
    return 2 * found[1] + ('\\"' if found[2] else "")


def _text(value: Any) -> str:
    """Numbers, lists and mappings as Hydra writes them."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}: {_word(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_word, value)) + "]"
    return str(value)  # floats keep their point: 0.0 is another key than 0


@cache
def _entries(group: str, conf: Path) -> dict[str, tuple[str, dict[str, str]]]:
    """Entry -> its target and its options as written, of a group of conf/."""
    found = {}
    for path in sorted((conf / group).rglob("*.yaml")):
        options = {o.name.removeprefix(f"{group}."): o.default for o in Note.of(path).options}
        found[path.relative_to(conf / group).with_suffix("").as_posix()] = (
            options.get("_target_", ""),
            options,
        )
    return found


def _model(cell: Mapping[str, Any], conf: Path) -> str:
    """The entry of conf/model/ that the name in the tables belongs to."""
    name = str(cell.get("model") or "")
    for entry, (_, options) in _entries("model", conf).items():
        if name in (entry, options.get("name"), options.get("path", "").rpartition("/")[2]):
            return entry
    return ""


def _stage(stage: str, spec: Any, conf: Path) -> Iterator[str]:
    """The entry whose class a stage names, and the knobs that are not its defaults."""
    target = spec.get("_target_", "") if isinstance(spec, Mapping) else ""
    if not target:
        return
    alike = [(entry, options) for entry, (own, options) in _entries(stage, conf).items() if own == target]
    if not alike:
        yield f"{stage}=NOT_IN_CONF_{target}"
        return
    differ = [(_changed(spec, options), entry) for entry, options in alike]
    changed, entry = min(differ, key=lambda pair: len(pair[0]))
    yield f"{stage}={entry}"
    yield from (f"{stage}.{name}={_word(value)}" for name, value in changed.items())


def _changed(spec: Mapping[str, Any], options: Mapping[str, str]) -> dict[str, Any]:
    """Knobs whose value is not the one written in the yaml; inner methods are compared knob by knob."""
    return {name: value for name, value in _flat(spec) if not _same(value, options.get(name))}


def _same(value: Any, written: str | None) -> bool:
    """Whether a yaml spells this value: 1e-3 is 0.001."""
    if written is None:
        return False
    try:
        return float(value) == float(written) and not isinstance(value, bool)
    except (TypeError, ValueError):
        return _text_of(value) == written


def _flat(spec: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in spec.items():
        name = f"{path}.{key}".lstrip(".")
        if isinstance(value, Mapping) and "_target_" in value:
            yield from _flat(value, name)
        else:
            yield name, value


def _text_of(value: Any) -> str:
    """A value as a yaml file would spell it."""
    return _word(value).replace(",", ", ") if isinstance(value, list) else _word(value).strip('"')


def _others(config: Mapping[str, Any], conf: Path) -> Iterator[str]:
    """Calibration, device and dtypes, where they are not the usual ones."""
    calib = config.get("calib")
    if isinstance(calib, Mapping):
        source = ("path", "dataset", "name", "revision", "split", "field", "files")
        usual_of = {entry: options for entry, (_, options) in _entries("calib", conf).items()}
        score = {
            e: sum(options.get(k) == _text_of(calib.get(k)) for k in source)
            for e, options in usual_of.items()
        }
        entry = max(score, key=lambda name: score[name], default="")
        if entry and entry != "nano":
            yield f"calib={entry}"
        usual = usual_of.get(entry, {})
        for name, value in calib.items():
            if not _same(value, usual.get(name)) and name != "seed":
                yield f"calib.{name}={_word(value)}"
    if known(config.get("device")) and config["device"] != "cpu":
        yield f"device={_word(config['device'])}"
    model = config.get("model")
    for name, default in (("dtype", "auto"), ("compute", "float32")):
        if isinstance(model, Mapping) and model.get(name, default) != default:
            yield f"model.{name}={_word(model[name])}"
