"""The page in a real browser: an installed chromium with its own driver; skipped with the reason without them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vlpbench.reports.render import render
from vlpbench.results.record import Record

pytestmark = pytest.mark.browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A driver of a browser with a profile of its own; selenium is told where both are, so that it fetches neither."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip(f"no browser to open the page in: {'chromedriver' if program else 'chromium'} is not installed")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    try:
        yield found
    finally:
        found.quit()


@pytest.fixture(scope="module")
def address(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(records, tmp_path_factory.mktemp("report"), title="Quick comparison").as_uri()


def opened(browser: Any, address: str, width: int, scheme: str = "light") -> Any:
    """The page in a window of this width, as if never seen before, with its console emptied."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(address)
    browser.execute_script("localStorage.clear()")
    browser.get_log("browser")
    browser.refresh()
    return browser


def script(browser: Any, code: str) -> Any:
    return browser.execute_script(f"return {code}")


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_reads_without_errors_and_without_scrolling_sideways(browser: Any, address: str, width: int, scheme: str):
    page = opened(browser, address, width, scheme)
    assert page.get_log("browser") == []
    assert script(page, "innerWidth") == width
    assert script(page, "document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    # The page itself must not be wider either, should an ancestor cut it off.
    wide = """[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, svg') &&
              e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 90))"""
    assert script(page, wide) == []


@pytest.mark.parametrize("width", [400, 1280])
def test_figures_have_size_and_words(browser: Any, address: str, width: int):
    page = opened(browser, address, width)
    boxes = script(
        page,
        "[...document.querySelectorAll('figure svg')].map(e => { const b = e.getBoundingClientRect();"
        " return [b.width, b.height, e.querySelectorAll('text').length] })",
    )
    assert len(boxes) == 15
    for wide, high, words in boxes:
        assert 0.8 * min(width, 560) - 40 < wide <= width
        assert 90 < high < 1200
        assert words > 3


def test_words_of_figures_stay_inside_them(browser: Any, address: str):
    page = opened(browser, address, 1280)
    out = """[...document.querySelectorAll('figure svg')].flatMap(svg => { const b = svg.getBoundingClientRect();
             return [...svg.querySelectorAll('text')].filter(t => { const r = t.getBoundingClientRect();
             return r.left < b.left - 1 || r.right > b.right + 1 || r.top < b.top - 1 || r.bottom > b.bottom + 1 })
             .map(t => t.textContent) })"""
    assert script(page, out) == []


def test_tables_scroll_inside_and_keep_their_headings(browser: Any, address: str):
    page = opened(browser, address, 400)
    box = "document.querySelector('#comparison .scroll')"
    assert script(page, f"{box}.scrollWidth > {box}.clientWidth + 100")
    page.execute_script(f"{box}.scrollLeft = 300")
    first = "document.querySelector('#t-comparison tbody th').getBoundingClientRect().left"
    assert script(page, f"{first} - {box}.getBoundingClientRect().left") <= 2
    tall = "document.querySelector('#t-measurements').parentElement"
    page.execute_script(f"{tall}.closest('details').open = true")
    page.execute_script(f"{tall}.scrollTop = 500")
    head = "document.querySelector('#t-measurements thead th').getBoundingClientRect().top"
    assert abs(script(page, f"{head} - {tall}.getBoundingClientRect().top")) <= 2


def column(page: Any, place: int) -> list[str]:
    return script(
        page, f"[...document.querySelectorAll('#t-comparison tbody tr')].map(r => r.cells[{place}].innerText.trim())"
    )


def test_sorting_by_mouse_and_by_key(browser: Any, address: str):
    from selenium.webdriver.common.keys import Keys

    page = opened(browser, address, 1280)
    names = column(page, 0)
    head = page.find_elements("css selector", "#t-comparison thead tr:last-child th")[3]
    button = head.find_element("css selector", "button")
    assert button.text == "Latency"
    assert head.get_attribute("aria-sort") == "none"
    button.click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, 0) == ["CLIP", "ALBEF (off)", "ALBEF (queue)", "ALBEF (distill)", "ViLT", "toy<i>"]
    button.send_keys(Keys.ENTER)
    assert head.get_attribute("aria-sort") == "descending"
    found = column(page, 0)
    assert (found[0], found[-1]) == ("ViLT", "toy<i>")  # what has no number stays last
    recall = page.find_elements("css selector", "#t-comparison thead tr:last-child th")[8]
    recall.find_element("css selector", "button").click()
    assert recall.get_attribute("aria-sort") == "descending"  # higher is better, so the best comes first
    assert head.get_attribute("aria-sort") == "none"
    assert column(page, 0)[0] == "ALBEF (off)"
    assert sorted(column(page, 0)) == sorted(names)


def test_filter_hides_rows(browser: Any, address: str):
    page = opened(browser, address, 1280)
    box = page.find_element("css selector", "input[data-filters='t-comparison']")
    box.send_keys("albef distill")
    shown = "[...document.querySelectorAll('#t-comparison tbody tr')].filter(r => r.offsetHeight).length"
    assert script(page, shown) == 1
    assert "1 / 6" in page.find_element("css selector", "#comparison output").text
    box.clear()
    box.send_keys(" ")
    assert script(page, shown) == 6


def test_colours_can_be_switched(browser: Any, address: str):
    page = opened(browser, address, 1280)
    paper = "getComputedStyle(document.body).backgroundColor"
    bar = "getComputedStyle(document.querySelector('#fig-latency svg path[style*=c-clip]')).fill"
    assert (script(page, paper), script(page, bar)) == ("rgb(255, 255, 255)", "rgb(0, 114, 178)")
    toggle = page.find_element("css selector", ".theme")
    assert toggle.text == "Dark"
    toggle.click()
    assert (script(page, paper), script(page, bar)) == ("rgb(20, 22, 27)", "rgb(92, 184, 242)")
    assert toggle.get_attribute("aria-pressed") == "true"
    toggle.click()
    assert script(page, paper) == "rgb(255, 255, 255)"
    assert script(opened(browser, address, 1280, "dark"), paper) == "rgb(20, 22, 27)"


def test_a_number_leads_to_its_record(browser: Any, address: str):
    page = opened(browser, address, 1280)
    link = page.find_element("css selector", "#t-comparison tbody td a")
    target = link.get_attribute("href").rpartition("#")[2]
    link.click()
    card = page.find_element("id", target)
    assert card.get_attribute("open")
    assert "vlpbench run quick --only id=" in card.text


@pytest.mark.parametrize("width", [400, 1280])
def test_contents_lead_to_every_section(browser: Any, address: str, width: int):
    page = opened(browser, address, width)
    if width == 400:
        assert not page.find_element("css selector", ".side").is_displayed()
        page.find_element("css selector", ".menu > summary").click()
    nav = page.find_element("css selector", ".menu nav" if width == 400 else ".side")
    links = nav.find_elements("tag name", "a")
    assert [link.text for link in links][:3] == ["Answer", "Trade-off", "Comparison"]
    place = script(page, "[...document.querySelectorAll('main > section')].map(s => s.id)")
    assert [link.get_attribute("href").rpartition("#")[2] for link in links] == place
    links[3].click()
    top = script(page, f"document.getElementById('{place[3]}').getBoundingClientRect().top")
    assert abs(top) < 80
    assert not script(page, "document.querySelector('.menu').open")


def test_a_tally_keeps_one_verdict(browser: Any, tmp_path: Path, records: list[Record]):
    page = opened(browser, render(records, tmp_path, title="t").as_uri(), 1280)
    rows = "[...document.querySelectorAll('#t-verdicts tbody tr')].filter(r => r.offsetHeight).map(r => r.className)"
    kinds = set(script(page, rows))
    if not kinds:
        pytest.skip("these records decide no claim")
    kind = sorted(kinds)[0]
    page.find_element("css selector", f".tally .{kind}").click()
    assert set(script(page, rows)) == {kind}
    page.find_element("css selector", f".tally .{kind}").click()
    assert set(script(page, rows)) == kinds


def test_hostile_text_runs_nothing(browser: Any, address: str):
    page = opened(browser, address, 1280)
    assert script(page, "document.scripts.length") == 1
    assert "<script>alert('x')</script>" in page.find_element("id", "failures").text


def test_prints_all_of_a_table(browser: Any, address: str, tmp_path: Path):
    page = opened(browser, address, 1280)
    page.find_element("css selector", ".theme").click()  # dark on the screen, and still white on paper
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert script(page, "getComputedStyle(document.querySelector('.scroll.tall')).overflow") == "visible"
    assert script(page, "getComputedStyle(document.querySelector('.bar')).display") == "none"
    assert script(page, "getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def chinese_fonts() -> set[str]:
    """Families that can set Chinese, by fontconfig; skips the test without any."""
    program = shutil.which("fc-list")
    command = [program, ":lang=zh-cn", "family"]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout if program else ""
    names = {name for line in found.splitlines() for name in line.split(",")}
    if not names:
        pytest.skip("no font for Chinese is installed, for example the package fonts-noto-cjk")
    return names


@pytest.mark.parametrize("width", [400, 1280])
def test_chinese_is_set_in_chinese_fonts(browser: Any, records: list[Record], tmp_path: Path, width: int):
    able = chinese_fonts()
    page = opened(browser, render(records, tmp_path, title="快速对比", lang="zh").as_uri(), width)
    assert page.get_log("browser") == []
    assert script(page, "document.documentElement.lang") == "zh-CN"
    assert script(page, "document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.execute_cdp_cmd("DOM.enable", {})
    page.execute_cdp_cmd("CSS.enable", {})
    root = page.execute_cdp_cmd("DOM.getDocument", {})["root"]["nodeId"]
    for where in ("h1", "#summary", "figure svg text", "thead th", "footer"):
        found = page.execute_cdp_cmd("DOM.querySelectorAll", {"nodeId": root, "selector": where})["nodeIds"]
        fonts = [
            font["familyName"]
            for node in found[:40]
            for font in page.execute_cdp_cmd("CSS.getPlatformFontsForNode", {"nodeId": node})["fonts"]
        ]
        assert able & set(fonts), f"{where} is set in {sorted(set(fonts))}"
