"""All that the page shows of a study, as one JSON object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis import collect, protocols, rerun, style
from analysis.collect import AnalysisError
from analysis.report import details, methods, settings
from analysis.report.flips import Flips
from crunchmark.store import Store


def payload(data: pd.DataFrame, study: str, store: Store | None = None, flips: int = 20) -> dict[str, Any]:
    """What the page shows.

    Args:
        data: Rows as `analysis.collect` gives them.
        study: Its name.
        store: Where cells and items are; None for rows from W&B, which have neither.
        flips: At most so many items per cell that dense gets right and it does not; 0 reads no items.
    """
    table, keys = settings.settings(data)
    chosen = settings.measured(data)
    points = collect.points(chosen) if len(chosen) else chosen
    told = settings.tasks(points) if len(points) else []
    found = settings.scores(points, told, keys) if len(points) else _none()
    settings.add_shares(table, found, told)
    cells = _cells(data, table["cell"], store)
    asked = rerun.asked(chosen.sort_values("task", kind="stable"))
    return {
        "study": study,
        "written": _written(data),
        "older": int(data["older"].max()),
        "colours": style.COLOURS,
        "tasks": told,
        "settings": table,
        "scores": found,
        "plans": details.plans(cells),
        "spent": details.spent(cells),
        "provenance": details.provenance(cells, [asked.get(cell, {}) for cell in table["cell"]]),
        "flips": Flips(store, study, flips).found(chosen, table["cell"], told) if store and flips else None,
        "methods": methods.found(dict.fromkeys(name for name in table["method"] if name != "dense")),
        "protocols": _protocols(chosen),
        "notes": [*collect.flagged(chosen[chosen["headline"]]), *protocols.lines(chosen, "aside")],
    }


def _none() -> settings.Columns:
    """Scores of a study whose every cell has none."""
    return {
        name: [] for name in ("s", "t", "state", "v", "dense", "lo", "hi", "dlo", "dhi", "n", "sd", "seeds")
    }


def _written(data: pd.DataFrame) -> float | None:
    """When the newest row was written, in seconds of the epoch."""
    found = pd.to_numeric(data["written"], errors="coerce").max() if "written" in data else None
    return None if found is None or found != found else float(found)


def _cells(data: pd.DataFrame, names: Sequence[str], store: Store | None) -> list[Mapping[str, Any]]:
    """What cell.json holds of each setting's first cell; without a store what its rows say."""
    rows = {str(row["cell"]): row for row in data.drop_duplicates("cell").to_dict("records")}
    if store is None:
        return [rows[name] for name in names]
    try:
        return [store.get_cell(str(rows[name]["study"]), name) or rows[name] for name in names]
    except ValueError as damaged:
        raise AnalysisError(str(damaged)) from None


def _protocols(chosen: pd.DataFrame) -> list[list[str]]:
    """Task and protocol id of all that was asked."""
    return [list(pair) for pair in dict.fromkeys(zip(chosen["task"], chosen["protocol"], strict=True))]
