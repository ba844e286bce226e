"""One protocol per task: what a study holds under another one is told apart, never put into one column."""

from __future__ import annotations

from collections.abc import Hashable

import pandas as pd

REMEDY = "run the sweep's command again (it measures only those cells) or leave them out with --mixed drop"
LEFT_OUT = "left out are those under another than"


def one_each(data: pd.DataFrame) -> pd.DataFrame:
    """Rows under the protocol of their task; `mixed` says per task what the study holds under others.

    A task's protocol is the one that a dense cell was asked under last, of all models; where no dense cell
    was asked, the one that any cell was. A row under another one is old where its setting was asked
    again: the newer row stands for it. Else the table would compare two protocols: the row is left out,
    and `mixed` of all rows of its task names both ids and counts their cells. `aside` is empty.
    """
    asked = _asked(data)
    wanted = data["task"].map(asked)
    other = wanted.notna() & (data["protocol"] != wanted)
    settings = _settings(data)
    again = set(settings[wanted.notna() & ~other])
    odd = data[other & ~settings.isin(again)]
    kept = data[~other].reset_index(drop=True)
    told = {task: _told(str(task), asked, kept, rows) for task, rows in odd.groupby("task", sort=False)}
    return kept.assign(mixed=[told.get(task, "") for task in kept["task"]], aside="")


def drop(data: pd.DataFrame) -> pd.DataFrame:
    """The same rows, what they lack told (`aside`) rather than refused (`mixed`)."""
    told = [
        f"{text}; {LEFT_OUT} {protocol!r}" if text else aside
        for text, protocol, aside in zip(data["mixed"], data["protocol"], data["aside"], strict=True)
    ]
    return data.assign(mixed="", aside=told)


def lines(data: pd.DataFrame, column: str) -> list[str]:
    """What a column, `mixed` or `aside`, says of the tasks of these rows, once each."""
    return [text for text in dict.fromkeys(data[column]) if text]


def _asked(data: pd.DataFrame) -> dict[str, str]:
    """Task -> its protocol."""
    rows = data[(data["task"] != "") & (data["protocol"] != "")]
    if "written" in rows:
        rows = rows.sort_values("written", kind="stable", na_position="first")
    rows = pd.concat([rows[rows["state"] != "dense"], rows[rows["state"] == "dense"]])
    return {str(task): str(protocol) for task, protocol in rows.groupby("task")["protocol"].last().items()}


def _settings(data: pd.DataFrame) -> pd.Series:
    """What was asked of which cell: draws of dense are no two cells."""
    draws = [
        "" if method == "dense" else str(seed)
        for method, seed in zip(data["method"], data["calib_seed"], strict=True)
    ]
    keys: list[Hashable] = list(
        zip(data["model"], data["label"], data["budget"], draws, data["task"], strict=True)
    )
    return pd.Series(keys, index=data.index, dtype=object)


def _told(task: str, asked: dict[str, str], kept: pd.DataFrame, odd: pd.DataFrame) -> str:
    """Both ids and how many cells are under each."""
    own = kept[kept["task"] == task]
    parts = [f"{asked[task]!r} ({_count(own)})"]
    parts += [f"{str(name)!r} ({_count(rows)})" for name, rows in odd.groupby("protocol", sort=False)]
    return f"task {task!r}: rows mix protocols {' and '.join(parts)}"


def _count(rows: pd.DataFrame) -> str:
    """How many cells, and whether dense is one of them."""
    cells = rows["cell"].nunique()
    dense = ", with dense" if (rows["state"] == "dense").any() else ""
    return f"{cells} cell{'s' * (cells != 1)}{dense}"
