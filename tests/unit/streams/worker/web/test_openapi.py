"""The description of the API: valid OpenAPI, every endpoint in it, and the responses as it describes them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from streams.messages.outputs import Alert
from streams.shard.shard import Outcome
from streams.telemetry.metrics import Metrics
from streams.telemetry.readiness import Readiness
from streams.worker.web import LiveFeed, LiveState, routes
from streams.worker.web.openapi import DETAILS, SCHEMAS, ApiDocument, Details
from tests.support.coroutines import run

META = Path(__file__).parents[4] / "contract" / "schemas" / "openapi-3.1.json.gz"
CLOCK = 1_300_000_000_000_000


class Shards:
    """One shard with one user; a second shard is elsewhere."""

    async def read(self, question: Callable[[Any], Any]) -> list[Any]:
        """The answer of the shard."""
        return [question(SimpleNamespace(users=1, clock=CLOCK, shard_id=0))]

    async def top(self, _n: int) -> list[dict[str, Any]]:
        """The user."""
        return [
            {"user": "ana", "reach": 2.5, "percentile": 50.0, "as_of": CLOCK, "model": "0" * 12, "calibrated": True}
        ]

    async def user(self, user_id: str) -> dict[str, Any] | None:
        """The user, or None."""
        return {**(await self.top(1))[0], "features": {"posts": 1.0}} if user_id == "ana" else None


class Elsewhere:
    """Every user that begins with `far` belongs to shard 1."""

    def shard_of(self, user: str) -> int:
        """The shard of a user."""
        return int(user.startswith("far"))

    async def owner_of(self, _user: str) -> Any:
        """The worker that has shard 1."""
        owner = {"shard": 1, "worker": "10.0.0.2", "url": "http://10.0.0.2:6066"}
        return SimpleNamespace(to_json=lambda: owner)


def application() -> web.Application:
    """The worker's pages with one alert."""
    feed, readiness, metrics = LiveFeed(), Readiness(), Metrics()
    feed.publish(Outcome(alerts=[Alert("a1", "ana", CLOCK, 1.5, 0, 2.5, 99.0, 4, None)]), 1)
    readiness.loaded = True
    state = LiveState(feed, readiness, metrics, Shards(), "0" * 12)
    state.owners = Elsewhere()
    app = web.Application()
    routes(app, state)
    return app


def validator(name: str) -> Any:
    """A validator of a schema of the document."""
    return jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": {"schemas": SCHEMAS}})


def test_the_document_is_openapi() -> None:
    """It is valid OpenAPI 3.1, and without its version it is not."""
    document = ApiDocument("x").described(application())
    meta = jsonschema.Draft202012Validator(json.loads(gzip.decompress(META.read_bytes())))
    assert [error.message for error in meta.iter_errors(document)] == []
    del document["openapi"]
    assert not meta.is_valid(document)


def test_every_endpoint_is_described_and_exists() -> None:
    """The list, the document and the routes have the same paths; details of a path that is gone would be found."""
    app = application()
    served = {
        r.resource.canonical for r in app.router.routes() if r.resource and r.resource.canonical.startswith("/api/")
    }
    document = ApiDocument("x").described(app)
    assert document["paths"].keys() == served
    assert DETAILS.keys() <= served
    assert all(method["summary"] for path in document["paths"].values() for method in path.values())
    assert Details() == Details((), None, (), "application/json")


def test_responses_are_as_described() -> None:
    """Each response fits its schema and its status; a user of another shard is answered with the worker that has it."""

    async def check() -> None:
        async with TestClient(TestServer(application())) as client:
            for path, status, name in (
                ("/api/v1/", 200, "Endpoints"),
                ("/api/v1/top", 200, "Top"),
                ("/api/v1/top?limit=0", 400, "Error"),
                ("/api/v1/users/ana", 200, "User"),
                ("/api/v1/users/nobody", 404, "Error"),
                ("/api/v1/users/far", 421, "Error"),
                ("/api/v1/alerts", 200, "Alerts"),
                ("/api/v1/live", 200, "Live"),
            ):
                answer = await client.get(path)
                body = await answer.json()
                assert (answer.status, list(validator(name).iter_errors(body))) == (status, []), path
                if status == 421:
                    assert body["error"] == (
                        "shard 1 of this user is with the worker at 10.0.0.2: http://10.0.0.2:6066/api/v1/users/far"
                    )
            listed = await (await client.get("/api/v1/")).json()
            assert {"method": "GET", "path": "/api/v1/openapi.json"}.items() <= listed["endpoints"][-1].items()
            document = await (await client.get(listed["openapi"])).json()
            assert "/api/v1/users/{id}" in document["paths"]

    run(check)
