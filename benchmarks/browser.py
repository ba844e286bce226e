"""Debian's Chromium without a window, driven by selenium: for the page of a study, its test and its times."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
WAIT = 60  # seconds for a page to draw all, on a busy machine


def missing() -> str:
    """What is not installed, in words; empty where all is there."""
    absent = [str(path) for path in (CHROMIUM, DRIVER) if not path.is_file()]
    return f"not installed: {', '.join(absent)}; .ci/chromium installs them" if absent else ""


@contextmanager
def opened() -> Iterator[Any]:
    """A browser that logs its console and its requests."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (
        "headless=new",
        "disable-gpu",
        "disable-dev-shm-usage",
        "hide-scrollbars",
        "no-first-run",
    ):
        options.add_argument(f"--{argument}")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium does not run as root with it
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # With the path given, selenium looks for no driver and downloads none.
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


def load(driver: Any, path: Path) -> dict[str, float]:
    """Open a page from disk; the milliseconds from its start until it was usable and until it was drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    driver.get(path.as_uri())
    asked = (
        "return Object.fromEntries(performance.getEntriesByType('mark').map((m) => [m.name, m.startTime]))"
    )
    WebDriverWait(driver, WAIT).until(lambda d: "drawn" in d.execute_script(asked))
    return dict(driver.execute_script(asked))
