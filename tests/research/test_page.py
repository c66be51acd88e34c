"""The page of a report: what its text promises, and what a browser shows."""

import base64
import hashlib
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from ptune.research.galleries import galleries
from ptune.research.groups import grouped
from ptune.research.page import page
from ptune.research.records import Record
from ptune.research.tables import Cell, Report, Table, measured, word

EVIL = "<img src=x onerror='window.owned=1'><script>window.owned=1</script>\u202e"
COSTS = {"LinearProbe": 770, "LoRA": 74_498, "PTuningV2": 92_930, "FineTuning": 22_566_146}


def report(title="Prompts next to fine-tuning"):
    """Two tasks, four methods, three lengths and three seeds; one run has failed, with a name that attacks."""
    runs = [
        _run(task, method, length, seed, 0.6 + 0.1 * i + length / 2000 + seed / 500, cost * max(length, 8) // 8)
        for task in ("toy/pair", "a task with a rather long name")
        for i, (method, cost) in enumerate(COSTS.items())
        for length in ((8, 16, 32) if method == "PTuningV2" else (0,))
        for seed in (1, 2, 3)
    ]
    runs.append(Record("x", {"task": "toy/pair", "method": EVIL, "seed": 1}, state="failed", error=EVIL, grid="g"))
    groups = grouped(runs)
    rows = [
        (
            word(group.task),
            word(group.name),
            measured([run.metric("validation", "accuracy") for run in group.runs], 100)
            if group.runs
            else Cell(f"failed: {group.open[0].error}"),
            Cell(f"{group.runs[0].cost('trained_parameters'):,.0f}", group.runs[0].cost("trained_parameters"))
            if group.runs
            else Cell(),
            *[word("a text of several words, which is long enough to need a second line")] * 5,
        )
        for group in groups
    ]
    columns = ("task", "method", "accuracy", "trained parameters", *(f"remark {i}" for i in range(5)))
    tables = (
        Table("results", "Results", columns, 2, tuple(rows), ("Metrics in %; * chose the checkpoint.", EVIL)),
        Table("cost", "Cost", columns, 2, tuple(rows)),
    )
    return Report(title, tables, (f"left out: {EVIL}",), groups)


def _run(task, method, length, seed, quality, cost):
    options = {"task": task, "method": method, "seed": seed} | ({"length": length} if length else {})
    history = [
        {"epoch": i, "step": 9 * i, "metrics": {"accuracy": quality - 0.2 / i + seed / 400}} for i in range(1, 9)
    ]
    return Record(
        f"runs/{task}/{method}-{length}-{seed}",
        options,
        options
        | {"monitor": "accuracy", "metrics": {"validation": {"accuracy": quality}}, "history": history}
        | {"trained_parameters": cost, "seconds_to_best": 10 * seed + length, "peak_memory_mib": 700 + cost / 1e5},
        grid="g",
    )


def text_of(found=None):
    found = found or report()
    return page(found, galleries(found.groups))


class Elements(HTMLParser):
    """Every element of a page with its attributes and the texts inside it."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "text": "", **dict(attributes)}
        self.found.append(element)
        if tag not in ("meta", "link", "input", "img", "br"):
            self.open.append(element)

    def handle_endtag(self, tag):
        while self.open and self.open.pop()["tag"] != tag:
            pass

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def __call__(self, *tags):
        return [element for element in self.found if element["tag"] in tags]


@pytest.fixture(scope="module")
def text():
    return text_of()


@pytest.fixture(scope="module")
def elements(text):
    return Elements(text)


def test_what_runs_say_is_text(text, elements):
    assert len(elements("script")) == 1
    assert not elements("img")
    assert "\u202e" not in text
    assert text.count("&lt;script&gt;window.owned=1") >= 5  # names, failures, notes


def test_nothing_is_loaded_and_only_the_page_s_own_script_runs(text, elements):
    assert not re.findall(r"https?://", text)
    policy = next(e["content"] for e in elements("meta") if e.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    for kind in ("style", "script"):
        (inside,) = re.findall(rf"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        assert f"{kind}-src 'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'" in policy
    assert not [e for e in elements.found if "style" in e or any(name.startswith("on") for name in e)]


def test_a_page_is_in_order_for_readers_of_all_kinds(elements):
    (html,), (heading,), _ = elements("html"), elements("h1"), elements("main")
    assert html["lang"] == "en"
    assert heading["text"] == elements("title")[0]["text"] == "Prompts next to fine-tuning"
    assert {e["scope"] for e in elements("th")} == {"col", "row"}
    ids = [e["id"] for e in elements.found if "id" in e]
    assert len(ids) == len(set(ids))
    names = [name for e in elements.found for name in e.get("aria-labelledby", "").split()]
    assert set(names) <= set(ids)
    assert {e["href"][1:] for e in elements("a")} <= set(ids)
    assert elements("svg")
    assert all(e["role"] == "img" and e["aria-labelledby"] for e in elements("svg"))
    assert all(e["text"].strip() for e in elements("title", "desc"))
    assert {e["for"] for e in elements("label")} == {e["id"] for e in elements("input")}
    assert all(e["tabindex"] == "0" for e in elements("div") if e.get("class") == "box")


def test_failures_and_gaps_are_seen(elements):
    texts = [e["text"] for e in elements("td")]
    assert sum(text.startswith("failed: ") for text in texts) == 2
    assert [e["text"] for e in elements("p") if e.get("class") == "lead"] == [
        "36 finished runs in 12 rows; 1 failed or unfinished; 2 missing."
    ]


def test_every_picture_has_its_numbers(elements):
    assert len(elements("figure")) == len(elements("details")) == len(elements("svg")) == (2 + 1) * 3 + 2 + 2
    assert [e["text"] for e in elements("h2")] == [
        *("Results", "Quality against cost", "Learning curves", "Options", "Cost", "Notes")
    ]


def test_the_same_report_gives_the_same_page(text):
    assert text_of() == text


def test_a_report_without_pictures_and_notes_is_a_page():
    found = Report("t", (Table("results", "Results", ("task",), 1, ()),), (), ())
    assert len(Elements(page(found, []))("h2")) == 1


# What follows needs a browser.
class Keys:
    """Keys as WebDriver numbers them."""

    BACKSPACE, TAB, ENTER, SPACE = "\ue003", "\ue004", "\ue007", " "


CONTRASTS = """
const light = (c) => c.slice(0, 3).map((x) => x / 255)
  .map((x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
  .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
const paper = (e) => {
  const colour = numbers(getComputedStyle(e).backgroundColor);
  return colour[3] === 0 ? paper(e.parentElement) : colour;
};
const own = (e) => [...e.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
const shown = (e) => e.checkVisibility() && !e.matches("title, desc, script") && own(e);
return [...document.querySelectorAll("body *")].filter(shown).map((e) => {
  const ink = numbers(getComputedStyle(e)[e.closest("svg") ? "fill" : "color"]);
  const [a, b] = [light(ink), light(paper(e))].sort((x, y) => x - y);
  return [(b + 0.05) / (a + 0.05), e.tagName, e.textContent];
});
"""
"""The contrast of every text that is shown, as WCAG 2 has it."""
OVERLAPS = """
const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3;
return [...document.querySelectorAll("svg")].flatMap((svg) => {
  const texts = [...svg.querySelectorAll("text")].filter((e) => e.textContent);
  const boxes = texts.map((e) => [e.getBoundingClientRect(), e.textContent]);
  return boxes.flatMap(([a, x], i) => boxes.slice(i + 1).filter(([b]) => meet(a, b)).map(([, y]) => [x, y]));
});
"""
"""Pairs of texts in pictures of which one lies on the other."""
COLUMN = """
const rows = [...document.querySelector("table.data").tBodies[0].rows];
return rows.filter((row) => !row.hidden).map((row) => row.cells[arguments[0]].innerText);
"""
"""What is shown in a column of the first table."""


@pytest.fixture(scope="module")
def browser(text, tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    programs = shutil.which("chromium"), shutil.which("chromedriver")
    if None in programs:
        pytest.skip("needs chromium and chromedriver (Debian: apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(programs[1]))
    driver.file = tmp_path_factory.mktemp("page") / "report.html"
    driver.file.write_text(text, encoding="utf-8")
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser):
    """The page as it is opened in a light window of 1,600 x 900."""
    show(browser, 1600)
    yield browser
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.owned") is None


def show(browser, width, scheme="light"):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(browser.file.as_uri())


def column(browser, i):
    return browser.execute_script(COLUMN, i)


def headers(browser):
    return browser.find_elements("css selector", "table.data:first-of-type thead button")


@pytest.mark.slow
def test_rows_are_sorted_by_a_click(opened):
    header = headers(opened)[2]
    for direction, order in (("ascending", 1), ("descending", -1)):
        header.click()
        cells = column(opened, 2)
        values = [float(cell.split()[0]) for cell in cells if cell[0].isdigit()]
        assert all(order * a <= order * b for a, b in pairwise(values))
        assert [cell.split(":")[0] for cell in cells[len(values) :]] == ["failed"]
        parent = header.find_element("xpath", "..")
        assert parent.get_attribute("aria-sort") == direction
        assert len(opened.find_elements("css selector", "[aria-sort]")) == 1


def press(browser, *keys):
    browser.switch_to.active_element.send_keys(*keys)


@pytest.mark.slow
def test_rows_are_filtered_and_sorted_by_keys(opened):
    before = column(opened, 1)
    opened.find_element("id", "filter").click()
    press(opened, "PTuningV2 pair")
    assert set(column(opened, 1)) == {f"PTuningV2, length {n}" for n in (8, 16, 32)}
    assert opened.find_element("id", "count").text == "6 of 26 rows"
    press(opened, *[Keys.BACKSPACE] * len("PTuningV2 pair"))
    assert column(opened, 1) == before
    assert opened.find_element("id", "count").text == "26 rows"
    press(opened, *[Keys.TAB] * 3)  # to the table's box, its first header, its second
    press(opened, Keys.ENTER)
    ascending = column(opened, 1)
    assert sorted(ascending) == sorted(before)
    assert ascending.index("PTuningV2, length 8") < ascending.index("PTuningV2, length 16")  # numbers by their size
    press(opened, Keys.SPACE)
    assert column(opened, 1) == ascending[::-1]


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1600])
def test_nothing_overflows_overlaps_or_is_too_small(opened, width):
    show(opened, width)
    assert opened.execute_script("return document.documentElement.scrollWidth") == width
    assert opened.execute_script(OVERLAPS) == []
    sizes = "return [...document.querySelectorAll('svg')].map((e) => 12 * e.clientWidth / e.viewBox.baseVal.width)"
    assert min(opened.execute_script(sizes)) > 10.5
    opened.execute_script("document.querySelector('.box').scrollTop = 99")
    top = "return document.querySelector(arguments[0]).getBoundingClientRect().top"
    assert abs(opened.execute_script(top, ".box th") - opened.execute_script(top, ".box")) < 3  # the header stays


@pytest.mark.slow
def test_every_text_stands_out_in_light_and_dark(opened):
    opened.execute_script("document.querySelectorAll('details').forEach((e) => (e.open = true))")
    light = opened.execute_script(CONTRASTS)
    assert len(light) > 500
    assert [found for found in light if found[0] < 4.5] == []
    opened.find_element("id", "theme").click()
    dark = opened.execute_script(CONTRASTS)
    assert [found for found in dark if found[0] < 4.5] == []
    paper = "return getComputedStyle(document.body).backgroundColor"
    by_button = opened.execute_script(paper)
    show(opened, 1600, "dark")
    assert opened.execute_script(paper) == by_button != "rgb(255, 255, 255)"
    assert opened.find_element("id", "theme").text == "Light colours"
