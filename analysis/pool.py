"""Calibration seeds as an axis: one answer per cell over its seeds and its items, from the stored items."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import crossed
from analysis.style import known
from crunchmark.paired import MARGIN, Array
from crunchmark.store import Store

POINT = ["model", "label", "budget", "task", "metric"]
KEPT = ["kind", "higher_is_better", "headline", "chance"]  # facts of a metric, the same on all its rows
FOUND = [
    *("seeds", "n", "value", "value_low", "value_high", "stderr", "spread", "dense", "delta", "low", "high"),
    *("p_value", "p_match", "p_fail", "state", "lost", "gained"),
]
Side = dict[str, tuple[float | None, float]]  # score and weight by item


def pooled(store: Store, study: str, data: pd.DataFrame) -> pd.DataFrame:
    """One line per (model, label, budget, task, metric), over its calibration seeds and its items.

    `value` is the mean over seeds, `spread` their standard deviation, `seeds` and `n` how many seeds and items
    there are. `value_low` .. `value_high` and `low` .. `high` (of `delta` = value - dense) are 95 % intervals for
    another draw of both seeds and items; `p_value` is of no difference, `p_match` and `p_fail` are one-sided
    against the margin, and `state` is what they say at 2.5 %. `lost` and `gained` are means over seeds. With one
    seed every figure is that of the row.

    Args:
        store: Where the study is.
        study: Its name.
        data: Rows as `analysis.collect.load` gives them (labelled, one protocol per task), or some of these.

    Raises:
        ValueError: Items of a seed and of dense cannot be paired, or a stored task is missing.
    """
    measured = data[data["task"] != ""]
    reader = _Reader(store, study)
    dense = measured[measured["state"] == "dense"].drop_duplicates(["model", "task", "metric"], keep="last")
    parents = {(row.model, row.task, row.metric): row.cell for row in dense.itertuples()}
    lines = [
        dict(zip(POINT, key, strict=True)) | _facts(group) | _line(reader, group, parents)
        for key, group in measured.groupby(POINT, sort=False)
    ]
    return pd.DataFrame(lines, columns=[*POINT, *KEPT, *FOUND])
