"""The page of a study on screens and on paper. `--basetemp=DIR` says where its pictures go."""

import base64

import pytest
import synthetic_study
from open_page import wide, written
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from benchmarks import browser

pytestmark = pytest.mark.slow
# What the plot looks like once the page has made itself ready for paper.
PRINTED = """
addEventListener("beforeprint", () => {
  const text = document.querySelector("#plot .xtitle");
  window.printed = [getComputedStyle(text).fill, byId("plot")._fullLayout.width, T.all];
}, { once: true });
"""


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
