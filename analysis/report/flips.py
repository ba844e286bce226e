"""Items that dense gets right and a cell does not, with both answers: the worst first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis import style
from analysis.collect import AnalysisError
from crunchmark.store import Store

WIDEST = 240  # characters of a question or an answer
MOST = 20_000  # flips of a page, shared out over its cells
QUESTION = ("question", "prompt", "doc")  # where items keep it, if they do
Items = dict[str, tuple[float, Mapping[str, Any]]]


class Flips:
    """What each cell lost; texts and items are kept once."""

    def __init__(self, store: Store, study: str, per_cell: int) -> None:
        self.store, self.study, self.per_cell = store, study, per_cell
        self.texts: dict[str, int] = {}
        self.items: dict[tuple[int, str], int] = {}
        self.told: list[list[Any]] = []
        self.lost: Counter[int] = Counter()

    def found(
        self, chosen: pd.DataFrame, cells: Sequence[str], tasks: Sequence[dict[str, Any]]
    ) -> dict[str, Any]:
        """Flips of the page.

        Args:
            chosen: Rows with scores.
            cells: The cell of each setting.
            tasks: Task and metric of each score column.
        """
        place = {(t["task"], t["metric"]): i for i, t in enumerate(tasks) if t["higher"]}
        parents = {row.model: row.cell for row in chosen[chosen["method"] == "dense"].itertuples()}
        models = dict(zip(chosen["cell"], chosen["model"], strict=True))
        states = {(r.cell, r.task, r.metric): r.state for r in chosen.itertuples()}
        dense: dict[tuple[str, int], Items] = {}
        lines: list[list[list[Any]]] = []
        for cell in cells:
            parent, flips = parents.get(models.get(cell)), []
            for (task, metric), t in place.items():
                if parent in (None, cell) or states.get((cell, task, metric)) not in style.JUDGED:
                    continue
                if (parent, t) not in dense:
                    dense[parent, t] = self._items(parent, task, metric)
                flips += self._lost(t, dense[parent, t], self._items(cell, task, metric))
            lines.append(flips)
        self.lost.update(flip[0] for flips in lines for flip in flips)
        return {
            "cells": [self._worst(flips, len(cells)) for flips in lines],
            "items": self.told,
            "texts": list(self.texts),
        }

    def _items(self, cell: str, task: str, metric: str) -> Items:
        """Score and what else is known of each item of a metric; nothing of a task stored without items."""
        try:
            stored = self.store.get_task(self.study, cell, task) or {}
        except ValueError as damaged:
            raise AnalysisError(str(damaged)) from None
        found: Items = {}
        for name, own, score, _, *extra in stored.get("items") or []:
            if own == metric and score is not None:
                found[name] = (float(score), extra[0] if extra and isinstance(extra[0], dict) else {})
        return found

    def _lost(self, t: int, dense: Items, cell: Items) -> list[list[Any]]:
        """Item, the score's fall and the answer, wherever it fell."""
        flips = []
        for name, (score, extra) in cell.items():
            before, known = dense.get(name, (score, {}))
            if not before - score > 1e-9:
                continue
            if (t, name) not in self.items:
                self.items[t, name] = len(self.told)
                question = next((known[key] for key in QUESTION if known.get(key)), "")
                texts = [self._text(x) for x in (question, known.get("target"), known.get("prediction"))]
                self.told.append([t, name.rpartition("/")[2], *texts])
            flips.append([self.items[t, name], round(before - score, 3), self._text(extra.get("prediction"))])
        return flips

    def _text(self, value: Any) -> int:
        """Place of a text; several parts of an answer stand behind each other."""
        parts = value if isinstance(value, list) else [value]
        text = " | ".join(" ".join(str(part).split()) for part in parts if part is not None)
        text = text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"
        return self.texts.setdefault(text, len(self.texts))

    def _worst(self, flips: list[list[Any]], cells: int) -> dict[str, Any]:
        """The largest falls first; of equal ones those that fewest cells lose: they are this cell's own."""
        room = min(self.per_cell, max(1, MOST // cells))
        ordered = sorted(flips, key=lambda flip: (-flip[1], self.lost[flip[0]], flip[0]))
        shared = [[*flip, self.lost[flip[0]]] for flip in ordered]
        by_task: dict[int, list[list[Any]]] = {}
        for flip in shared:
            by_task.setdefault(self.told[flip[0]][0], []).append(flip)
        turns = [flip for turn in range(room) for own in by_task.values() for flip in own[turn : turn + 1]]
        return {"lost": len(flips), "worst": sorted(turns[:room], key=lambda flip: (-flip[1], flip[3]))}
