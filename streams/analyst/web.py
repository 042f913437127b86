"""The analyst's port: `/livez`, `/readyz`, `/metrics`, and its JSON API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from aiohttp import web

from streams.analyst.analyst import Analyst
from streams.analyst.measures import Measures
from streams.messages.headers import rfc3339
from streams.settings.settings import Settings
from streams.telemetry.metrics import CONTENT_TYPE
from streams.worker.web.auth import Guard

LIMIT = 1_000
ORDERS = ("pagerank", "interaction_pagerank", "core", "followers", "following")


class Pages:
    """The handlers; an error is `{"error": message}`.

    Args:
        analyst: what the handlers show.
    """

    def __init__(self, analyst: Analyst) -> None:
        self._analyst = analyst

    def add_to(self, app: web.Application) -> None:
        """Add the routes to an application."""
        for path, handler in (
            ("/livez", self.live),
            ("/readyz", self.ready),
            ("/metrics", self.metrics),
            ("/api/v1/top", self.top),
            ("/api/v1/users/{id}", self.user),
        ):
            app.router.add_get(path, handler)

    async def live(self, _: web.Request) -> web.Response:
        """Return 200: the loop that answers is the one that follows the log."""
        return web.json_response({"live": True})

    async def ready(self, _: web.Request) -> web.Response:
        """Return 200 once the graph is rebuilt and published, else 503 and what the analyst does."""
        ready = self._analyst.ready
        detail = "ready" if ready else self._analyst.detail
        return web.json_response({"ready": ready, "detail": detail}, status=200 if ready else 503)

    async def metrics(self, _: web.Request) -> web.Response:
        """Return all metrics in Prometheus' text format."""
        return web.Response(body=self._analyst.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def top(self, request: web.Request) -> web.Response:
        """Return the users with the largest value of `by`, in descending order."""
        measures = self._analyst.measures
        if measures is None:
            return _error(503, f"not ready: {self._analyst.detail}")
        by, limit = request.query.get("by", ORDERS[0]), request.query.get("limit", "20")
        if by not in ORDERS or not limit.isdecimal() or not 0 < int(limit) <= LIMIT:
            return _error(400, f"by must be one of {', '.join(ORDERS)}, limit a number from 1 to {LIMIT}")
        values = np.where(measures.live, getattr(measures, by), -1.0)
        rows = np.argsort(-values, kind="stable")[: min(int(limit), int(measures.live.sum()))]
        top = [{"user": measures.ids[row], **measures.of_user(row)} for row in rows.tolist()]
        return web.json_response({"top": top, "by": by, **_moment(measures)})

    async def user(self, request: web.Request) -> web.Response:
        """Return the measures of one user."""
        measures = self._analyst.measures
        if measures is None:
            return _error(503, f"not ready: {self._analyst.detail}")
        user = request.match_info["id"]
        row = measures.row(user)
        if row is None:
            return _error(404, "no such user, or a forgotten one")
        return web.json_response({"user": user, **measures.of_user(row), **_moment(measures)})


def _moment(measures: Measures) -> dict[str, Any]:
    return {"as_of": rfc3339(max(measures.as_of, 0)), "error_bound": measures.error_bound[0]}


def _error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)


def application(settings: Settings, analyst: Analyst) -> web.Application:
    """Return the application of the analyst's port."""
    app = web.Application()
    Guard(settings.web_token.get_secret_value(), local=settings.web_is_local).add_to(app)
    Pages(analyst).add_to(app)
    return app


@asynccontextmanager
async def serving(settings: Settings, analyst: Analyst) -> AsyncIterator[None]:
    """Serve the analyst's port for the duration of the context."""
    runner = web.AppRunner(application(settings, analyst), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.web_host, settings.analyst_port).start()
        yield
    finally:
        await runner.cleanup()
