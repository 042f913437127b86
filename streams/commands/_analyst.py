"""Requests of commands to a running analyst."""

from __future__ import annotations

import json
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request

from streams.errors import AnalystError, reason
from streams.settings.direct_http import urlopen
from streams.settings.settings import Settings

ANSWER_S = 120.0


def ask(settings: Settings, path: str, question: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the analyst's answer to a question, or what a path without one shows.

    Raises:
        AnalystError: no analyst answers, or it refuses.
    """
    address = f"http://{settings.web_host}:{settings.analyst_port}"
    headers = {"Content-Type": "application/json", **settings.web_headers()}
    body = None if question is None else json.dumps(question).encode()
    request = Request(address + path, body, headers)  # noqa: S310 - the scheme is http
    try:
        with urlopen(request, ANSWER_S) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except HTTPError as error:
        with error:
            text = json.loads(error.read() or b"{}").get("error", str(error))
        raise AnalystError(f"the analyst refused: {text}") from error
    except OSError as error:
        raise AnalystError(
            f"no analyst at {address} ({reason(error)}); start one with `groundswell analyst`, or set "
            "GROUNDSWELL_ANALYST_PORT"
        ) from error
