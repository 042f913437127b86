"""The live page, health probes and metrics: `/`, `/livez`, `/readyz`, `/metrics`."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from aiohttp import web

from streams.telemetry.metrics import CONTENT_TYPE
from streams.worker.web.live_page import files
from streams.worker.web.state import LiveState

PAGE = files.FOLDER / "index.html"


class Pages:
    """The handlers of pages and probes; they answer before the worker is ready.

    Args:
        state: What the handlers show.
    """

    def __init__(self, state: LiveState) -> None:
        self._state = state

    def add_to(self, app: web.Application) -> None:
        """Add the routes to an application."""
        app.router.add_get("/", self.page)
        app.router.add_get("/static/{path:.+}", files.send)
        app.router.add_get("/livez", self.live)
        app.router.add_get("/readyz", self.ready)
        app.router.add_get("/metrics", self.metrics)

    async def page(self, _: web.Request) -> web.Response:
        """Return the live page."""
        headers = {"Content-Security-Policy": files.POLICY, "Cache-Control": "no-cache"}
        return web.Response(text=PAGE.read_text(encoding="utf-8"), content_type="text/html", headers=headers)

    async def live(self, _: web.Request) -> web.Response:
        """Return 200 while every thread makes progress, else 503 and the thread that hangs.

        There is no response if the event loop hangs.
        """
        hung = self._state.readiness.liveness.stalled()
        answer: dict[str, object] = {"live": False, "detail": hung} if hung else {"live": True}
        return web.json_response(answer, status=503 if hung else 200)

    async def ready(self, _: web.Request) -> web.Response:
        """Return 200 once the state is loaded and partitions are owned, else 503 and what the worker is doing."""
        readiness = self._state.readiness
        return web.json_response(readiness.as_dict(), status=200 if readiness.ready else 503)

    async def metrics(self, _: web.Request) -> web.Response:
        """Return all metrics in Prometheus' text format."""
        return web.Response(body=self._state.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


@cache
def page(path: Path) -> tuple[str, str]:
    """Return a page in one file, and its policy: only its own script and style."""
    text = path.read_text(encoding="utf-8")
    hashes = {tag: _hash(text, tag) for tag in ("script", "style")}
    policy = (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy


def _hash(text: str, tag: str) -> str:
    inside = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in inside)
