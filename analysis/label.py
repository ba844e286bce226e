"""A name per line of a table: method, knobs, and whatever else tells two cells of one budget apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from analysis.style import known

_KINDS = {"knowledge": 0, "context": 1, "other": 2, "perplexity": 3}
STAGES = ("allocate", "compensate")  # what a config tells only where it does anything
CALIBRATION = "calib."  # cells that look at no data have none
_SETTING = ["model", "label", "budget", "calib_seed"]


def settle(data: pd.DataFrame) -> pd.DataFrame:
    """Label the cells, keep the newest of each setting, put them in reading order.

    `older` counts the cells that were left out because a newer one has the same settings.
    """
    data = data.assign(label=_labels(data))
    data["label"] += _stages(data)
    data["label"] += _differences(data)
    cells = data.drop_duplicates("cell")
    if "written" in cells:
        cells = cells.sort_values("written", kind="stable", na_position="first")
    newest = cells.drop_duplicates(_SETTING, keep="last")
    data = data[data["cell"].isin(newest["cell"])].assign(older=len(cells) - len(newest))
    return _ordered(data)


def _labels(data: pd.DataFrame) -> list[str]:
    """Method, its knobs, and the accounting where a study has both and it is not the usual one."""
    both = data.loc[data["method"] != "dense", "accounting"].replace("", pd.NA).nunique() > 1
    return [
        method + (f" {knobs}" if knobs else "") + (f" {accounting}" if both and accounting != "bytes" else "")
        for method, knobs, accounting in zip(data["method"], data["knobs"], data["accounting"], strict=True)
    ]


def _stages(data: pd.DataFrame) -> list[str]:
    """` compensate=eora` behind the label of cells with a stage of their own beside the method."""
    told = [c if isinstance(c, Mapping) else {} for c in data["config"]] if "config" in data else []
    names = [[(s, str(c[s]["_target_"]).split(".")[-2]) for s in STAGES if known(c.get(s))] for c in told]
    return ["".join(f" {stage}={name}" for stage, name in found) for found in names] or [""] * len(data)


def _differences(data: pd.DataFrame) -> list[str]:
    """` n=64` behind the label of cells that differ in their config only, nothing behind the others."""
    if "config" not in data:
        return [""] * len(data)
    cells = data.drop_duplicates("cell")
    cells = cells[cells["method"] != "dense"]
    flat = {row.cell: dict(flat_config(row.config)) for row in cells.itertuples()}
    keys: dict[tuple[str, str], list[str]] = {}
    for (model, label, *_), group in cells.groupby(_SETTING, dropna=False):
        found = keys.setdefault((model, label), [])
        found += [key for key in differing([flat[cell] for cell in group["cell"]]) if key not in found]
    return [
        "".join(
            f" {key.rpartition('.')[2]}={flat[cell].get(key)}"
            for key in _shown(keys, model, label, flat.get(cell, {}))
        )
        for model, label, cell in zip(data["model"], data["label"], data["cell"], strict=True)
    ]


def _shown(keys: dict[tuple[str, str], list[str]], model: str, label: str, flat: dict[str, str]) -> list[str]:
    """What differs and the cell has: not a stage that does nothing, a calibration of others, a null."""
    return [key for key in keys.get((model, label), []) if key in flat]


def differing(configs: list[dict[str, str]]) -> list[str]:
    """Names whose values are not the same everywhere."""
    names = dict.fromkeys(name for config in configs for name in config)
    found = {name: [config.get(name) for config in configs] for name in names}
    own = {name: [v for v in values if v is not None] for name, values in found.items() if _knob(name)}
    return [name for name, values in (found | own).items() if len(set(values)) > 1]


def _knob(name: str) -> bool:
    """Whether others lack it: of one allocator or repair (allocate.owl.lam), or of a calibration."""
    return name.startswith(CALIBRATION) or (name.startswith(STAGES) and name.count(".") > 1)


def flat_config(config: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names of what a nested config holds."""
    if isinstance(config, Mapping):
        if path in STAGES and "_target_" in config:
            name = str(config["_target_"]).split(".")[-2]  # of the module, as on the command line
            yield path, name
            config, path = {k: v for k, v in config.items() if k != "_target_"}, f"{path}.{name}"
        for key, value in config.items():
            yield from flat_config(value, f"{path}.{key}" if path else str(key))
    elif known(config):
        yield path, str(config)


def _ordered(data: pd.DataFrame) -> pd.DataFrame:
    """Per model dense first, methods by name, budgets rising; knowledge before context before perplexity."""
    from analysis.style import kind_of

    kinds = [_KINDS[kind_of(task, metric)] for task, metric in zip(data["task"], data["metric"], strict=True)]
    order = ["model", "_small", "label", "budget", "calib_seed", "_kind", "task", "_rest"]
    keys = data.assign(_small=data["method"] != "dense", _kind=kinds, _rest=~data["headline"])
    return keys.sort_values(order, kind="stable", ignore_index=True).drop(
        columns=["_small", "_kind", "_rest"]
    )
