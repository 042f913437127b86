"""The JSON API: `/api/v1/top`, `/api/v1/users/{id}`, `/api/v1/alerts`, and `/api/v1/stream` (server-sent events)."""

from __future__ import annotations

import asyncio

from aiohttp import web

from streams.messages.events import ID_BYTES
from streams.worker.web.feed import FullHouse, message
from streams.worker.web.state import TOP, NotReady, Web

LIMIT = 1_000
WRITE_S = 5.0
"""How long a listener may leave its connection stuffed before it is let go."""
RETRY_MS = 2_000
STREAM = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache",
    # Proxies that buffer would hold the news back.
    "X-Accel-Buffering": "no",
}


class API:
    """The handlers. Errors are JSON too: `{"error": what is wrong}`."""

    def __init__(self, state: Web) -> None:
        self._state = state

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_get("/api/v1/top", self.top)
        app.router.add_get("/api/v1/users/{id}", self.user)
        app.router.add_get("/api/v1/alerts", self.alerts)
        app.router.add_get("/api/v1/stream", self.stream)

    async def top(self, request: web.Request) -> web.Response:
        """The users with the largest reach, largest first."""
        limit = _limit(request)
        if limit is None:
            return _error(400, f"limit must be a number from 1 to {LIMIT}")
        try:
            return web.json_response(await self._state.top(limit))
        except NotReady as error:
            return _error(503, str(error))

    async def user(self, request: web.Request) -> web.Response:
        """One user's score and own features; with `?explain=1` also what carries the score."""
        user_id = request.match_info["id"]
        if not _is_id(user_id):
            return _error(400, f"an id has 1 to {ID_BYTES} bytes of UTF-8")
        wanted = request.query.get("explain", "0")
        if wanted not in {"0", "1"}:
            return _error(400, "explain must be 0 or 1")
        try:
            found = await (self._state.explain(user_id) if wanted == "1" else self._state.user(user_id))
        except NotReady as error:
            return _error(503, str(error))
        return web.json_response(found) if found else _error(404, "no such user, or one who was forgotten")

    async def alerts(self, request: web.Request) -> web.Response:
        """The newest alerts since this worker started, newest first; all of them are on the alert topic."""
        limit = _limit(request)
        if limit is None:
            return _error(400, f"limit must be a number from 1 to {LIMIT}")
        return web.json_response({"alerts": self._state.feed.alerts(limit), "model": self._state.model})

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: `state` and `top` every second, `alert` as each fires."""
        response = web.StreamResponse(headers=STREAM)
        try:
            with self._state.feed.subscribe() as subscription:
                await response.prepare(request)
                await response.write(f"retry: {RETRY_MS}\n\n".encode())
                await response.write(message("state", self._state.state()))
                async for text in subscription:
                    async with asyncio.timeout(WRITE_S):
                        await response.write(text)
        except FullHouse as error:
            return _error(503, str(error))
        except ConnectionResetError:
            pass  # the listener left
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        return response


def _limit(request: web.Request) -> int | None:
    """The query's limit (20 if not given), None if it is no number in range."""
    text = request.query.get("limit", str(TOP))
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0
    return number if 0 < number <= LIMIT else None


def _is_id(text: str) -> bool:
    """Whether an event could have this id: what was no UTF-8 in the path cannot be encoded again."""
    try:
        return 0 < len(text.encode()) <= ID_BYTES
    except UnicodeEncodeError:
        return False


def _error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)
