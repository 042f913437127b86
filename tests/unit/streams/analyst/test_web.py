"""The answers about follower quality over HTTP: order, limits, and before the first round."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from model.analysis.follower_quality import Quality
from streams.analyst.analyst import Analyst
from streams.analyst.web import Pages


def pages(*, done: bool = True) -> Pages:
    """The handlers of an analyst with three users, `c` suspected; before its first round unless it is done."""
    measures = SimpleNamespace(
        as_of=0,
        error_bound=(0.0, 0.0),
        ids=["a", "b", "c"],
        live=np.ones(3, np.bool_),
        followers=np.array([2, 5, 0]),
        of_user=lambda row: {"followers": [2, 5, 0][row], "following": 1},
    )
    quality = Quality(np.array([1.0, 0.95, 0.2]), np.array([2.0, 1.5, 0.0]), np.zeros(3, np.int64))
    latest = SimpleNamespace(measures=measures, quality=quality, suspected=np.array([False, False, True]))
    background = SimpleNamespace(latest=latest if done else None)
    return Pages(cast("Analyst", SimpleNamespace(measures=measures, background=background, detail="")))


def get(handler: Any, path: str) -> tuple[int, dict[str, Any]]:
    """Status and body of a response."""
    response: web.Response = asyncio.run(handler(make_mocked_request("GET", path)))
    return response.status, json.loads(cast("bytes", response.body))


def test_users_by_the_quality_of_their_followers() -> None:
    """Most followers by quality come first, with quality beside the counts."""
    status, body = get(pages().top, "/api/v1/top?by=quality_followers&limit=2")
    assert (status, body["by"]) == (200, "quality_followers")
    assert [(entry["user"], entry["quality_followers"]) for entry in body["top"]] == [("a", 2.0), ("b", 1.5)]


def test_suspected_bots_and_lost_followers() -> None:
    """The suspected one is listed, and the user with followers that do not count."""
    status, body = get(pages().bots, "/api/v1/bots")
    assert (status, body["users"], body["suspected"]) == (200, 3, 1)
    assert [entry["user"] for entry in body["bots"]] == ["c"]
    assert [entry["user"] for entry in body["audiences"]] == ["b"]
    assert body["counting_share"] == 0.5


def test_wrong_questions_and_the_time_before_the_first_round() -> None:
    """A limit that is no number is refused, and before the first round the answer is to try again."""
    assert get(pages().bots, "/api/v1/bots?limit=many")[0] == 400
    assert get(pages().top, "/api/v1/top?by=quality_followers&limit=0")[0] == 400
    status, body = get(pages(done=False).bots, "/api/v1/bots")
    assert (status, "try again" in body["error"]) == (503, True)
