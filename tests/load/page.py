"""The live page under load: `python -m tests.load.page --minutes 10 --updates 1000`, in Chromium.

A tick of the stream changes the reach of all twenty rows, so `updates` per second are `updates / 20` messages; every
second there is an alert. Prints for each minute: frames per second, the longest frame, memory and nodes of the page.
Exits with 1 if the page reports an error, loses its connection, or its memory has doubled since the first minute.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from typing import Any

from streams.worker.web import state as states
from tests.support import browser, live_page
from tests.support.browser import Opened
from tests.support.live_page import PEOPLE, Site

ROWS = 20
COUNT_FRAMES = """(() => { window.frames_ = 0; window.longest_ = 0; let last = performance.now();
  const step = now => {
    frames_ += 1; longest_ = Math.max(longest_, now - last); last = now; requestAnimationFrame(step);
  };
  requestAnimationFrame(step); })()"""
READ_FRAMES = "(() => { const read = [frames_, longest_]; frames_ = 0; longest_ = 0; return read; })()"


async def change(here: Site, end_s: float, each_s: float) -> int:
    """Change all rows of the top before each tick, and fire an alert each second; return the number of ticks."""
    ticks, next_alert_s, draw = 0, time.monotonic(), random.Random(0)
    while time.monotonic() < end_s:
        for user in PEOPLE:
            here.source.reach[user] *= draw.uniform(0.98, 1.0204)
        if time.monotonic() >= next_alert_s:
            next_alert_s += 1.0
            here.publish(live_page.alert(draw.choice(PEOPLE), ticks), events=1_000, scores=1_000)
        ticks += 1
        await asyncio.sleep(each_s)
    return ticks


async def sizes(page: Opened) -> tuple[float, int]:
    """Memory of the page's scripts (MB) after a collection, and its number of nodes."""
    devtools = await page.page.context.new_cdp_session(page.page)
    await devtools.send("HeapProfiler.collectGarbage")
    await devtools.send("Performance.enable")
    found: dict[str, Any] = await devtools.send("Performance.getMetrics")
    values = {metric["name"]: metric["value"] for metric in found["metrics"]}
    await devtools.detach()
    return values["JSHeapUsedSize"] / 1e6, int(values["Nodes"])


async def measure(minutes: float, updates: int) -> int:
    """Run the load, print a line for each minute; return the exit code."""
    states.TICK_S = ROWS / updates
    async with live_page.site() as here, browser.page(here.address) as page:
        await page.wait("document.querySelectorAll('#top tr[data-user]').length == 20")
        await page.run(COUNT_FRAMES)
        begin_s = time.monotonic()
        end_s = begin_s + 60 * minutes
        changing = asyncio.create_task(change(here, end_s, states.TICK_S))
        memory: list[float] = []
        while time.monotonic() < end_s:
            round_s = min(60.0, max(1.0, end_s - time.monotonic()))
            await page.run(READ_FRAMES)
            await asyncio.sleep(round_s)
            frames, longest_ms = await page.run(READ_FRAMES)
            used_mb, nodes = await sizes(page)
            memory.append(used_mb)
            minute = (time.monotonic() - begin_s) / 60
            sys.stdout.write(
                f"{minute:4.1f} min  {frames / round_s:5.1f} frames/s  longest {longest_ms:4.0f} ms  "
                f"{used_mb:5.1f} MB  {nodes:,} nodes  status {await page.text('#status')}\n"
            )
            sys.stdout.flush()
        ticks = await changing
        rate = ticks * ROWS / (time.monotonic() - begin_s)
        sys.stdout.write(f"{rate:,.0f} row updates per second; problems of the page: {page.problems or 'none'}\n")
        live = await page.run("document.querySelector('#status').className")
    return int(bool(page.problems) or live != "live" or memory[-1] > 2 * memory[0])


def main() -> int:
    """Parse the arguments and measure."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--updates", type=int, default=1_000, help="row updates per second")
    given = parser.parse_args()
    return asyncio.run(measure(given.minutes, given.updates))


if __name__ == "__main__":
    sys.exit(main())
