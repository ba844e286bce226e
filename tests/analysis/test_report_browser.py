"""The page of a study in Debian's Chromium: what it does."""

import pytest
import synthetic_study
from large_study import HOSTILE
from open_page import BUDGETS, METHODS, cell_of, lines, move, point, requests, wide, written
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from benchmarks import browser

pytestmark = pytest.mark.slow


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
