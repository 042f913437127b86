"""The web port: the live page, the JSON API, health and metrics, on the port that Faust serves.

    register(app, Web(feed, readiness, metrics, source))

The handlers are plain aiohttp; `routes` also mounts them on an aiohttp application without Faust.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from streams.web.api import API
from streams.web.feed import LiveFeed
from streams.web.live import Source, Web
from streams.web.pages import Pages

__all__ = ["LiveFeed", "Source", "Web", "register", "routes"]


def register(app: Any, state: Web) -> None:
    """Serve everything on a Faust app's web port; call it before the app starts.

    Faust's own pages (its routing table, its tables) are left out, and open streams are ended at
    the first sign of a shutdown: an open one would hold the exit for a minute.
    """
    from faust.web.base import BlueprintManager

    app.web.blueprints = BlueprintManager()
    routes(app.web.web_app, state)

    @app.on_before_shutdown.connect(weak=False)
    async def end_streams(*_: Any, **__: Any) -> None:
        state.feed.close()


def routes(app: web.Application, state: Web) -> None:
    """Add all handlers to an aiohttp application, and the task that feeds the open streams."""
    Pages(state).add_to(app)
    API(state).add_to(app)
    app.cleanup_ctx.append(state.running)

    async def end_streams(_: web.Application) -> None:
        state.feed.close()

    app.on_shutdown.append(end_streams)
