"""The page of a made-up study, open in a browser: what its tests do with it."""

import json
from types import SimpleNamespace

import synthetic_study
from large_study import Memory
from selenium.webdriver.common.actions.action_builder import ActionBuilder

from analysis import command
from analysis.report import __main__ as report
from crunchmark.store import Store

METHODS = ("svd", "svd_llm", "slicegpt", "wanda", "gptq")
BUDGETS = (0.1, 0.2, 0.3, 0.5, 0.7)
# Where a cell's point is on the screen, which mark of plotly's it is, from plotly's own axes.
PLACE = """
const plot = byId("plot"), {xaxis, yaxis} = plot._fullLayout, box = plot.getBoundingClientRect();
const trace = plot.data.find((t) => (t.customdata || []).includes(arguments[0]));
const k = trace.customdata.indexOf(arguments[0]);
return [box.left + xaxis._offset + xaxis.d2p(trace.x[k]), box.top + yaxis._offset + yaxis.d2p(trace.y[k])];
"""
FRESH = """
Object.assign(R.filter, {text: "", model: "", off: new Set(), state: "", label: ""});
R.y = "share"; T.sort = ""; T.down = false; T.page = 0;
document.activeElement.blur(); changed("y"); scrollTo(0, 0);
"""


def written(folder, study, rows):
    """Store a study with plans and items; its page, made by the command, and the store."""
    store, made = Store(folder), Memory(rows)
    synthetic_study.put(folder, study, rows)
    for cell in made.cells:
        whole = made.get_cell(study, cell)
        told = {name: whole[name] for name in ("plan", "config")}
        store.put_cell(study, cell, store.get_cell(study, cell) | told)
    for cell, task in made.tasks:
        store.put_task(
            study, cell, task, store.get_task(study, cell, task) | made.get_task(study, cell, task)
        )
    assert command.run(report.main, [study, "--store", str(folder)]) == 0
    return SimpleNamespace(path=folder / study / "report.html", store=store, study=study)


def requests(driver):
    """Every address that was asked for since the last time."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in sent]


def wide(driver, width, dark=False, height=900):
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def lines(driver):
    """The table's rows, as lists of texts."""
    rows = "[...document.querySelectorAll('#grid tbody tr')]"
    return driver.execute_script(f"return {rows}.map((r) => [...r.cells].map((c) => c.innerText))")


def cell_of(driver, **facts):
    """Place in the page and key of the only cell that has these settings."""
    settings = driver.execute_script("return R.data.settings")
    found = [i for i in range(len(settings["cell"])) if all(settings[k][i] == v for k, v in facts.items())]
    assert len(found) == 1
    return found[0], settings["cell"][found[0]]


def point(driver, i):
    """Bring the plot into view; where the cell's mark is in it."""
    driver.execute_script("byId('plot').scrollIntoView({block: 'center'})")
    return [round(place) for place in driver.execute_script(PLACE, i)]


def move(driver, x, y, click=False):
    """The mouse, in two steps: plotly hovers on movement."""
    actions = ActionBuilder(driver)
    actions.pointer_action.move_to_location(x - 3, y).move_to_location(x, y)
    if click:
        actions.pointer_action.pause(0.1).click()
    actions.perform()
