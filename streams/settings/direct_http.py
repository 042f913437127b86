"""HTTP requests by urllib: addresses of this machine are asked directly, whatever proxy the environment names."""

from __future__ import annotations

import ipaddress
import ssl
from typing import Any
from urllib.parse import urlsplit
from urllib.request import (
    BaseHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    build_opener,
)


def is_local(address: str) -> bool:
    """Whether a URL names this machine."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class _NoRedirect(HTTPRedirectHandler):
    """A redirect is an error: urllib would carry the credentials to another host."""

    def redirect_request(self, *_about: Any, **_named: Any) -> None:
        """Follow none."""


def opener(address: str, context: ssl.SSLContext | None = None, *, redirects: bool = False) -> OpenerDirector:
    """What opens this address: by the environment's proxy, unless it is one of this machine."""
    handlers: list[BaseHandler] = [] if redirects else [_NoRedirect()]
    if is_local(address):
        handlers.append(ProxyHandler({}))
    if context is not None:
        handlers.append(HTTPSHandler(context=context))
    return build_opener(*handlers)


def urlopen(request: Request, timeout: float) -> Any:
    """As urllib's."""
    return opener(request.full_url, redirects=True).open(request, timeout=timeout)
