from collections import defaultdict

import pytest
import synthetic_study

from crunchmark.store import Store

SMALL = {
    "methods": ("svd", "slicegpt", "gptq"),
    "budgets": (0.1, 0.3, 0.7),
    "tasks": ("nano_factoid", "nano_icra_open", "nano_ppl"),
}


def put(root, study, rows):
    store, cells = Store(root), defaultdict(list)
    for row in rows:
        cells[row["cell"]].append(row)
    for key, group in cells.items():
        measured = [row for row in group if "task" in row]
        facts = {name: value for name, value in group[0].items() if name not in ("task", "metric")}
        if measured:
            del facts["state"]
        store.put_cell(study, key, facts)
        for row in measured:
            store.put_task(study, key, row["task"], {"rows": [row], "seconds": 1.5})


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
