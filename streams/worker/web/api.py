"""The JSON API: `/api/v1/top`, `/users`, `/contents`, `/compare`, `/alerts`, `/live`, `/stream` (server-sent)."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from streams.errors import InputError
from streams.messages.events import ID_BYTES
from streams.worker.web.feed import TooManyStreams, message
from streams.worker.web.state import TOP, LiveState, NotReady

LIMIT = 1_000
WRITE_S = 5.0
"""Maximum time that a client may leave a full connection unread before it is disconnected."""
RETRY_MS = 2_000
STREAM = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache",
    # A proxy that buffers would delay events.
    "X-Accel-Buffering": "no",
}


class API:
    """The handlers of the JSON API; an error is `{"error": message}`.

    Args:
        state: What the handlers show.
    """

    def __init__(self, state: LiveState) -> None:
        self._state = state

    def add_to(self, app: web.Application) -> None:
        """Add the routes to an application."""
        app.router.add_get("/api/v1/top", self.top)
        app.router.add_get("/api/v1/users/{id}", self.user)
        app.router.add_get("/api/v1/contents/{id}", self.content)
        app.router.add_get("/api/v1/compare", self.compare)
        app.router.add_get("/api/v1/alerts", self.alerts)
        app.router.add_get("/api/v1/live", self.live)
        app.router.add_get("/api/v1/stream", self.stream)

    async def top(self, request: web.Request) -> web.Response:
        """Return the users with the largest reach, in descending order; `tier`, `by` and `topic` choose others."""
        limit = _limit(request)
        if limit is None:
            return _error(400, f"limit must be a number from 1 to {LIMIT}")
        tier, by, topic = (request.query.get(name, "") for name in ("tier", "by", "topic"))
        try:
            if tier or by or topic:
                return web.json_response(await self._state.ranked(limit, tier, by, topic))
            return web.json_response(await self._state.top(limit))
        except InputError as error:
            return _error(400, str(error))
        except NotReady as error:
            return _error(503, str(error))

    async def user(self, request: web.Request) -> web.Response:
        """Return one user's score and own features; with `?explain=1` also the parts of the score."""
        user_id = request.match_info["id"]
        if not _is_id(user_id):
            return _error(400, f"an id has 1 to {ID_BYTES} bytes of UTF-8")
        wanted = request.query.get("explain", "0")
        if wanted not in {"0", "1"}:
            return _error(400, "explain must be 0 or 1")
        try:
            user = await (self._state.explain(user_id) if wanted == "1" else self._state.user(user_id))
            elsewhere = None if user else await self._state.owner_elsewhere(user_id)
        except NotReady as error:
            return _error(503, str(error))
        if elsewhere:
            return _misdirected(elsewhere, request.path_qs)
        return web.json_response(user) if user else _error(404, "no such user, or a forgotten one")

    async def content(self, request: web.Request) -> web.Response:
        """Return the creator, community, topics and sharers of a content."""
        content_id = request.match_info["id"]
        if not _is_id(content_id):
            return _error(400, f"an id has 1 to {ID_BYTES} bytes of UTF-8")
        try:
            content = await self._state.content(content_id)
            elsewhere = None if content else await self._state.owner_elsewhere(content_id)
        except NotReady as error:
            return _error(503, str(error))
        if elsewhere:
            return _misdirected(elsewhere, request.path_qs, "content")
        return web.json_response(content) if content else _error(404, "no such content, or a deleted one")

    async def compare(self, request: web.Request) -> web.Response:
        """Return two users side by side: scores, features that differ, odds by their counts."""
        a, b = request.query.get("a", ""), request.query.get("b", "")
        if not (_is_id(a) and _is_id(b)):
            return _error(400, f"give two users, a=ID and b=ID; an id has 1 to {ID_BYTES} bytes of UTF-8")
        try:
            answer = await self._state.compare(a, b)
        except NotReady as error:
            return _error(503, str(error))
        return web.json_response(answer) if answer else _error(404, "one of them is no user here, or was forgotten")

    async def alerts(self, request: web.Request) -> web.Response:
        """Return the newest alerts since this worker started, newest first; the alert topic has all of them."""
        limit = _limit(request)
        if limit is None:
            return _error(400, f"limit must be a number from 1 to {LIMIT}")
        return web.json_response({"alerts": self._state.feed.alerts(limit), "model": self._state.model})

    async def live(self, _: web.Request) -> web.Response:
        """Return the live figures: how well predictions ranked the newest closed posts, and their calibration."""
        return web.json_response(self._state.live_figures())

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Send events until the client disconnects: `state` and `top` every second, alerts and outcomes at once."""
        response = web.StreamResponse(headers=STREAM)
        try:
            with self._state.feed.subscribe() as subscription:
                await response.prepare(request)
                await response.write(f"retry: {RETRY_MS}\n\n".encode())
                await response.write(message("state", self._state.state()))
                async for text in subscription:
                    async with asyncio.timeout(WRITE_S):
                        await response.write(text)
        except TooManyStreams as error:
            return _error(503, str(error))
        except ConnectionResetError:
            pass  # the client disconnected
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        return response


def _limit(request: web.Request) -> int | None:
    """Return the query's limit (20 by default); None if it is not a number in range."""
    text = request.query.get("limit", str(TOP))
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0
    return number if 0 < number <= LIMIT else None


def _is_id(text: str) -> bool:
    """Whether an event can have this id; a path that was not UTF-8 cannot be encoded again."""
    try:
        return 0 < len(text.encode()) <= ID_BYTES
    except UnicodeEncodeError:
        return False


def _misdirected(owner: dict[str, Any], path: str, kind: str = "user") -> web.Response:
    """Return the response for a node of a shard that this worker does not have: it names the worker that has it."""
    place = f"the worker at {owner['worker']}" if owner["worker"] else "no worker at the moment; try again"
    text = f"shard {owner['shard']} of this {kind} is with {place}"
    if owner["url"]:
        text += f": {owner['url']}{path}"
    return web.json_response({"error": text, "owner": owner}, status=421)


def _error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)
