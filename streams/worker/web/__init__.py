"""The web port: live page, JSON API, health and metrics, on the port that Faust serves.

    register(app, LiveState(feed, readiness, metrics, source))

The handlers are plain aiohttp; `routes` also adds them to an aiohttp application without Faust.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from streams.worker.web.api import API
from streams.worker.web.auth import Guard
from streams.worker.web.feed import LiveFeed
from streams.worker.web.live_page.endpoints import PageApi
from streams.worker.web.openapi import ApiDocument
from streams.worker.web.pages import Pages
from streams.worker.web.queries import Queries
from streams.worker.web.state import LiveState, Source

__all__ = ["Guard", "LiveFeed", "LiveState", "Source", "register", "routes"]


def register(app: Any, state: LiveState) -> None:
    """Serve everything on a Faust app's web port; call it before the app starts.

    Faust's own pages (routing table, tables) are not served. Open streams are closed as soon as the shutdown begins:
    an open one would delay it by a minute.

    Args:
        app: The Faust app; the token is that of its settings.
        state: What the handlers show.
    """
    from faust.web.base import BlueprintManager

    app.web.blueprints = BlueprintManager()
    settings = app.settings
    routes(app.web.web_app, state, Guard(settings.web_token.get_secret_value(), local=settings.web_is_local))

    @app.on_before_shutdown.connect(weak=False)
    async def close_streams(*_: Any, **__: Any) -> None:
        state.feed.close()


def routes(app: web.Application, state: LiveState, guard: Guard | None = None) -> None:
    """Add the guard, all handlers and the task that feeds the open streams to an aiohttp application."""
    (guard or Guard()).add_to(app)
    Pages(state).add_to(app)
    API(state).add_to(app)
    Queries(state).add_to(app)
    PageApi(state).add_to(app)
    ApiDocument("Groundswell worker").add_to(app)
    app.cleanup_ctx.append(state.running)

    async def close_streams(_: web.Application) -> None:
        state.feed.close()

    app.on_shutdown.append(close_streams)
