"""Endpoints of the live page beside those of `streams/worker/web/api.py`; other programs may read them, too."""

from __future__ import annotations

from aiohttp import web

from streams.messages.events import ID_BYTES
from streams.worker.web.live_page import flow as flows
from streams.worker.web.live_page.analyst_figures import AnalystUnreachable
from streams.worker.web.state import LiveState, NotReady

USERS = 50
TOP = 8


class PageApi:
    """The handlers; an error is `{"error": message}`.

    Args:
        state: What the handlers show.
    """

    def __init__(self, state: LiveState) -> None:
        self._state = state

    def add_to(self, app: web.Application) -> None:
        """Add the routes to an application."""
        app.router.add_get("/api/v1/history", self.history)
        app.router.add_get("/api/v1/contents/{id}/cascade", self.content)
        app.router.add_get("/api/v1/flow", self.flow)
        app.router.add_get("/api/v1/analyst/seeds", self.seeds)
        app.router.add_get("/api/v1/analyst/users/{id}", self.analyst_user)
        if self._state.analyst is not None:
            app.cleanup_ctx.append(self._state.analyst.running)

    async def history(self, request: web.Request) -> web.Response:
        """Return the reach of users over the last two hours; `user`, repeated, names them, else the first by reach."""
        users = request.query.getall("user", [])
        if len(users) > USERS or not all(map(_is_id, users)):
            return _error(400, f"give at most {USERS} users; an id has 1 to {ID_BYTES} bytes of UTF-8")
        try:
            chosen = users or [entry["user"] for entry in (await self._state.top(TOP))["top"]]
        except NotReady as error:
            return _error(503, str(error))
        self._state.feed.history.watch(chosen)
        return web.json_response(self._state.feed.history.lines(chosen))

    async def content(self, request: web.Request) -> web.Response:
        """Return how a content spread: its author, shares over event time, and its newest sharers."""
        content_id = request.match_info["id"]
        if not _is_id(content_id):
            return _error(400, f"an id has 1 to {ID_BYTES} bytes of UTF-8")
        try:
            found = await self._state.cascade(content_id)
        except NotReady as error:
            return _error(503, str(error))
        return web.json_response(found) if found else _error(404, "no such content on this worker, or a deleted one")

    async def flow(self, _: web.Request) -> web.Response:
        """Return lag and watermark by partition, dead letters by reason, and seconds of a step by stage."""
        return web.json_response(flows.flow(self._state.metrics))

    async def seeds(self, _: web.Request) -> web.Response:
        """Return the users that reach most distinct people together, from the analyst."""
        return await self._from_analyst("")

    async def analyst_user(self, request: web.Request) -> web.Response:
        """Return a user's centrality and community, from the analyst."""
        user_id = request.match_info["id"]
        if not _is_id(user_id):
            return _error(400, f"an id has 1 to {ID_BYTES} bytes of UTF-8")
        return await self._from_analyst(user_id)

    async def _from_analyst(self, user_id: str) -> web.Response:
        analyst = self._state.analyst
        if analyst is None:
            return _error(404, "no analyst; set GROUNDSWELL_ANALYST_URL")
        try:
            status, body = await (analyst.user(user_id) if user_id else analyst.seeds())
        except AnalystUnreachable as error:
            return _error(503, str(error))
        return web.json_response(body, status=status)


def _is_id(text: str) -> bool:
    """Whether an event can have this id."""
    try:
        return 0 < len(text.encode()) <= ID_BYTES
    except UnicodeEncodeError:
        return False


def _error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)
