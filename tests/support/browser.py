"""A real browser for tests: headless Chromium over its DevTools socket; needs only aiohttp."""

from __future__ import annotations

import asyncio
import base64
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.needs import CHROMIUM

_LISTENING = "DevTools listening on "


class Page:
    """One open page. problems: errors and warnings of the page."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._session = ""
        self.problems: list[str] = []

    async def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Send a DevTools command and return its result; errors of the page meanwhile are added to `problems`."""
        self._number += 1
        command: dict[str, Any] = {"id": self._number, "method": method, "params": arguments}
        if self._session:
            command["sessionId"] = self._session
        await self._socket.send_json(command)
        while True:
            answer = await self._socket.receive_json()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            if answer.get("method") in {"Runtime.exceptionThrown", "Log.entryAdded"}:
                self.problems.append(str(answer["params"]))

    async def open(self, address: str) -> None:
        """Open an address and collect the errors of the page."""
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=address)

    async def run(self, script: str) -> Any:
        """Evaluate a JavaScript expression in the page."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return answer["result"].get("value")

    async def wait(self, script: str, seconds: float = 15) -> Any:
        """Wait until the expression is true; return its value."""
        async with asyncio.timeout(seconds):
            while not (value := await self.run(script)):  # noqa: ASYNC110 - a page sets no asyncio.Event
                await asyncio.sleep(0.05)
        return value

    async def screenshot(self) -> bytes:
        """A PNG of the visible page."""
        answer = await self.call("Page.captureScreenshot")
        return base64.b64decode(answer["data"])


@asynccontextmanager
async def page(address: str, folder: Path) -> AsyncIterator[Page]:
    """A browser with one open page, its profile in `folder`; killed at the end."""
    process = await asyncio.create_subprocess_exec(
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--window-size=1200,860", "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            devtools = await _devtools(process)
        async with aiohttp.ClientSession() as session:
            socket = await session.ws_connect(devtools, max_msg_size=0)
            opened = Page(socket)
            await opened.open(address)
            yield opened
            await socket.close()
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await process.communicate()


async def _devtools(process: asyncio.subprocess.Process) -> str:
    """The address of the browser's socket, from its standard error."""
    if process.stderr is None:
        raise RuntimeError("standard error must be a pipe")
    async for raw in process.stderr:
        if raw.decode(errors="replace").startswith(_LISTENING):
            return raw.decode().removeprefix(_LISTENING).strip()
    raise RuntimeError("the browser exited before it listened")
