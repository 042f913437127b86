"""Who may look: the token, the names that a page without one may be asked by, and the headers of every answer.

Where there is a token, everything but the health pages asks for it: `Authorization: Bearer TOKEN`,
or HTTP basic authentication with any user and the token as the password, which is what a browser
asks a person for. Without one the port is on a loopback address (the settings see to that), and a
request must name it by an address or as localhost: else a foreign page, whose name was made to
point here, could read what is meant for this machine.
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
"""For whoever starts and stops workers; they tell nothing about anybody."""
METRICS = "/metrics"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Scores of people: no cache in between keeps them.
    "Cache-Control": "no-store",
}
REFUSED = "give the token of GROUNDSWELL_WEB_TOKEN: `Authorization: Bearer TOKEN`, or in a browser as the password"
FOREIGN = "ask for this page by its address or as localhost, or set GROUNDSWELL_WEB_TOKEN"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Guard:
    """Stands before all handlers.

    Args:
        token: what to ask for; empty: nothing.
        local: the port is on a loopback address, so that metrics stay open.
    """

    def __init__(self, token: str = "", *, local: bool = True) -> None:
        self._digest = _digest(token) if token else None
        self._open = HEALTH | {METRICS} if local else HEALTH

    def add_to(self, app: web.Application) -> None:
        """Look at every request, and at every answer before its headers are sent."""

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
        if request.path in self._open or self._knows_it(request.headers.get("Authorization", "")):
            return None
        refusal = _error(401, REFUSED)
        for challenge in ("Bearer", 'Basic realm="groundswell", charset="UTF-8"'):
            refusal.headers.add("WWW-Authenticate", challenge)
        return refusal

    def _knows_it(self, authorization: str) -> bool:
        """Whether the header holds the token; digests are compared, so that time tells neither text nor length."""
        return self._digest is not None and hmac.compare_digest(_digest(_given(authorization)), self._digest)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()


def _given(authorization: str) -> str:
    """The token in the header, empty where there is none."""
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
    """Whether a Host header is an address or localhost; a request without one comes from no browser."""
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
