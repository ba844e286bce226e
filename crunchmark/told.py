"""What a tracker is told of a cell: its rows, and single values to chart."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]

FACTS = (
    "model",
    *("achieved_bytes", "achieved_nominal", "achieved_model", "bits_scope", "bits_model", "file_bytes"),
    *("load_seconds", "allocate_seconds", "compress_seconds", "pack_seconds"),
    *("peak_memory_bytes", "nearest_budget", "reason"),
)
STAGES = {"allocate": "uniform", "compensate": "none"}  # what a config that does not tell them had


def summary(rows: Rows) -> dict[str, Any]:
    """What a run says of its cell: all rows as JSON text, and single numbers to chart.

    A fact that is not known is None, so that a run logged again keeps nothing of its first try;
    an infinite value is text, which JSON can hold.
    """
    measured = [row for row in rows if row.get("task")]
    lost = next((row for row in rows if not row.get("task")), {})
    told: dict[str, Any] = {"rows": json.dumps(list(rows)), "state": lost.get("state", "finished")}
    told |= {name: rows[0].get(name) for name in FACTS} | stages(rows[0])
    told["removed_without_fail"] = removed_without_fail(rows)
    for row in measured:
        name = f"{row['task']}/{row['metric']}"
        told |= {name: row["value"], f"{name}_stderr": row.get("stderr"), f"{name}_state": row.get("state")}
        told[f"{row['task']}/eval_seconds"] = row.get("eval_seconds")
    return {name: str(value) if value in (math.inf, -math.inf) else value for name, value in told.items()}


def stages(row: Mapping[str, Any]) -> dict[str, str | None]:
    """Names of the allocator and the compensator as the command line has them; None where no row tells."""
    config = row.get("config")
    if config is None:
        return dict.fromkeys(STAGES)
    given = {name: config[name]["_target_"].split(".")[-2] for name in STAGES if config.get(name)}
    return STAGES | given


def removed_without_fail(rows: Rows) -> float | None:
    """The share of bytes that is gone where no headline score fails, else minus the share of scores that do.

    Alone, a score is best where nothing is removed; this is best at the largest budget that keeps the tasks.
    A task that was asked and ended in an error is a fail; a cell without any score has none.
    """
    scored = [row for row in rows if row.get("task") and row.get("headline", True)]
    broken = [task for row in rows if not row.get("task") for task in row.get("reasons") or ()]
    states = [row["state"] for row in scored] + ["fail"] * len(broken)
    if not scored:
        return None
    fails = states.count("fail") / len(states)
    return -fails if fails else scored[0].get("achieved_bytes")
