"""The file: template, styles and scripts of this folder, the data and plotly, put into one."""

from __future__ import annotations

import base64
import gzip
import importlib.util
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from analysis.collect import AnalysisError

HERE = Path(__file__).parent
STYLES = ("base", "parts", "plan", "cards", "media")
SCRIPTS = (
    "base",
    "columns",
    "table",
    "points",
    "frontier",
    "summary",
    "plan",
    "bytes",
    "cell",
    "cards",
    "start",
)
_INCLUDE = re.compile(r"\{\{(\w+)\}\}")


def html(data: dict[str, Any]) -> str:
    """The page of a study's `payload`."""
    parts = {
        "title": escape(f"Crunchmark: {data['study']}"),
        "style": _texts(STYLES, "css"),
        "data": packed(json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()),
        "plotly": packed(_plotly().read_bytes()),
        "scripts": _texts(SCRIPTS, "js"),
    }
    template = (HERE / "page.html").read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda found: parts[found[1]], template)


def packed(content: bytes) -> str:
    """Gzip in base64, which cannot end a script element; the same content gives the same text."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


def _texts(names: Sequence[str], ending: str) -> str:
    """Files of this folder behind each other."""
    return "\n".join((HERE / f"{name}.{ending}").read_text(encoding="utf-8") for name in names)


def _plotly() -> Path:
    """The script inside plotly's package, of which nothing else is used, so nothing is imported."""
    spec = importlib.util.find_spec("plotly")
    places = (spec.submodule_search_locations or []) if spec else []
    for place in places:
        script = Path(place) / "package_data" / "plotly.min.js"
        if script.is_file():
            return script
    raise AnalysisError("plotly: not installed; pip install 'crunchmark-bench[report]' brings it")
