"""Access to the web port: the token, the Host names allowed without one, and the headers of every response.

With a token, everything except the health pages requires it: `Authorization: Bearer TOKEN`, or HTTP basic
authentication with any user and the token as the password, which is what a browser asks for. Without a token the
settings allow only a loopback address, and the Host header must be an address or localhost. This stops DNS rebinding:
a foreign page whose name resolves to this machine could otherwise read its scores.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web

HEALTH = frozenset({"/livez", "/readyz"})
"""Probes of an orchestrator; they contain no user data."""
METRICS = "/metrics"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Scores are personal data: no cache may store them.
    "Cache-Control": "no-store",
}
REFUSED = "give the token of GROUNDSWELL_WEB_TOKEN: `Authorization: Bearer TOKEN`, or in a browser as the password"
FOREIGN = "request this page by its address or as localhost, or set GROUNDSWELL_WEB_TOKEN"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Guard:
    """Checks every request before its handler.

    Args:
        token: The token to require; empty: none.
        local: Whether the port is on a loopback address; metrics then need no token.
    """

    def __init__(self, token: str = "", *, local: bool = True) -> None:
        self._digest = _digest(token) if token else None
        self._open = HEALTH | {METRICS} if local else HEALTH

    def add_to(self, app: web.Application) -> None:
        """Add the check of every request and the headers of every response to an application."""

        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            return self._refusal(request) or await handler(request)

        app.middlewares.append(check)
        app.on_response_prepare.append(_harden)

    def _refusal(self, request: web.Request) -> web.Response | None:
        if request.path in HEALTH:
            return None
        if self._digest is None:
            return None if is_local_name(request.headers.get("Host")) else _error(403, FOREIGN)
        if request.path in self._open or self._has_token(request.headers.get("Authorization", "")):
            return None
        refusal = _error(401, REFUSED)
        for challenge in ("Bearer", 'Basic realm="groundswell", charset="UTF-8"'):
            refusal.headers.add("WWW-Authenticate", challenge)
        return refusal

    def _has_token(self, authorization: str) -> bool:
        """Whether the header holds the token; comparing digests leaks neither text nor length by its duration."""
        return self._digest is not None and hmac.compare_digest(_digest(_token_of(authorization)), self._digest)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()


def _token_of(authorization: str) -> str:
    """Return the token in the header; empty if there is none."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""


def is_local_name(host: str | None) -> bool:
    """Whether a Host header is an address or localhost; a request without one is not from a browser."""
    if host is None:
        return True
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost" or name.endswith(".localhost"):
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _harden(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


def _error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)
