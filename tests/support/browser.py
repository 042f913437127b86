"""A real browser for tests: the system's Chromium, driven by Playwright."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, async_playwright

from tests.support.needs import CHROMIUM

AXE = Path(__file__).parent / "vendor" / "axe-4.11.0.min.js.gz"
"""The accessibility checks of axe-core, from npm; its licence (MPL-2.0) is at the begin of the file."""
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
WAIT_S = 30.0


class Opened:
    """One open page.

    Attributes:
        page: Playwright's page.
        problems: errors and warnings of the page.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.problems: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", lambda line: self._console(line.type, line.text))

    def _console(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.problems.append(f"{kind}: {text}")

    async def run(self, script: str) -> Any:
        """Evaluate a JavaScript expression in the page."""
        return await self.page.evaluate(script)

    async def wait(self, script: str, seconds: float = WAIT_S) -> Any:
        """Wait until the expression is true; return its value."""
        handle = await self.page.wait_for_function(f"() => {script}", timeout=1_000 * seconds, polling=50)
        return await handle.json_value()

    async def text(self, selector: str) -> str:
        """The text of the first element of a selector."""
        return await self.page.locator(selector).first.inner_text()

    async def violations(self) -> list[str]:
        """The rules of axe-core that the page violates, with the elements."""
        script = gzip.decompress(AXE.read_bytes()).decode()
        # The policy of the page refuses inline scripts, so axe runs in the context of the driver.
        await self.page.evaluate(f"() => {{ {script}\n; window.axe = axe; }}")
        found = await self.page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
        return [f"{rule['id']}: {[node['target'] for node in rule['nodes']]}" for rule in found["violations"]]


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A running browser, ended with the context."""
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def page(address: str, *, width: int = 1200, height: int = 860, **context: Any) -> AsyncIterator[Opened]:
    """A browser with one open page; further arguments are those of Playwright's context."""
    async with chromium() as browser, opened(browser, address, width, height, **context) as one:
        yield one


@asynccontextmanager
async def opened(
    browser: Browser, address: str, width: int = 1200, height: int = 860, **context: Any
) -> AsyncIterator[Opened]:
    """A page in a context of its own."""
    apart = await browser.new_context(viewport={"width": width, "height": height}, **context)
    try:
        one = Opened(await apart.new_page())
        await one.page.goto(address, wait_until="domcontentloaded")
        yield one
    finally:
        await apart.close()
