"""The page of a study in Debian's Chromium. `--basetemp=DIR` says where its pictures go."""

import base64
import json
import os
from types import SimpleNamespace

import pytest
import synthetic_study
from large_study import HOSTILE, Memory
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from analysis import command
from analysis.report import __main__ as report
from benchmarks import browser
from crunchmark.store import Store

pytestmark = pytest.mark.slow
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
# What the plot looks like once the page has made itself ready for paper.
PRINTED = """
addEventListener("beforeprint", () => {
  const text = document.querySelector("#plot .xtitle");
  window.printed = [getComputedStyle(text).fill, byId("plot")._fullLayout.width, T.all];
}, { once: true });
"""


@pytest.fixture(scope="module")
def driver():
    lacking = browser.missing()
    if lacking and os.environ.get("CRUNCHMARK_BROWSER") == "1":
        pytest.fail(lacking)
    if lacking:
        pytest.skip(lacking)
    with browser.opened() as driver:
        yield driver


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


@pytest.fixture(scope="module")
def demo(driver, tmp_path_factory):
    rows = synthetic_study.rows(methods=METHODS, budgets=BUDGETS)
    made = written(tmp_path_factory.mktemp("demo"), "demo", rows)
    wide(driver, 1400)
    made.marks = browser.load(driver, made.path)
    made.console, made.requests = driver.get_log("browser"), requests(driver)
    return made


@pytest.fixture
def page(driver, demo):
    """The page as it opened, without a filter, and its store."""
    wide(driver, 1400)
    driver.execute_script(FRESH)
    return demo


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


def test_it_opens_from_disk_without_an_error_or_a_request(demo):
    assert demo.path.as_uri() in demo.requests
    assert [url for url in demo.requests if url != demo.path.as_uri() and not url.startswith("data:")] == []
    assert demo.console == []
    assert 0 < demo.marks["usable"] < demo.marks["drawn"]


def test_a_search_leaves_the_rows_that_have_the_word(driver, page):
    assert len(lines(driver)) == 1 + len(METHODS) * len(BUDGETS)
    field = driver.find_element(By.CSS_SELECTOR, "#filters input[type=search]")
    field.send_keys("wanda")
    assert len(lines(driver)) == len(BUDGETS)
    assert (
        driver.find_element(By.ID, "count").text
        == f"1–5 of 5 cells, {1 + len(METHODS) * len(BUDGETS)} in all"
    )
    field.send_keys(" nothing like it")
    assert lines(driver) == []


def test_a_column_sorts_both_ways_and_what_is_not_known_comes_last(driver, page):
    sizes = {}
    for key in driver.execute_script("return R.data.settings.cell"):
        cell = page.store.get_cell(page.study, key)
        sizes[cell["method"], str(cell["budget"]).removesuffix(".0")] = cell["file_bytes"]
    for falling in (False, True):
        driver.find_element(By.CSS_SELECTOR, "[data-sort=file]").click()
        order = [sizes[line[0].strip(), line[1]] for line in lines(driver) if line[0].strip() != "dense"]
        assert order == sorted(order, reverse=falling)
        assert len(set(order)) > 3
    assert (
        driver.execute_script("return document.querySelector('[aria-sort=descending]').innerText")
        == "on disk ▾"
    )


def test_a_point_tells_the_score_of_the_store(driver, page):
    i, key = cell_of(driver, method="wanda", budget=0.3)
    row = page.store.get_task(page.study, key, "nano_mcr")["rows"][0]
    tasks = driver.execute_script("return R.data.tasks")
    t = next(k for k, task in enumerate(tasks) if task["task"] == "nano_mcr")
    Select(driver.find_elements(By.CSS_SELECTOR, "#axes select")[1]).select_by_value(str(t))
    WebDriverWait(driver, 10).until(
        lambda d: "acc" in d.execute_script("return byId('plot').layout.yaxis.title.text")
    )
    move(driver, *point(driver, i))
    told = "return document.querySelector('#plot .hoverlayer').textContent"
    WebDriverWait(driver, 10).until(lambda d: "wanda at 0.3" in d.execute_script(told))
    text = driver.execute_script(told)
    assert text.startswith("wanda at 0.3")
    assert f"{tasks[t]['name']} {row['value']:.3f} " in text
    assert text.count(row["state"]) == 1


def test_a_click_on_a_point_opens_its_cell_and_filters_the_table(driver, page):
    i, _ = cell_of(driver, method="svd_llm", budget=0.3)
    move(driver, *point(driver, i), click=True)
    WebDriverWait(driver, 10).until(lambda d: len(lines(d)) == len(BUDGETS))
    assert {line[0].strip() for line in lines(driver)} == {"svd_llm"}
    assert "svd_llm at 0.3" in driver.find_element(By.CSS_SELECTOR, "#cell .name").text
    driver.find_element(By.XPATH, "//button[contains(., 'only svd_llm')]").click()
    assert len(lines(driver)) == 1 + len(METHODS) * len(BUDGETS)


def test_the_keyboard_reaches_and_opens_a_cell(driver, page):
    driver.execute_script("document.querySelector('.skip').focus()")
    ActionChains(driver).send_keys(Keys.ENTER).perform()  # to the table
    for _ in range(40):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        name = driver.execute_script(
            "return document.activeElement.closest('#grid tbody tr')?.cells[1].innerText"
        )
        if name == "0.1":
            break
    assert name == "0.1"
    method = driver.switch_to.active_element.text
    ActionChains(driver).send_keys(Keys.ENTER).perform()
    assert driver.switch_to.active_element.get_attribute("id") == "cell"
    assert f"{method} at 0.1" in driver.find_element(By.CSS_SELECTOR, "#cell .name").text


@pytest.mark.parametrize("name", ["across", "up", "state", "score"])
def test_a_list_keeps_the_focus_when_its_choice_changes(driver, page, name):
    focused, chosen = "return document.activeElement.id", f"return byId('{name}').value"
    driver.execute_script(f"byId('{name}').focus()")
    seen = [driver.execute_script(chosen)]
    for _ in range(2):
        ActionChains(driver).send_keys(Keys.ARROW_DOWN).perform()
        assert driver.execute_script(focused) == name
        seen.append(driver.execute_script(chosen))
    assert len(set(seen)) == 3
    assert driver.execute_script("return [byId('up').value, byId('score').value].every((v) => v === R.y)")


def test_a_method_switched_by_the_keyboard_keeps_the_focus(driver, page):
    chip = driver.find_element(By.CSS_SELECTOR, "#methods-off [data-method=svd]")
    for pressed in ("false", "true"):
        chip.send_keys(Keys.ENTER)
        assert driver.switch_to.active_element == chip
        assert chip.get_attribute("aria-pressed") == pressed


def test_the_summary_opens_on_the_smallest_that_keeps_all(driver, tmp_path):
    tasks = ("nano_mcr", "nano_factoid")
    rows = synthetic_study.rows(methods=("wanda", "gptq"), budgets=(0.2, 0.7), tasks=tasks)
    kept = [row for row in rows if row["state"] == "match" and row["method"] != "dense"]
    names = [row["method"] for row in kept]
    assert {name for name in names if names.count(name) == len(tasks)} == {"gptq"}  # at 0.2
    least = next(row["file_bytes"] for row in kept if row["method"] == "gptq")
    wide(driver, 1400)
    browser.load(driver, written(tmp_path, "keeps", rows).path)
    size = float(driver.find_element(By.ID, "size").get_attribute("value")) * 1e6
    assert least <= size < least + 1e5  # two figures, rounded up
    text = driver.find_element(By.ID, "answer").text
    assert "keep all 2 ticked tasks. The smallest is\ngptq at 0.2" in text.replace(" \n", "\n")


def test_paper_gets_dark_text_and_a_plot_that_fits(driver, page):
    wide(driver, 1400, dark=True)
    theme = "return document.documentElement.dataset.theme"
    WebDriverWait(driver, 10).until(lambda d: d.execute_script(theme) == "dark")
    driver.execute_script(PRINTED)
    driver.execute_cdp_cmd("Page.printToPDF", {})
    fill, width, whole = driver.execute_script("return window.printed")
    assert (fill, width, whole) == ("rgb(27, 31, 36)", 640, True)
    screen = "const p = byId('plot'); return Math.abs(p._fullLayout.width - p.offsetWidth) < 2 && !T.all"
    WebDriverWait(driver, 10).until(lambda d: d.execute_script(screen))
    assert driver.execute_script(theme) == "dark"
    # The rest is in the styles.
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    colour = "return getComputedStyle(document.querySelector('#answer .state')).color"
    assert driver.execute_script(colour) in ("rgb(0, 105, 74)", "rgb(166, 61, 0)", "rgb(107, 85, 0)")
    assert driver.execute_script("return byId('plot').offsetWidth") == width
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_bytes_have_bars_on_a_narrow_screen(driver, page):
    wide(driver, 400)
    bars = "return [...document.querySelectorAll('.spent .stack')].map((bar) => bar.offsetWidth)"
    widths = driver.execute_script(bars)
    assert len(widths) > 1
    assert min(widths) > 300
    over = "const box = document.querySelector('.spent').parentNode; return box.scrollWidth - box.clientWidth"
    assert driver.execute_script(over) <= 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 800, 1400])
def test_nothing_is_wider_than_the_screen(driver, page, width, dark, tmp_path):
    wide(driver, width, dark)
    theme = "dark" if dark else "light"
    WebDriverWait(driver, 10).until(  # the page hears of it a moment later
        lambda d: d.execute_script("return document.documentElement.dataset.theme") == theme
    )
    WebDriverWait(driver, 10).until(
        lambda d: d.execute_script(
            "return Math.abs(byId('plot')._fullLayout.width - byId('plot').offsetWidth) < 2"
        )
    )
    used = driver.execute_script("return document.documentElement.scrollWidth")
    tall = driver.execute_script("return document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": width, "height": min(tall, 6000), "scale": 1}
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    picture = tmp_path / f"report-{width}-{'dark' if dark else 'light'}.png"
    picture.write_bytes(base64.b64decode(shot["data"]))
    assert used <= width
    black = driver.execute_script("return document.querySelectorAll('path[fill=\"#000000\"]').length")
    assert (black == 0) == dark  # dense's mark would not be seen on a dark page
    assert picture.stat().st_size > 20_000


def test_what_is_drawn_at_the_edge_is_no_less_of_the_frontier(driver, tmp_path):
    rows = synthetic_study.rows(methods=("svd",), budgets=(0.5, 0.6, 0.7), tasks=("nano_ppl",))
    for row in rows:  # beyond 30 times dense, and no two alike
        times = {0.5: 40, 0.6: 60, 0.7: 90}.get(row["budget"])
        if times:
            row |= {"value": times * row["dense"], "state": "fail"}
    made = written(tmp_path, "far", rows)
    wide(driver, 1400)
    browser.load(driver, made.path)
    driver.execute_script("R.y = '0'; changed('y'); document.querySelector('#frontier details').open = true")
    listed = "return [...document.querySelectorAll('#best .chip')].map((chip) => chip.innerText)"
    WebDriverWait(driver, 10).until(lambda d: "136" in d.execute_script(listed)[0])
    names = [text.split(" · ")[0] for text in driver.execute_script(listed)]
    assert names == ["svd at 0.7", "svd at 0.6", "svd at 0.5", "dense"]
    drawn = "return byId('plot').data.find((t) => t.line.color === '#E3B008').y"
    dense = rows[0]["value"]
    assert driver.execute_script(drawn) == pytest.approx([30 * dense] * 3 + [dense])
    # Nothing keeps the task: the summary asks for half of dense.
    size = float(driver.find_element(By.ID, "size").get_attribute("value"))
    assert size == pytest.approx(synthetic_study.DENSE_FILE / 2e6, abs=0.06)


def test_a_hostile_name_is_text_and_runs_nothing(driver, tmp_path):
    rows = synthetic_study.rows(methods=("svd",), budgets=(0.3,), tasks=("nano_mcr",), model=HOSTILE)
    made = written(tmp_path, "hostile", rows)
    wide(driver, 1400, dark=True)
    driver.get_log("browser")
    requests(driver)
    browser.load(driver, made.path)
    i, _ = cell_of(driver, method="svd", model=HOSTILE)
    move(driver, *point(driver, i), click=True)
    assert HOSTILE in driver.find_element(By.ID, "subtitle").text
    assert driver.find_elements(By.TAG_NAME, "img") == []
    assert driver.get_log("browser") == []
    assert [url for url in requests(driver) if not url.startswith(("file:", "data:"))] == []
    assert driver.execute_script("return document.documentElement.dataset.theme") == "dark"
