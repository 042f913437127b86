"""The web port of a worker on real shards without Kafka, and a small analyst beside it, for tests of queries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from streams.shard.shard import Shard
from streams.telemetry.metrics import Metrics
from streams.telemetry.readiness import Readiness
from streams.worker.web import LiveFeed, LiveState, routes
from tests.support.graphs import DAY, create, follow, labels, share

LOG = [
    *(follow(day * DAY, f"f{day}", "ann") for day in range(40)),
    *(follow(39 * DAY, f"f{number}", "ben") for number in range(4)),
    create(38 * DAY, "ann", "c7"),
    labels(38 * DAY, "ann", "c7", "ai", "sea", community="lab"),
    create(38 * DAY + 1, "ben", "c8", reply_to="c7"),
    labels(38 * DAY + 1, "ben", "c8", "ai"),
    *(share(38 * DAY + 5 + number, f"f{number}", "c8") for number in range(3)),
    share(38 * DAY + 9, "f9", "c7"),
]


class Host:
    """Shards as the pages read them."""

    def __init__(self, *shards: Shard) -> None:
        self.shards = shards

    async def read(self, question: Callable[[Any], Any]) -> list[Any]:
        """The answer of each shard."""
        return [question(shard) for shard in self.shards]

    async def top(self, n: int) -> list[dict[str, Any]]:
        """The users with the largest reach."""
        found = [entry for shard in self.shards for entry in shard.reads.top(n)]
        return sorted(found, key=lambda entry: -float(entry["reach"]))[:n]

    async def user(self, user_id: str) -> dict[str, Any] | None:
        """A user, None if no shard has it."""
        return next((found for shard in self.shards if (found := shard.reads.user(user_id))), None)

    async def run_on_any(self, choose: Callable[[list[Any]], Any], work: Callable[[Any], Any]) -> Any:
        """The result of work on a chosen shard."""
        chosen = choose(list(self.shards))
        return None if chosen is None else work(chosen)

    async def run_with_shard(self, _shard: Any, work: Callable[[], Any]) -> Any:
        """The result of work."""
        return work()


def state_of(*shards: Shard) -> LiveState:
    """What a worker with these shards shows."""
    metrics, readiness = Metrics(["events"]), Readiness()
    readiness.loaded, readiness.sought = True, True
    return LiveState(LiveFeed(), readiness, metrics, Host(*shards), shards[0].artifact.version)


async def analyst_top(request: web.Request) -> web.Response:
    """A ranking that repeats its question."""
    return web.json_response({"top": [{"user": "ann", "pagerank": 0.25}], **request.query})


async def analyst_user(request: web.Request) -> web.Response:
    """Measures of every user but one."""
    user = request.match_info["id"]
    if user == "nobody":
        return web.json_response({"error": "no such user, or a forgotten one"}, status=404)
    return web.json_response({"user": user, "core": 3})


async def predict_share(request: web.Request) -> web.Response:
    """Half a chance for each user."""
    body = await request.json()
    predictions = [{"user": user, "probability": 0.5} for user in body["users"]]
    return web.json_response({"content": body["content"], "predictions": predictions, "horizon_s": 259_200})


@asynccontextmanager
async def served(
    *shards: Shard, analyst: bool | str = False, share: bool = False
) -> AsyncIterator[TestClient[Any, Any]]:
    """A client of the pages.

    Args:
        shards: the shards.
        analyst: whether an analyst is configured, or the address of one.
        share: whether the worker predicts who shares next.
    """
    state, app = state_of(*shards), web.Application()
    beside = web.Application()
    beside.router.add_get("/api/v1/top", analyst_top)
    beside.router.add_get("/api/v1/users/{id}", analyst_user)
    async with TestServer(beside) as server:
        if analyst:
            state.analyst_url = analyst if isinstance(analyst, str) else str(server.make_url("/"))
        routes(app, state)
        if share:
            app.router.add_post("/api/v1/predict/share", predict_share)
        async with TestClient(TestServer(app)) as client:
            yield client
