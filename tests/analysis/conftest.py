import pytest
import synthetic_study
from synthetic_study import put

SMALL = {
    "methods": ("svd", "slicegpt", "gptq"),
    "budgets": (0.1, 0.3, 0.7),
    "tasks": ("nano_factoid", "nano_icra_open", "nano_ppl"),
}


@pytest.fixture
def rows():
    return synthetic_study.rows(**SMALL)


@pytest.fixture
def root(tmp_path, rows):
    put(tmp_path / "results", "demo", rows)
    return tmp_path / "results"


@pytest.fixture
def store_rows():
    """store_rows(root, study, rows): write them as cells and tasks."""
    return put
