"""The live page in Chromium: widths, keyboard and tap, accessibility, states of the connection, alerts, and a restart.

Screenshots are in the temporary folders of the tests (`--basetemp` chooses where).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from tests.support import browser, live_page, needs
from tests.support.browser import Opened
from tests.support.coroutines import run
from tests.support.live_page import EVIL, LONG, PEOPLE, Site, alert, site

pytestmark = needs.chromium
Scheme = Literal["light", "dark"]
WIDTHS = (360, 390, 768, 1440)
VIEWS = {"overview": "", "user": f"#/u/{PEOPLE[1]}", "flow": "#/flow", "groups": "#/groups"}
SHOWN = {
    "overview": "document.querySelectorAll('#top tr[data-user]').length == 20 && "
    "!!document.querySelector('#lines canvas')",
    "user": "document.querySelectorAll('#why table').length == 3 && !!document.querySelector('#net a')",
    "flow": "document.querySelectorAll('#partitions tbody tr').length == 3",
    "groups": "document.querySelectorAll('#groups td a').length == 10",
}
TARGETS = """[...document.querySelectorAll('a, button, input')]
  .filter(one => one.checkVisibility() && !one.classList.contains('skip'))
  .filter(one => { const box = one.getBoundingClientRect(); return box.width < 24 || box.height < 24; })
  .map(one => one.outerHTML.slice(0, 90))"""
IN_VIEW = """(() => { const box = document.activeElement.getBoundingClientRect();
  return document.activeElement.id == 'whom' && box.top >= 0 && box.bottom <= innerHeight; })()"""


@pytest.fixture(autouse=True)
def ticks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page gets its state ten times a second."""
    monkeypatch.setattr("streams.worker.web.state.TICK_S", 0.1)
    return


def alerts(here: Site) -> None:
    """Publish three alerts, with everything that one may have, and with nothing of it."""
    details = {"sharers": tuple(PEOPLE[3:6]), "rising_s": 18_000.0, "topics": ("birds",)}
    here.publish(
        alert("bo.smith", 1, level=0), alert(LONG, 2, content=None), alert(PEOPLE[7], 3, **details), events=400
    )


def test_every_view_fits_every_width(tmp_path: Path) -> None:
    """No view is wider than the screen, every target has 24 pixels, and axe-core finds nothing, narrow or dark."""

    async def look(page: Opened, view: str, width: int, scheme: Scheme) -> list[str]:
        await page.page.set_viewport_size({"width": width, "height": 800})
        await page.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        await page.wait(f"innerWidth == {width} && ({SHOWN[view]})")
        await page.page.screenshot(path=tmp_path / f"{view}-{width}-{scheme}.png", full_page=True)
        wide = await page.run("document.documentElement.scrollWidth")
        found = [] if wide <= width else [f"{wide} wide"]
        found += await page.run(TARGETS)
        if (width, scheme) in {(WIDTHS[0], "light"), (WIDTHS[-1], "dark")}:
            found += await page.violations()
        return [f"{view} at {width}, {scheme}: {one}" for one in found]

    async def test() -> None:
        async with site() as here, browser.chromium() as opened:
            alerts(here)
            problems = []
            for view, path in VIEWS.items():
                async with browser.opened(opened, f"{here.address}/{path}") as page:
                    for width in WIDTHS:
                        problems += await look(page, view, width, "dark" if width == 768 else "light")
                    problems += await look(page, view, 1440, "dark")
                    problems += page.problems
            assert problems == []

    run(test)


def test_a_tap_opens_why_in_view_and_focused() -> None:
    """The explanation's heading has the focus and is inside the window; back returns to the list."""

    async def test() -> None:
        async with site() as here, browser.page(here.address, width=WIDTHS[0], height=740, has_touch=True) as page:
            for width in WIDTHS:
                await page.page.set_viewport_size({"width": width, "height": 740})
                await page.wait(f"innerWidth == {width} && ({SHOWN['overview']})")
                await page.page.locator("#top a.user").nth(2).tap()
                await page.wait(SHOWN["user"])
                await page.wait(IN_VIEW)
                assert await page.text("#whom") == PEOPLE[2]
                assert page.page.url.endswith(f"#/u/{PEOPLE[2]}")
                await page.page.go_back()
                await page.wait("!document.querySelector('#overview').hidden")
                assert page.problems == []

    run(test)


def test_why_is_words_without_bucket_numbers() -> None:
    """Parts are ranked and named; a tap in the graph adds neighbours, a second one opens a user."""

    async def test() -> None:
        async with site() as here, browser.page(f"{here.address}/#/u/{PEOPLE[1]}", reduced_motion="reduce") as page:
            await page.wait(SHOWN["user"])
            said = await page.text("#why")
            assert "Raised most by how far past posts went (+2.40), shares received lately (+1.10)" in said
            assert "they do not add up to the score" in said
            assert "not calibrated on this stream yet" in said
            assert "the reach was 7.20. Since then: shares received in the last hours rose; new around:" in said
            # Measures of the analyst are fetched once the page has the state of the worker.
            await page.wait("document.querySelector('#user').textContent.includes('community birds-1')")
            assert "Of 131 followers 75 % look genuine" in await page.text("#user")
            dots = await page.run("document.querySelectorAll('#net a').length")
            other = page.page.locator("#net a:not([aria-label^='alma.'])").first
            await other.focus()
            await page.page.keyboard.press("Enter")
            await page.wait(f"document.querySelectorAll('#net a').length > {dots}")
            await page.page.keyboard.press("Enter")
            await page.wait(f"location.hash != '#/u/{PEOPLE[1]}'")

    run(test)


def test_search_filter_pause_copy_and_csv() -> None:
    """Search opens any user or a sentence for an unknown one; filter, copy and CSV take the shown rows; pause holds."""

    async def test() -> None:
        rights = {"permissions": ["clipboard-read", "clipboard-write"]}
        async with site() as here, browser.page(here.address, **rights) as page:
            await page.wait(SHOWN["overview"])
            await page.page.fill("#filter", PEOPLE[4])
            assert await page.run("document.querySelectorAll('#top tr').length") == 1
            await page.page.click("#copy")
            await page.wait("document.querySelector('#copy').textContent == 'Copied'")
            assert await page.run("navigator.clipboard.readText()") == f"5\t{PEOPLE[4]}\t6.67"
            async with page.page.expect_download() as waiting:
                await page.page.click("#csv")
            saved = await (await waiting.value).path()
            rows = (await asyncio.to_thread(saved.read_text, encoding="utf-8")).splitlines()
            assert rows[0] == "rank,user,reach,calibrated,percentile,change_1_min,as_of,model"
            assert rows[1].startswith(f"5,{PEOPLE[4]},6.66")
            await page.page.fill("#filter", "")
            await page.page.click("#pause")
            here.source.reach["new.user"] = 99.0
            await asyncio.sleep(0.5)
            assert await page.text("#top a.user") == PEOPLE[0]
            await page.page.click("#pause")
            await page.wait("document.querySelector('#top a.user').textContent == 'new.user'")
            await page.page.fill("#query", "no.such.user")
            await page.page.keyboard.press("Enter")
            await page.wait("document.querySelector('#user').textContent.includes('no such user')")

    run(test)


def test_an_alert_is_a_card_with_its_cascade() -> None:
    """It names sharers, post, pace, age, growth and outcome of an alert; markup in ids stays text."""

    async def test() -> None:
        async with site() as here, browser.page(here.address) as page:
            await page.wait(SHOWN["overview"])
            details = {"sharers": tuple(PEOPLE[3:6]), "rising_s": 18_000.0, "topics": ("birds",)}
            begin = time.monotonic()
            here.publish(alert(EVIL, 9, **details))
            await page.wait("document.querySelector('#alerts strong')?.textContent.includes('img')")
            sys.stdout.write(
                f"alert on the page {1e3 * (time.monotonic() - begin):.0f} ms after its step was published\n"
            )
            await page.wait("!!document.querySelector('#alerts li svg path')")
            said = await page.text("#alerts li")
            assert EVIL in said
            assert "60 min ago" in said
            assert "26 people shared this author for the first time. 1 share before." in said
            assert f"Among them {PEOPLE[3]}, {PEOPLE[4]} and {PEOPLE[5]} and 23 more." in said
            assert "Most of them post-11 (birds); three quarters of the shares came within 5 h" in said
            assert "117 shares in 59 min" in said
            here.state.feed._end(live_page.ended(alert(EVIL, 9)))
            await page.wait("document.querySelector('#alerts .confirmed')?.textContent == 'confirmed 60 min later'")
            await page.wait("document.querySelector('#record').textContent.includes('8 of 12 ended alerts')")
            await page.wait("document.querySelector('#record').textContent.includes('Called a median')")
            record = await page.text("#record")
            assert "4 expired; 3 authors rose to the top without an alert. Called a median of 60 min before." in record
            assert "A plain counter with the same budget: 5 of 12 confirmed, 6 authors missed." in record
            assert "Of the newest alerts, 67 % against 42 % were confirmed." in record
            assert await page.run("document.querySelectorAll('img').length") == 0
            assert page.problems == []

    run(test)


def test_starting_stale_and_lost_look_different_and_a_restart_reconnects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each state has its own words; after a restart of the worker on the same port the page is live by itself."""

    async def state_of(page: Opened, kind: str) -> str:
        await page.wait(f"document.querySelector('#status').className == '{kind}'")
        return str(await page.run("document.querySelector('#why-not').textContent"))

    async def test() -> None:
        async with site(ready=False) as here, browser.page(here.address) as page:
            here.state.readiness.progress("loading the state", 3, 4)
            await page.wait("document.querySelector('#why-not').textContent.includes('loading the state')")
            assert "The worker is starting" in await state_of(page, "wait")
            assert await page.run("document.querySelector('#progress').value") == 0.75
            here.state.readiness.loaded = here.state.readiness.sought = True
            assert await state_of(page, "live") == ""
            port = int(here.address.rsplit(":", 1)[1])
            monkeypatch.setattr("streams.worker.web.state.TICK_S", 60.0)
            assert "sends nothing" in await state_of(page, "stale")
            await here.runner.cleanup()
            assert "does not respond" in await state_of(page, "lost")
            monkeypatch.setattr("streams.worker.web.state.TICK_S", 0.1)
            begin = time.monotonic()
            async with site(port=port):
                assert await state_of(page, "live") == ""
                sys.stdout.write(f"live again {time.monotonic() - begin:.1f} s after the worker\n")

    run(test)
