"""A card per method of the study: paper, the rule in words, knobs, what it covers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from analysis import cards
from analysis.notes import Note, knobs


def found(names: Iterable[str], root: Path = cards.ROOT) -> list[dict[str, Any]]:
    """Cards in the order of the names; a method that has no yaml here has its name only."""
    return [_card(name, root) for name in names]


def _card(name: str, root: Path) -> dict[str, Any]:
    """One method, from its docstrings and its yaml."""
    path = root / "conf" / "method" / f"{name}.yaml"
    # A label is whatever a user typed: it must not lead out of the folder.
    if "/" in name or "\\" in name or not path.is_file():
        return {"name": name}
    note = Note.of(path)
    target = next((o.default for o in note.options if o.name.endswith("_target_")), "")
    if not target.startswith("methods."):
        return {"name": name, "paper": " ".join(note.header)}
    code = cards.source(target, root)
    own = [o for o in note.options if o.name.startswith("method.") or "." not in o.name]
    table = [[o.name, o.default, code.meanings.get(o.name) or o.remark] for o in knobs(own, "method")]
    return {
        "name": name,
        "paper": code.paper,
        "rule": code.prose,
        "contract": code.contract.replace("`", ""),
        "needs": [text.replace("`", "") for text in code.asked],
        "covers": [text.strip("'\"") for text in code.names("covers")],
        "published": " ".join(note.header),
        "knobs": table,
    }
