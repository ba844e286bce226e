"""The whole suite: every method, variant and family. The quick loop: defaults on two families."""

import pytest

QUICK = {"llama_gqa", "gpt2"}


def pytest_collection_modifyitems(items):
    """Cases of the other families, and those with knobs turned, are slow."""
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        case = params.get("case")
        family = params.get("family") or getattr(case, "family", None)
        other = family is not None and family not in QUICK
        if "/contract/" in item.path.as_posix() and (other or getattr(case, "knobs", ())):
            item.add_marker(pytest.mark.slow)
