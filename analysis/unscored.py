"""Why a cell, or a task of it, has no score: in the words of tables, figures and the page."""

from __future__ import annotations

import re
from typing import Any

from analysis.style import known

TOLD_NEAR = re.compile(r"; the nearest reachable budget is [\d.]*\d")  # at the end of a reason


def why(row: Any) -> str:
    """The footnote of a cell without scores; the nearest budget once, also where the reason has it too."""
    near = f"nearest reachable budget {row.nearest_budget:.4g}" if known(row.nearest_budget) else ""
    told = "; ".join(filter(None, (near, TOLD_NEAR.sub("", row.reason) if near else row.reason)))
    return f"{row.state}: {told or 'no reason recorded'}".replace("\n", " ")


def reasons(row: Any) -> dict[str, str]:
    """Why each task that failed in a cell has no score; empty where the cell itself failed, or nothing."""
    told = row.reasons if isinstance(row.reasons, dict) else {}
    alike: dict[str, list[str]] = {}
    for task, reason in told.items():
        alike.setdefault(" ".join(str(reason).split()), []).append(task)
    named = {
        text: text if text.startswith(tasks[0]) else f"{', '.join(tasks)}: {text}"
        for text, tasks in alike.items()
    }
    return {task: named[text] for text, tasks in alike.items() for task in tasks}


def reason_of(row: Any, task: str) -> str:
    """Why a task has no score in a cell that ended without one; empty where the cell was not asked it."""
    told = reasons(row)
    if not told or not task:
        return why(row)
    return f"{row.state}: {told[task]}" if task in told else ""
