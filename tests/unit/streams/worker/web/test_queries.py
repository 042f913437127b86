"""Thirty queries, right and wrong, against the pages of a real shard: served answers, and one line of what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from graphstate.types import GraphSpec, owner
from model.artifact import untrained
from model.config import ModelConfig
from streams.commands import _worker, query
from streams.shard.shard import Shard
from tests.support import tidy
from tests.support.coroutines import run
from tests.support.graphs import forget
from tests.support.queries import LOG, served, state_of

SAME = {
    "RANK TOP 5 users BY followers": "/api/v1/top?by=followers&limit=5",
    "RANK users BY growth WHERE tier = nano": "/api/v1/top?by=growth&tier=nano",
    "RANK users BY engagement WHERE tier=nano AND topic=ai": "/api/v1/top?by=engagement&topic=ai&tier=nano",
    "RANK users BY reach WHERE topic = 'ai'": "/api/v1/top?topic=ai",
    "RANK users BY growth_30d": "/api/v1/top?by=growth_30d",
    "COMPARE user ann WITH user ben": "/api/v1/compare?a=ann&b=ben",
    "EXPLAIN reach FOR user ann": "/api/v1/users/ann?explain=1",
    "SHOW user ben": "/api/v1/users/ben",
    "SHOW content c7": "/api/v1/contents/c7",
    "SHOW alerts LIMIT 3": "/api/v1/alerts?limit=3",
    "SHOW live": "/api/v1/live",
}  # fmt: skip
"""Queries with the endpoint whose answer they have."""
REFUSED = {
    "RANK TOP 5 users BY pagerank": (501, "pagerank is computed by the analyst, and no analyst is configured: start"),
    "SHOW seeds": (501, "seeds are computed by the analyst"),
    "SHOW centrality OF user ann": (501, "GROUNDSWELL_ANALYST_URL"),
    "RANK users BY core WHERE topic = ai": (400, "core is the analyst's, which holds no topics: leave topic out"),
    "PREDICT share OF content c7 FOR user f1": (501, "no artifact that predicts who shares next"),
    "PREDICT reach FOR user ann IN 7 DAYS": (409, "predicts reach within 3 days, not 7 days: leave IN out"),
    "PREDICT reach FOR user ann IN 90 HOURS": (409, "not 90 hours"),
    "PREDICT reach FOR user ann ON TOPIC tea": (404, "'ann' has no post on topic 'tea'"),
    "PREDICT reach FOR user nobody": (404, "there is no user 'nobody'"),
    "COMPARE user ann WITH user nobody": (404, "there is no user 'nobody'"),
    "EXPLAIN reach FOR user gone": (404, "there is no user 'gone'"),
    "SHOW content c9": (404, "there is no content 'c9'"),
    "RANK users BY luck": (400, "there is no measure 'luck', but reach, followers"),
    "RANK users BY reach WHERE tier = tiny": (400, "there is no tier 'tiny', but nano, micro"),
    "RANK 5 users BY reach": (400, "expected TOP or users, not '5', at column 6"),
    "SHOW": (400, "but the query ends"),
}


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shard]:
    """A shard with two authors, and one that was forgotten."""
    opened = Shard.open(Path(tmp_path_factory.mktemp("shard")), untrained(ModelConfig(), 1), GraphSpec())
    opened.step([*LOG, forget(40 * 24 * 60, "gone")])
    opened.commit(1)
    yield opened
    opened.close()


async def answer(client: Any, text: Any) -> tuple[int, dict[str, Any]]:
    """The response to a query."""
    response = await client.post("/api/v1/query", json={"query": text})
    return response.status, await response.json()


def test_answers_are_those_of_the_endpoints(shard: Shard) -> None:
    """A query has the answer of the endpoint that serves it."""

    async def ask() -> None:
        async with served(shard) as client:
            for text, path in SAME.items():
                status, body = await answer(client, text)
                response = await client.get(path)
                assert (status, body["query"]) == (response.status, text) == (200, text)
                assert body["answer"] == await response.json(), text

    run(ask)


def test_reach(shard: Shard) -> None:
    """The reach is the user's, with a topic that on it, and a stated horizon must be the artifact's."""

    async def ask() -> None:
        async with served(shard) as client:
            _, whole = await answer(client, "PREDICT reach FOR user ben IN 3 DAYS")
            user = await (await client.get("/api/v1/users/ben")).json()
            assert whole["kind"] == "reach"
            names = ("user", "reach", "percentile", "as_of", "model")
            assert {name: whole["answer"][name] for name in names} == {name: user[name] for name in names}
            assert whole["answer"]["horizon_s"] == 259_200
            _, on_topic = await answer(client, "PREDICT reach FOR user ben ON TOPIC ai")
            (topic,) = user["topics"]
            assert on_topic["answer"].items() >= topic.items()
            assert (topic["posts"], topic["sharers"], topic["mean_reach"]) == (1, 3, 3.0)

    run(ask)


def test_refusals_say_what_to_do(shard: Shard) -> None:
    """Each has its status and one line; those of the language point at the word."""

    async def ask() -> None:
        async with served(shard) as client:
            for text, (status, part) in REFUSED.items():
                found, body = await answer(client, text)
                assert (found, part in body["error"], "\n" in body["error"]) == (status, True, False), body
                assert ("pointer" in body) == (status == 400 and "analyst" not in part)
            for body in (b"", b"[]", b'{"query": 3}', b"\xff"):
                response = await client.post("/api/v1/query", data=body)
                assert response.status == 400
                assert "the body must be JSON" in (await response.json())["error"]

    run(ask)


def test_forwarded_queries(shard: Shard) -> None:
    """The analyst is asked where one is configured, and the endpoint of shares where there is one."""

    async def ask() -> None:
        async with served(shard, analyst=True, share=True) as client:
            _, ranked = await answer(client, "RANK TOP 7 users BY pagerank WHERE tier = micro")
            asked = {"by": "pagerank", "limit": "7", "followers": "8192", "followers_below": "65536"}
            assert ranked["answer"].items() >= asked.items()
            assert (await answer(client, "SHOW centrality OF user 'a/b'"))[1]["answer"] == {"user": "a/b", "core": 3}
            assert (await answer(client, "SHOW centrality OF user nobody"))[0] == 404
            status, shares = await answer(client, "PREDICT share OF content c7 FOR users f1, f2 IN 3 DAYS")
            assert (status, [one["user"] for one in shares["answer"]["predictions"]]) == (200, ["f1", "f2"])
            assert (await answer(client, "PREDICT share OF content c7 FOR user f1 IN 1 DAY"))[0] == 409

    run(ask)


def test_a_user_of_another_worker(shard: Shard) -> None:
    """The worker that has the shard is named."""

    class Elsewhere:
        def shard_of(self, user: str) -> int:
            return owner(user, 2) + 1

        async def owner_of(self, _user: str) -> Any:
            return self

        def to_json(self) -> dict[str, Any]:
            return {"shard": 1, "worker": "10.0.0.2", "url": "http://10.0.0.2:6066"}

    state = state_of(shard)
    state.owners = Elsewhere()  # type: ignore[assignment]
    from aiohttp import web
    from aiohttp.test_utils import TestClient, TestServer

    from streams.worker.web import routes

    app = web.Application()
    routes(app, state)

    async def ask() -> None:
        async with TestClient(TestServer(app)) as client:
            status, body = await answer(client, "SHOW user nobody")
            assert (status, body["owner"]["shard"]) == (421, 1)
            assert "http://10.0.0.2:6066: ask there" in body["error"]

    run(ask)


def test_examples_of_the_page(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every query of docs/query.md is answered, by the command as over HTTP; the wrong ones end as the page shows."""
    page, flags = (tidy.ROOT / "docs" / "query.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    right = [line for block in re.findall(r"^```sql\n(.*?)^```", page, flags) for line in block.splitlines()]
    wrong = re.findall(r"^\$ groundswell query \"([^\n]*)\"\n(.*?)(?=^\$|^```)", page, flags)
    assert (len(right), len(wrong)) >= (12, 3)

    answers: dict[str, tuple[int, dict[str, Any]]] = {}

    async def ask() -> None:
        async with served(shard, analyst=True, share=True) as client:
            for text in [*right, *(text for text, _ in wrong)]:
                answers[text] = await answer(client, text)

    run(ask)

    def ask_worker(_settings: Any, _address: str, _path: str, question: dict[str, str]) -> dict[str, Any]:
        status, body = answers[question["query"]]
        if status != 200:
            raise query.QueryError(body["error"], body.get("pointer", ""))
        return body

    monkeypatch.setattr(_worker, "ask", ask_worker)
    from streams.cli import app

    for text in right:
        assert answers[text][0] == 200, answers[text]
        printed = CliRunner().invoke(app, ["query", text, "--json"])
        assert json.loads(printed.stdout) == answers[text][1]
        assert CliRunner().invoke(app, ["query", text]).exit_code == 0
    for text, shown in wrong:
        printed = CliRunner().invoke(app, ["query", text])
        assert f"{printed.stderr}groundswell: {printed.exception}\n" == shown
