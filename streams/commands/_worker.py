"""Requests of commands to a running worker."""

from __future__ import annotations

import json
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request

from streams.errors import InputError, WorkerError, one_line
from streams.query.errors import QueryError
from streams.settings.direct_http import urlopen

if TYPE_CHECKING:
    from streams.settings.settings import Settings

ANSWER_S = 15.0


def address_of(settings: Settings) -> str:
    """Return the address of the web port of a worker with these settings."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.web_host, settings.web_host)  # noqa: S104 - it is replaced
    return f"http://[{host}]:{settings.web_port}" if ":" in host else f"http://{host}:{settings.web_port}"


def ask(settings: Settings, address: str, path: str, question: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask a worker.

    Args:
        settings: They hold the token.
        address: The worker's address.
        path: Path and query.
        question: The body of a POST; None for a GET.

    Raises:
        WorkerError: the worker does not respond, or reports an error.
        InputError: the address or the question is invalid, or the worker has no such user.
    """
    if urlsplit(address).scheme not in {"http", "https"}:
        raise InputError(f"{address} is no address of a worker: give one such as http://127.0.0.1:6066")
    try:
        body = None if question is None else json.dumps(question).encode()
        headers = settings.web_headers() | ({} if body is None else {"Content-Type": "application/json"})
        request = Request(address.rstrip("/") + path, body, headers)  # noqa: S310 - checked above
        with urlopen(request, ANSWER_S) as response:
            answer: dict[str, Any] = json.load(response)
    except HTTPError as error:
        message, pointer = _error_of(error)
        if error.code == 400:
            raise QueryError(message, pointer) from error
        if error.code == 404:
            raise InputError(
                f"the worker at {address} answers: {message}; another worker may have the user's shard"
            ) from error
        raise WorkerError(f"the worker at {address} answers: {message}") from error
    except (URLError, HTTPException, OSError, ValueError) as error:
        why = one_line(error.reason if isinstance(error, URLError) and isinstance(error.reason, OSError) else error)
        raise WorkerError(f"{address} does not respond ({why})") from error
    return answer


def _error_of(error: HTTPError) -> tuple[str, str]:
    """Return the message in the body of an error response, the status if there is none, and the pointer of a query."""
    try:
        body = json.load(error)
        return str(body["error"]), str(body.get("pointer", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{error.code} {error.reason}", ""
