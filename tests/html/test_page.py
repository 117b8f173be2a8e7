"""The page in a browser: it opens, and pointer and keyboard do what they should."""

# The page has real minus and multiplication signs.
# ruff: noqa: RUF001

import base64
import shlex
from collections.abc import Callable

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

Visit = Callable[..., object]
ALL = ["healthy", "faulty", "set", "hostile"]


def text_of(page: object, selector: str) -> str:
    return page.find_element(By.CSS_SELECTOR, selector).text


def focused(page: object) -> str:
    return page.execute_script("return document.activeElement.getAttribute('aria-label') ?? ''")


def press(page: object, *keys: str) -> None:
    for key in keys:
        ActionChains(page).send_keys(key).perform()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ALL)
def test_opens_without_errors_and_loads_nothing(visit: Visit, name: str, scheme: str) -> None:
    page = visit(name, scheme=scheme)
    assert page.get_log("browser") == []
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert page.find_elements(By.CSS_SELECTOR, ".chart canvas")


def test_the_verdict_is_said_in_words_not_in_colour_alone(visit: Visit) -> None:
    assert text_of(visit("healthy"), "h1").startswith("✓ PASS no component errs")
    page = visit("faulty")
    assert text_of(page, "h1").startswith("✗ FAULT model.layers.")
    assert page.title.startswith("FAULT: ")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("width", [1280, 700])
def test_nothing_is_wider_than_the_window(visit: Visit, name: str, width: int) -> None:
    page = visit(name, width=width)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_the_pointer_over_a_curve_shows_the_point_and_both_numbers(visit: Visit) -> None:
    page = visit("faulty")
    over = page.find_element(By.CSS_SELECTOR, "#curves .u-over")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", over)
    ActionChains(page).move_to_element(over).perform()
    tip = text_of(page, "#tip")
    assert "model." in tip and "total C−T: " in tip and "floor F−T: " in tip, tip
    ActionChains(page).move_to_element(page.find_element(By.CSS_SELECTOR, "#curves h2")).perform()
    assert not page.find_element(By.ID, "tip").is_displayed()


def test_arrows_read_a_curve_and_enter_opens_its_point(visit: Visit) -> None:
    page = visit("faulty")
    page.execute_script("document.querySelector('#curves .chart').focus()")
    press(page, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    said = page.execute_script("return document.querySelector('#curves [aria-live]').textContent")
    assert said.startswith("cos\nmodel.rotary_emb.cos"), said
    press(page, Keys.ENTER)
    assert text_of(page, "#panel h2") == "model.rotary_emb.cos"


def test_a_click_on_the_fault_shows_all_that_is_known_of_it(visit: Visit) -> None:
    page = visit("faulty")
    cell = page.find_element(By.CSS_SELECTOR, "#layers td.born")
    point = cell.get_attribute("aria-label").split(",")[0]
    cell.click()
    panel = text_of(page, "#panel")
    assert text_of(page, "#panel h2") == point
    for part in (
        "an error is born here",
        "Diagnosis",
        "Formula\nx · 1/√(mean x² + ε) · (shift + w)",
        "Inputs\nmodel.layers.",
        "Parameters\n" + point + ".weight",
        "tokens × hidden",
        "total C−T, relative L2",
        "Worst element",
        "elements are equal",
        f"inspect candidate {point}",
    ):
        assert part in panel, (part, panel)
    assert page.find_elements(By.CSS_SELECTOR, "#panel .bars i")
    press(page, Keys.ESCAPE)
    assert not page.find_element(By.ID, "panel").is_displayed()
    assert focused(page).startswith(point), "the focus is where it was"


def test_an_input_of_a_component_is_a_step_upstream(visit: Visit) -> None:
    page = visit("faulty")
    page.find_element(By.CSS_SELECTOR, "#layers td.born").click()
    link = page.find_element(By.CSS_SELECTOR, "#panel dd button.name")
    name = link.text
    link.click()
    assert text_of(page, "#panel h2") == name


def test_arrows_walk_over_the_cells_that_there_are(visit: Visit) -> None:
    page = visit("healthy")
    start = "#layers td[aria-label^='model.layers.0.linear_attn.conv1d,']"
    page.execute_script(f'document.querySelector("{start}").focus()')
    press(page, Keys.ARROW_RIGHT)
    assert focused(page).startswith("model.layers.1.linear_attn.conv1d,")
    # Layer 3 is of another type and has no such component.
    press(page, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert focused(page).startswith("model.layers.4.linear_attn.conv1d,")
    press(page, Keys.HOME, Keys.ARROW_DOWN, Keys.ENTER)
    assert text_of(page, "#panel h2") == "model.layers.0.linear_attn.conv_state"
    inside = page.execute_script(
        "return document.getElementById('panel').contains(document.activeElement)"
    )
    assert inside, "the panel takes the focus"
    reachable = page.execute_script(
        "return document.querySelectorAll('#layers td[tabindex=\"0\"]').length"
    )
    assert reachable == 1, "Tab passes the table in one step"


def test_the_colours_and_the_step_can_be_chosen(visit: Visit) -> None:
    page = visit("healthy")
    cell = "#layers td[aria-label^='model.layers.0.mlp.act,']"
    assert "relative L2" in page.find_element(By.CSS_SELECTOR, cell).get_attribute("aria-label")
    page.find_element(By.CSS_SELECTOR, "#layers option[value=ratio]").click()
    assert "of its bound" in page.find_element(By.CSS_SELECTOR, cell).get_attribute("aria-label")
    page.find_element(By.CSS_SELECTOR, "#layers option[value='1']").click()
    assert "step 1:" in page.find_element(By.CSS_SELECTOR, cell).get_attribute("aria-label")
    assert "step 1" in page.find_element(By.CSS_SELECTOR, "#curves details caption").get_attribute(
        "textContent"
    )


def test_tokens_of_a_prompt_are_cells_that_open_their_point(visit: Visit) -> None:
    page = visit("faulty")
    cells = page.find_elements(By.CSS_SELECTOR, "#tokens td[tabindex]")
    assert len(cells) > 10
    label = cells[-1].get_attribute("aria-label")
    page.execute_script("arguments[0].click()", cells[-1])
    assert label.startswith(text_of(page, "#panel h2") + ", position ")


def test_the_reader_chooses_the_prompt_whose_tokens_are_shown(visit: Visit) -> None:
    page = visit("healthy")
    choice = "#tokens label:nth-of-type(2) select"
    options = page.find_elements(By.CSS_SELECTOR, f"{choice} option")
    assert len(options) == 2
    seen = []
    for option in options:
        name = option.text
        option.click()
        assert f"prompt {name}" in text_of(page, "#tokens caption")
        assert text_of(page, "#tokens summary") == f"Text of prompt {name}"
        # Every row is full, whichever prompt errs more at its point.
        rows = page.find_elements(By.CSS_SELECTOR, "#tokens tbody tr")
        filled = [len(row.find_elements(By.CSS_SELECTOR, "td[tabindex]")) for row in rows]
        assert len(rows) > 8 and len(set(filled)) == 1, filled
        cell = page.find_element(By.CSS_SELECTOR, "#tokens td[tabindex]").get_attribute(
            "aria-label"
        )
        assert "“" in cell and "token id " in cell, cell
        seen.append(filled[0])
        options = page.find_elements(By.CSS_SELECTOR, f"{choice} option")
    assert seen[0] != seen[1]


def test_a_hostile_prompt_is_shown_as_text(visit: Visit) -> None:
    page = visit("hostile")
    lines = text_of(page, "#tokens pre.prompt").split("\n")
    assert lines[0] == "first line" and lines[2] == "& {{data}}", lines
    assert lines[1].startswith('</script><img src=x onerror="window.hacked=2">'), lines
    assert page.execute_script("return window.hacked") is None
    assert page.find_elements(By.TAG_NAME, "img") == []


def test_every_table_has_names_for_screen_readers(visit: Visit) -> None:
    page = visit("faulty")
    unnamed = page.execute_script(
        "return [...document.querySelectorAll('#layers td[tabindex], #tokens td[tabindex]')]"
        ".filter((cell) => !cell.getAttribute('aria-label')).length"
    )
    assert unnamed == 0
    heads = page.find_elements(By.CSS_SELECTOR, "#layers tbody th[scope=row]")
    assert len(heads) > 30 and all(head.text for head in heads)


def test_engines_have_a_tab_each_and_arrows_change_it(visit: Visit) -> None:
    page = visit("set")
    tabs = page.find_elements(By.CSS_SELECTOR, "[role=tab]")
    assert len(tabs) >= 2
    tabs[0].click()
    first = page.find_element(By.CSS_SELECTOR, "#report .note").text
    press(page, Keys.ARROW_RIGHT)
    assert page.find_element(By.CSS_SELECTOR, "#report .note").text != first
    assert (
        page.execute_script("return document.activeElement.getAttribute('aria-selected')") == "true"
    )
    assert page.get_log("browser") == []


def test_hostile_names_are_shown_as_text(visit: Visit) -> None:
    page = visit("hostile")
    assert page.find_elements(By.TAG_NAME, "img") == []
    assert page.execute_script("return window.hacked") is None
    body = page.find_element(By.TAG_NAME, "body").text
    assert "<img src=x onerror=" in body and "</script>" in body
    # A command to copy must not run what a name says.
    page.find_element(By.CSS_SELECTOR, "#layers td[tabindex]").click()
    commands = [pre.text for pre in page.find_elements(By.CSS_SELECTOR, "#panel pre")]
    words = [word for command in commands for word in shlex.split(command)]
    assert any("<img src=x" in word for word in words), commands


def test_dark_and_light_differ_and_paper_is_light(visit: Visit) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    assert visit("healthy").execute_script(ground) == "rgb(255, 255, 255)"
    page = visit("healthy", scheme="dark")
    assert page.execute_script(ground) == "rgb(13, 17, 23)"
    page.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert page.execute_script(ground) == "rgb(255, 255, 255)"
    page.execute_script("dispatchEvent(new Event('afterprint'))")
    assert page.execute_script(ground) == "rgb(13, 17, 23)"
    paper = page.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert base64.b64decode(paper["data"]).startswith(b"%PDF")
