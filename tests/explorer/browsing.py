"""A visitor of the explorer's page in Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from popek.emulators import programs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DESKTOP, PHONE = (1280, 900), (390, 844)
ANSWERED = "#verdict:not([aria-busy]) .main"
PATIENCE = 60_000  # milliseconds, on a loaded machine; nothing waits longer than it takes


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser."""
    from playwright.sync_api import sync_playwright

    program = programs.find("chromium")
    assert program, programs.not_found("chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visitor:
    """A page, with everything that it complained about and asked for."""

    def __init__(
        self, browser: Browser, address: str, size: tuple[int, int] = DESKTOP, **options: Any
    ) -> None:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        context.set_default_timeout(PATIENCE)
        self.page: Page = context.new_page()
        self.address = address
        self.complaints: list[str] = []
        self.asked_for: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked_for.append(request.url))

    def goto(self, fragment: str = "", until: str = ANSWERED) -> Page:
        """Open the page anew."""
        self.page.goto("about:blank")
        self.page.goto(self.address + ("#" + fragment if fragment else ""))
        self.page.wait_for_selector(until)
        return self.page

    def verdict(self, begins: str, has: str = "") -> str:
        """The verdict, once it begins so and says that."""
        found = self.page.wait_for_function(
            "([begins, has]) => { const v = document.querySelector('#verdict');"
            " return !v.hasAttribute('aria-busy') && v.innerText.startsWith(begins) && v.innerText.includes(has)"
            " && v.innerText; }",
            arg=[begins, has],
        )
        return str(found.json_value())

    def cell(self, form: str, question: str) -> str:
        """A cell of the table, as a selector."""
        return f"tr[data-form='{form}'] [data-question='{question}']"

    def assert_well_behaved(self) -> None:
        """Nothing was complained about, fetched from elsewhere, or too wide."""
        assert self.complaints == []
        host = self.address.split("/")[2]
        assert [
            url
            for url in self.asked_for
            if host not in url and not url.startswith(("about:", "data:", "blob:"))
        ] == []
        wide = self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0


HOLDS, REFUTED = "✓ The premise of Theorem 1 holds", "✗ The premise of Theorem 1 is refuted"


def walk(visitor: Visitor) -> str:
    """Flip a strap, open the witness, step, edit, repair, share; the link that holds it all.

    The same in a served page and in a built one.
    """
    page = visitor.goto()
    visitor.verdict(HOLDS)
    page.click("[data-setting=GMODE]")
    visitor.verdict(REFUTED, "GMODE is sensitive and not privileged")
    assert page.get_attribute("[data-setting=GMODE]", "aria-checked") == "false"
    assert page.inner_text(visitor.cell("GMODE a", "critical")) == "✗ yes"
    page.click(visitor.cell("GMODE a", "mode_sensitive"))
    page.wait_for_selector(".witness .step")
    assert "two states differ only in mode" in page.inner_text("#detail")
    assert page.inner_text(".states tbody tr:first-child").split()[0] == "mode"
    page.click(".step")
    assert "memory[0x0] 0x0 → 0x1" in page.inner_text(".witness [role=status]")
    page.click("#detail summary:has-text('Its Python')")
    text = page.input_value("#python")
    assert "cpu.mode.zero_extend(WORD)" in text
    page.fill("#python", text.replace("cpu.mode.", "cpu.mod."))
    page.click("#derive")
    page.wait_for_selector("#detail .error")
    assert "Pg74 has no component 'mod'; near: mode" in page.inner_text("#detail .error")
    page.fill("#python", text.replace("cpu.mode.zero_extend(WORD)", "Word(WORD, 1)"))
    page.click("#derive")
    visitor.verdict(HOLDS)
    assert "Rewritten: GMODE a" in page.inner_text("#edits")
    return page.url.partition("#")[2]
