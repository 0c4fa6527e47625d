"""The atlas in Chromium, from a file: click and keyboard paths from a row to the exact question."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from popek.emulators import programs
from popek.report.atlas_page import page as page_of
from small_atlas import entry, small_atlas

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

DESKTOP, PHONE = (1280, 900), (390, 844)
PLACE = "pg74.ring-deprivileging.gmode-0"
WITNESS = f"#/{PLACE}/GMODE%20a/mode-sensitive"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    program = programs.find("chromium")
    assert program, programs.not_found("chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("atlas") / "index.html"
    file.write_text(page_of(small_atlas()), encoding="utf-8")
    return file.as_uri()


class Visitor:
    """A page with everything that it asked for and complained about."""

    def __init__(self, browser: Browser, address: str, size: tuple[int, int], **options: Any) -> None:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        context.set_default_timeout(10_000)
        self.page: Page = context.new_page()
        self.address = address
        self.complaints: list[str] = []
        self.asked_for: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked_for.append(request.url))

    def goto(self, fragment: str = "") -> Page:
        """Open a view by its address."""
        self.page.goto(self.address + fragment)
        return self.page

    def leave(self) -> None:
        """Nothing went wrong, and nothing but the file was loaded."""
        self.page.context.close()
        assert self.complaints == []
        others = [url for url in self.asked_for if url.partition("#")[0] != self.address]
        assert [url for url in others if not url.startswith(("data:", "blob:"))] == []


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def visitor(request: pytest.FixtureRequest, browser: Browser, address: str) -> Iterator[Visitor]:
    visitor = Visitor(browser, address, request.param)
    yield visitor
    visitor.leave()


@pytest.fixture
def desktop(browser: Browser, address: str) -> Iterator[Visitor]:
    visitor = Visitor(browser, address, DESKTOP)
    yield visitor
    visitor.leave()


def fits(page: Page) -> bool:
    """Nothing is wider than the window."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


def fragment(page: Page) -> str:
    return page.url.partition("#")[2]


def arrived(page: Page, heading: str, text: str = "") -> None:
    """Wait until a view has come and its heading has the focus."""
    script = (
        "([id, text]) => document.activeElement.id === id && document.activeElement.innerText.includes(text)"
    )
    page.wait_for_function(script, arg=[heading, text])


def witness_rows(page: Page) -> list[list[str]]:
    rows = page.locator("#witness .states tbody tr")
    return [[cell.strip() for cell in row.locator("th, td").all_inner_texts()] for row in rows.all()]


def test_clicks_lead_from_a_row_to_the_exact_question(visitor: Visitor) -> None:
    page = visitor.goto()
    assert fits(page)
    page.get_by_role("link", name="ring-deprivileging GMODE is silent").click()
    arrived(page, "place-title", "pg74 under ring-deprivileging, GMODE is silent")
    assert fits(page)
    page.locator(".instructions").get_by_role("link", name="GMODE a", exact=True).click()
    arrived(page, "instruction-title", "GMODE a")
    assert fits(page)
    page.get_by_role("link", name="mode-sensitive: yes, witness and question").click()
    arrived(page, "witness-title")
    assert fragment(page) == WITNESS.removeprefix("#")
    assert page.locator("#witness h2").is_visible()
    assert page.locator("#witness h2").inner_text() == "Witness: GMODE 0 is mode-sensitive"
    assert ["mode", "0x1", "0x0", "0"] in witness_rows(page)
    assert ["→ memory[0x0]", "0x1", "0x0", "0"] in witness_rows(page)
    assert page.locator("#witness mark").all_inner_texts() == ["1", "0", "1", "0"]
    assert fits(page)
    page.get_by_text("The exact question in SMT-LIB 2").click()
    page.wait_for_selector("#question[data-ready]")
    text = page.locator("#question pre").text_content() or ""
    assert text.startswith("; pg74: GMODE a is mode-sensitive")
    assert "(check-sat)" in text
    shown = page.locator("#question .hash").inner_text()
    assert hashlib.sha256(text.encode()).hexdigest() == shown
    assert shown in {a.sha256 for form in entry(PLACE).forms for a in form.asked.values()}
    assert fits(page)


def test_a_cell_of_the_instruction_table_leads_to_its_witness(desktop: Visitor) -> None:
    page = desktop.goto(f"#/{PLACE}")
    page.get_by_role("link", name="LPSW control: yes, witness").click()
    arrived(page, "witness-title", "Witness: LPSW 0 is control-sensitive")
    assert page.locator(".states thead th").all_inner_texts() == ["", "before", "after", "bits"]
    page.go_back()
    arrived(page, "place-title")
    page.get_by_role("link", name="GMODE unfaithful: yes, witness").click()
    arrived(page, "witness-title", "Witness: GMODE 0 is not faithful")


def test_what_is_so_in_user_mode_is_shown_there(desktop: Visitor) -> None:
    page = desktop.goto("#/toy.ring-deprivileging.default")
    page.get_by_role("link", name="GETT resource: yes, witness").click()
    arrived(page, "witness-title", "Witness: GETT is resource-sensitive in user mode")
    assert fragment(page) == "/toy.ring-deprivileging.default/GETT/user-resource-sensitive"


def test_keys_lead_there_and_back(desktop: Visitor) -> None:
    page = desktop.goto()
    page.keyboard.press("/")
    page.keyboard.type("gmo")
    assert page.locator("tr.row:visible").count() == 4
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.locator(":focus").inner_text() == "ring-deprivileging\nGMODE is silent"
    page.keyboard.press("Enter")
    assert fragment(page) == f"/{PLACE}"
    arrived(page, "place-title")
    page.keyboard.press("/")
    page.keyboard.type("gmode")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    arrived(page, "instruction-title", "GMODE a")
    page.keyboard.press("ArrowRight")
    arrived(page, "instruction-title", "LRA a, b")
    assert fragment(page) == f"/{PLACE}/LRA%20a%2C%20b"
    page.keyboard.press("ArrowLeft")
    arrived(page, "instruction-title", "GMODE a")
    for _ in range(5):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert fragment(page) == WITNESS.removeprefix("#")
    arrived(page, "witness-title")
    page.keyboard.press("Tab")  # the state difference, which may scroll
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#question[data-ready]")
    for expected, title in (
        (f"/{PLACE}/GMODE%20a", "GMODE a"),
        (f"/{PLACE}", "pg74 under"),
        ("/", "Which machines"),
    ):
        page.keyboard.press("Escape")
        page.wait_for_function("title => document.activeElement.innerText.startsWith(title)", arg=title)
        assert fragment(page) == expected
    assert page.locator("#overview").is_visible()


def test_everything_that_can_be_clicked_can_be_reached_by_tab(desktop: Visitor) -> None:
    page = desktop.goto(WITNESS)
    wanted = page.locator(
        "main a:visible, main button:visible, main summary:visible, main select:visible"
    ).count()
    seen = set()
    for _ in range(wanted + 12):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate("document.activeElement.outerHTML.slice(0, 300) + document.activeElement.innerText")
        )
    reached = page.evaluate(
        "[...document.querySelectorAll('main a, main button, main summary, main select')]"
        ".filter(one => one.offsetParent).map(one => one.outerHTML.slice(0, 300) + one.innerText)"
    )
    assert len(reached) == wanted
    assert set(reached) <= seen


def test_every_witness_has_an_address(desktop: Visitor) -> None:
    visited = 0
    for one in small_atlas().entries:
        for form in one.forms:
            for name, witness in form.witnesses.items():
                form_part = re.sub(r"[^A-Za-z0-9]", lambda m: f"%{ord(m[0]):02X}", form.row.form)
                page = desktop.goto(f"#/{one.place.id}/{form_part}/{name.replace('_', '-')}/question")
                page.wait_for_selector("#question[open][data-ready], #witness p:has-text('false by itself')")
                assert witness["assembly"] in page.locator("#witness h2").inner_text()
                assert page.title().startswith(form.row.form)
                assert page.locator("#witness tr.differs").count() >= len(witness["differ"])
                visited += 1
    assert visited >= 20


@pytest.mark.parametrize(
    "fragment",
    [
        "#/pg75",
        f"#/{PLACE}/NOP",
        f"#/{PLACE}/GMODE%20a/toString",
        f"#/{PLACE}/GMODE%20a/mode-sensitive/x",
        "#/%E0%A4%A",
        "#/constructor",
    ],
)
def test_an_address_of_nothing_says_so(desktop: Visitor, fragment: str) -> None:
    page = desktop.goto(fragment)
    assert page.get_by_role("heading", level=1).inner_text() == "Nothing is here"


def test_filters_narrow_the_rows_and_are_part_of_the_address(desktop: Visitor) -> None:
    page = desktop.goto()
    page.locator("#by-verdict").select_option("hybrid virtualizable")
    assert page.locator("tr.row:visible").count() == 2
    assert page.get_by_role("status").inner_text() == "2 of 5 rows"
    page.locator("#by-machine").select_option("toy")
    assert page.locator("#none").is_visible()
    page.get_by_role("button", name="Clear the filters").click()
    page.wait_for_function("document.querySelectorAll('tr.row:not([hidden])').length === 5")
    page.locator("#by-machine").select_option("toy")
    assert page.get_by_role("link", name="ring-deprivileging").count() == 1
    page.reload()
    assert page.locator("#by-machine").input_value() == "toy"
    assert page.locator("tr.row:visible").count() == 1
    page.goto(desktop.address)
    page.get_by_role("searchbox").fill("gett")
    page.get_by_role("link", name="GETT: critical").click()
    arrived(page, "instruction-title", "GETT")
    assert fragment(page) == "/toy.ring-deprivileging.default/GETT"


def test_instructions_can_be_narrowed(desktop: Visitor) -> None:
    page = desktop.goto(f"#/{PLACE}")
    page.get_by_label("Kind").select_option("critical")
    assert page.locator(".instructions tbody tr:visible th").all_inner_texts() == ["GMODE a"]
    page.get_by_label("Kind").select_option("")
    page.get_by_label("Find").fill("relocation")
    assert page.locator(".instructions tbody tr:visible th").all_inner_texts() == ["LPSW a", "SREL a"]


def test_the_same_instruction_elsewhere_is_one_click_away(desktop: Visitor) -> None:
    page = desktop.goto(f"#/{PLACE}/GMODE%20a")
    page.get_by_role("link", name="ring-deprivileging, default settings: needless").click()
    arrived(page, "instruction-title", "GMODE a")
    assert fragment(page) == "/pg74.ring-deprivileging.default/GMODE%20a"


def test_a_form_without_a_witness_of_its_own_shows_that_of_another(desktop: Visitor) -> None:
    page = desktop.goto("#/toy.ring-deprivileging.default/GETT%20now/user-resource-sensitive")
    assert page.locator("#witness h2").inner_text() == "Witness: GETT is resource-sensitive in user mode"
    page.locator("#witness").get_by_role("link", name="GETT", exact=True).click()
    arrived(page, "witness-title")
    assert fragment(page) == "/toy.ring-deprivileging.default/GETT/user-resource-sensitive"


def test_without_decompression_the_text_is_there_packed(browser: Browser, address: str) -> None:
    visitor = Visitor(browser, address, DESKTOP)
    visitor.page.add_init_script("delete window.DecompressionStream")
    page = visitor.goto(WITNESS + "/question")
    page.wait_for_selector("#question[data-ready]")
    assert "base64 -d | gunzip" in page.locator("#question").inner_text()
    packed = re.sub(r"\s", "", page.locator("#question pre").inner_text())
    assert packed in {a.packed for form in entry(PLACE).forms for a in form.asked.values()}
    visitor.leave()


def test_the_question_can_be_saved(desktop: Visitor) -> None:
    page = desktop.goto(WITNESS + "/question")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as .smt2").click()
    assert download.value.suggested_filename == "gmode-a-mode-sensitive.smt2"
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert text == page.locator("#question pre").text_content()


CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => {
    const linear = (v) => (v <= 10 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  };
  const found = [];
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !one.offsetParent || one.closest(".unseen, .skip, script, option")) continue;
    let behind = one, back = [0, 0, 0, 0];
    while (behind && back[3] === 0) {
      const told = parse(getComputedStyle(behind).backgroundColor);
      back = told.length === 3 ? [...told, 1] : told;
      behind = behind.parentElement;
    }
    const [a, b] = [light(parse(getComputedStyle(one).color)), light(back)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.push(`${one.tagName}.${one.className}: ${one.textContent.trim().slice(0, 30)} ${ratio}`);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_texts_can_be_read_in_light_and_dark(
    browser: Browser, address: str, scheme: Any, size: tuple[int, int]
) -> None:
    visitor = Visitor(browser, address, size, color_scheme=scheme)
    backgrounds = set()
    for fragment in ("", f"#/{PLACE}", WITNESS + "/question"):
        page = visitor.goto(fragment)
        assert page.evaluate(CONTRAST) == []
        backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert backgrounds == {"rgb(251, 251, 250)" if scheme == "light" else "rgb(15, 19, 23)"}
    visitor.leave()


def test_headings_labels_and_tables_are_real(visitor: Visitor) -> None:
    for fragment in ("", f"#/{PLACE}", WITNESS):
        page = visitor.goto(fragment)
        assert page.locator("h1:visible").count() == 1
        assert page.locator("input:visible, select:visible").evaluate_all(
            "all => all.every(one => one.labels.length === 1)"
        )
        assert page.locator("svg[role=img]:visible").evaluate_all(
            "all => all.every(one => one.getAttribute('aria-label'))"
        )
        assert page.locator("table:visible thead th").evaluate_all(
            "all => all.every(one => one.scope === 'col')"
        )
        assert page.locator("table").evaluate_all(
            "all => all.every(one => one.caption || one.getAttribute('aria-labelledby'))"
        )


def test_paper_gets_no_controls_and_whole_texts(desktop: Visitor) -> None:
    page = desktop.goto(WITNESS + "/question")
    page.wait_for_selector("#question[data-ready]")
    page.emulate_media(media="print")
    assert page.locator("header, footer, button, .pager").evaluate_all(
        "all => all.every(one => !one.offsetParent)"
    )
    box = page.locator("#question pre").evaluate("one => [one.scrollHeight, one.clientHeight]")
    assert box[0] <= box[1] + 2
