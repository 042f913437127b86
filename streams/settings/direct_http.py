"""HTTP requests with urllib that use no proxy for addresses of this machine."""

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
    """Return whether the host of a URL is this machine."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class _NoRedirect(HTTPRedirectHandler):
    """Treats a redirect as an error: urllib would send the credentials to another host."""

    def redirect_request(self, *_about: Any, **_named: Any) -> None:
        """Follow no redirect."""


def opener(address: str, context: ssl.SSLContext | None = None, *, redirects: bool = False) -> OpenerDirector:
    """Return an opener for an address; it uses the environment's proxy unless the address is this machine.

    Args:
        address: the URL that will be opened.
        context: the TLS context; None: urllib's default.
        redirects: follow redirects.
    """
    handlers: list[BaseHandler] = [] if redirects else [_NoRedirect()]
    if is_local(address):
        handlers.append(ProxyHandler({}))
    if context is not None:
        handlers.append(HTTPSHandler(context=context))
    return build_opener(*handlers)


def urlopen(request: Request, timeout: float) -> Any:
    """Open a request like `urllib.request.urlopen`, without a proxy if its host is this machine."""
    return opener(request.full_url, redirects=True).open(request, timeout=timeout)
