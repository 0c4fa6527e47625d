"""The explorer in Chromium, served: by mouse, by keyboard alone, on a phone, for whoever needs contrast."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from browsing import ANSWERED, DESKTOP, HOLDS, PHONE, REFUTED, Visitor, chromium, walk

from popek.explorer.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.address
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_flip_open_step_edit_repair_and_share(browser: Browser, address: str, size: tuple[int, int]) -> None:
    visitor = Visitor(browser, address, size)
    link = walk(visitor)
    visitor.assert_well_behaved()
    other = Visitor(browser, address, size)  # somebody else, with the link alone
    page = other.goto(link, "#trust")
    assert "Word(WORD, 1)" in page.inner_text("#told")
    assert page.inner_text("#verdict").strip() == ""
    page.click("#trust")
    other.verdict(HOLDS)
    page.wait_for_selector("#restore")
    assert page.get_attribute("[data-setting=GMODE]", "aria-checked") == "false"
    page.click("#restore")
    other.verdict(REFUTED)
    other.assert_well_behaved()


def test_a_reload_shows_the_same(browser: Browser, address: str) -> None:
    visitor = Visitor(browser, address)
    page = visitor.goto("machine=pg74&set=LRA:0&form=LRA+a%2C+b&question=location_sensitive&promises=1")
    visitor.verdict(REFUTED)
    page.wait_for_selector(".witness")
    before = page.inner_text("#main")
    page.reload()
    page.wait_for_selector(".witness")
    visitor.verdict(REFUTED)
    assert page.inner_text("#main") == before
    assert page.inner_text(visitor.cell("LRA a, b", "faithful")) == "✗ no"


def test_what_was_derived_before_is_not_shown_of_what_is_asked_now(browser: Browser, address: str) -> None:
    """While a machine is on its way; and one that comes late does not take the place of a later one."""
    visitor = Visitor(browser, address)
    page = visitor.goto("machine=pg74&set=GMODE:0&form=GMODE+a&question=mode_sensitive")
    page.wait_for_selector(".witness")
    held: dict[str, Route] = {}

    def hold(route: Route) -> None:
        message: Any = route.request.post_data_json
        if message["ask"] == "machine":
            held[message["machine"]] = route
        else:
            route.continue_()

    page.route("**/ask", hold)
    for name in ("pdp10-ka10", "own"):
        with page.expect_request("**/ask"):
            page.select_option("#machine-name", name)
        shown = page.query_selector("#verdict")
        assert shown is not None
        assert (shown.get_attribute("aria-busy"), shown.inner_text().strip()) == ("true", "Deriving…")
        assert page.get_attribute("#detail", "aria-busy") == "true"
    held["own"].continue_()
    visitor.verdict(REFUTED, "GETT is sensitive")
    assert page.inner_text("#detail") == ""
    with page.expect_response("**/ask"):
        held["pdp10-ka10"].continue_()
    page.click("#promises")  # asks of the machine that is shown
    page.wait_for_selector(ANSWERED)
    assert page.input_value("#machine-name") == "own"
    assert page.query_selector(visitor.cell("GETT", "critical"))
    visitor.assert_well_behaved()


def test_a_dump_is_diagnosed(browser: Browser, address: str) -> None:
    visitor = Visitor(browser, address)
    page = visitor.goto()
    page.click("#view-doctor")
    page.click("#example")
    page.wait_for_selector("#diagnosis .verdict")
    assert "GUEST-CR-09" in page.inner_text("#diagnosis")
    link = page.url.partition("#")[2]
    other = Visitor(browser, address).goto(link, "#diagnosis .verdict")
    assert other.inner_text("#diagnosis") == page.inner_text("#diagnosis")
    page.fill("#dump", "<b>no dump</b>")
    page.click("#diagnose")
    page.wait_for_selector("#diagnosis .error")
    assert "no VMCS field" in page.inner_text("#diagnosis")
    visitor.assert_well_behaved()


def test_a_machine_of_ones_own(browser: Browser, address: str) -> None:
    visitor = Visitor(browser, address)
    page = visitor.goto()
    page.select_option("#machine-name", "own")
    visitor.verdict(REFUTED, "GETT is sensitive")
    text = page.input_value("#own-text")
    page.fill("#own-text", text.replace("cpu.acc = cpu.timer", "cpu.acc = cpu.timr"))
    page.click("#own-derive")
    visitor.verdict("No verdict", "machine.py:59: toy, GETT: Toy has no component 'timr'; near: timer")
    page.fill("#own-text", text.replace("    cpu.acc = cpu.timer", "    cpu.acc = cpu.acc"))
    page.click("#own-derive")
    visitor.verdict(HOLDS)
    visitor.assert_well_behaved()


def test_a_technique_is_chosen_and_the_path_tree_is_shown(browser: Browser, address: str) -> None:
    visitor = Visitor(browser, address)
    page = visitor.goto("machine=own")
    visitor.verdict(REFUTED, "GETT is sensitive")
    one, two = "techniques={technique.name: technique}", 'attrs.evolve(technique, name="plain", replaced=())'
    text = page.input_value("#own-text")
    assert text.count(one) == 1
    page.fill("#own-text", "import attrs\n" + text.replace(one, one[:-1] + f', "plain": {two}}}'))
    page.click("#own-derive")
    page.wait_for_selector("#technique option:nth-child(2)", state="attached")
    visitor.verdict(REFUTED, "GETT is sensitive")
    page.select_option("#technique", "plain")
    visitor.verdict(HOLDS)
    assert "technique=plain" in page.url
    page.click(visitor.cell("SETT", "privileged"))
    page.wait_for_selector(".tree")
    tree = page.inner_text(".tree")
    assert page.inner_text("#detail h3:has(+ ul.tree)") == "What it asks, in order: 2 paths"
    assert [way in tree for way in ("mode", "yes:", "no:", "privileged-instruction trap")] == [True] * 4
    visitor.assert_well_behaved()


def test_the_keyboard_is_enough(browser: Browser, address: str) -> None:
    visitor = Visitor(browser, address)
    page = visitor.goto()
    visitor.verdict(HOLDS)

    def focused() -> str:
        return str(page.evaluate("document.activeElement.dataset.setting ?? document.activeElement.id ?? ''"))

    page.keyboard.press("Tab")
    assert focused() == "skip"
    for _ in range(30):
        if focused() == "GMODE":
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    visitor.verdict(REFUTED)
    assert focused() == "GMODE"
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('cell')"):
            break
    page.keyboard.press("Home")
    for _ in range(8):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert (
        page.evaluate("document.activeElement.getAttribute('aria-label')") == "GMODE a, critical: yes, was no"
    )
    page.keyboard.press("Enter")
    page.wait_for_selector(".witness .step")
    for _ in range(30):
        if page.evaluate("document.activeElement.classList.contains('step')"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.inner_text(".step") == "Step back"
    assert page.evaluate("document.activeElement.classList.contains('step')")
    ring = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert ring == "3px"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_accessibility_checker_has_no_complaint(
    browser: Browser, address: str, size: tuple[int, int], scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    visitor = Visitor(browser, address, size, color_scheme=scheme)
    page = visitor.goto("machine=pg74&set=GMODE:0&form=GMODE+a&question=mode_sensitive&promises=1")
    visitor.verdict(REFUTED)
    page.wait_for_selector(".witness")
    for summary in page.query_selector_all("#detail summary"):
        summary.click()
    found = [("machine", Axe().run(page))]
    page.click("#view-doctor")
    page.click("#example")
    page.wait_for_selector("#diagnosis .verdict")
    found.append(("doctor", Axe().run(page)))
    page.click("#view-about")
    found.append(("about", Axe().run(page)))
    for view, result in found:
        assert result.violations_count == 0, f"{view}: {result.generate_report()}"


def test_colour_is_not_the_only_sign(browser: Browser, address: str) -> None:
    visitor = Visitor(browser, address)
    page = visitor.goto("machine=pg74&set=GMODE:0")
    told = visitor.verdict(REFUTED)
    assert told.startswith("✗")
    assert "✓ The premise of Theorem 3 holds" in told
    assert page.inner_text(visitor.cell("GMODE a", "critical")).startswith("✗")
    assert page.inner_text(visitor.cell("MOVE a, b", "critical")) == "·"
    assert "silent" in page.inner_text("[data-setting=GMODE]")


@pytest.mark.parametrize(
    ("fragment", "until"),
    [
        ("machine=nothing", "#verdict .main"),
        ("machine=pg74&set=GMODE", ANSWERED),
        ("machine=pg74&set=GMODE:9", ANSWERED),
        ("machine=pg74&technique=magic", ANSWERED),
        ("machine=pg74&form=NOTHING", "#detail .error"),
        ("machine=pg74&code=%%%", ANSWERED),
        ("machine=pg74&code=AAAA", ANSWERED),
        ("view=nothing&machine=pg74", ANSWERED),
        ("%", ANSWERED),
    ],
)
def test_a_link_that_means_nothing_leaves_a_page_that_works(
    browser: Browser, address: str, fragment: str, until: str
) -> None:
    visitor = Visitor(browser, address)
    page = visitor.goto(fragment, until)
    page.select_option("#machine-name", "pg74")
    page.evaluate("location.hash = 'machine=pg74'")
    visitor.verdict(HOLDS)
    visitor.assert_well_behaved()
