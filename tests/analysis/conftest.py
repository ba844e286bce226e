import os

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


@pytest.fixture(scope="module")
def driver():
    """A browser; its tests skip where there is none."""
    from benchmarks import browser

    lacking = browser.missing()
    if lacking and os.environ.get("CRUNCHMARK_BROWSER") == "1":
        pytest.fail(lacking)
    if lacking:
        pytest.skip(lacking)
    with browser.opened() as driver:
        yield driver


@pytest.fixture(scope="module")
def demo(driver, tmp_path_factory):
    """The page of a study as it opened, its store, and what the browser said and asked for."""
    from open_page import BUDGETS, METHODS, requests, wide, written

    from benchmarks import browser

    rows = synthetic_study.rows(methods=METHODS, budgets=BUDGETS)
    made = written(tmp_path_factory.mktemp("demo"), "demo", rows)
    wide(driver, 1400)
    made.marks = browser.load(driver, made.path)
    made.console, made.requests = driver.get_log("browser"), requests(driver)
    return made


@pytest.fixture
def page(driver, demo):
    """The page as it opened, without a filter, and its store."""
    from open_page import FRESH, wide

    wide(driver, 1400)
    driver.execute_script(FRESH)
    return demo
