"""The analyst's figures for the live page, which may only read from its own worker.

A request is passed on to the analyst of the settings, with the token of the web ports; the paths are fixed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
from aiohttp import web

from streams.errors import GroundswellError, one_line

WAIT_S = 5.0


class AnalystUnreachable(GroundswellError):
    """The analyst did not respond in time."""


class AnalystFigures:
    """Requests to the analyst.

    Args:
        url: Address of the analyst's port.
        headers: Headers of each request.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url, self._headers = url.rstrip("/"), dict(headers)
        self._session: aiohttp.ClientSession | None = None

    async def running(self, _: web.Application) -> AsyncIterator[None]:
        """Keep one session for as long as the web server runs (a cleanup context of aiohttp)."""
        yield
        if self._session is not None:
            await self._session.close()

    async def seeds(self) -> tuple[int, Any]:
        """Return status and body of the published list of seeds.

        Raises:
            AnalystUnreachable: The analyst did not respond.
        """
        return await self._get("/api/v1/seeds")

    async def user(self, user_id: str) -> tuple[int, Any]:
        """Return status and body of a user's measures.

        Raises:
            AnalystUnreachable: The analyst did not respond.
        """
        return await self._get(f"/api/v1/users/{quote(user_id, safe='')}")

    async def _get(self, path: str) -> tuple[int, Any]:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(WAIT_S)
            self._session = aiohttp.ClientSession(timeout=timeout, headers=self._headers)
        try:
            async with self._session.get(self._url + path) as answer:
                return answer.status, await answer.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise AnalystUnreachable(f"the analyst at {self._url} does not respond: {one_line(error)}") from error
