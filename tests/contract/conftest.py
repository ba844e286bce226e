"""Every method meets every family in the whole suite; the quick loop takes two that differ most."""

import pytest

QUICK = {"llama_gqa", "gpt2"}


def pytest_collection_modifyitems(items):
    """Cases of the other families are slow."""
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        family = params.get("family") or getattr(params.get("case"), "family", None)
        if "/contract/" in item.path.as_posix() and family is not None and family not in QUICK:
            item.add_marker(pytest.mark.slow)
