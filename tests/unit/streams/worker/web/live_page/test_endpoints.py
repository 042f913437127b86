"""Endpoints of the live page: responses as described, errors with what to do, and the analyst behind them."""

from __future__ import annotations

from typing import Any

import aiohttp
import jsonschema
import pytest

from streams.worker.web.live_page import analyst_figures
from streams.worker.web.live_page.analyst_figures import AnalystFigures
from streams.worker.web.openapi import SCHEMAS
from tests.support import live_page
from tests.support.coroutines import run
from tests.support.live_page import PEOPLE


def mistakes(name: str, body: Any) -> list[str]:
    """How a body differs from a schema of the document."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": SCHEMAS}}
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(body)]


async def get(address: str) -> tuple[int, Any]:
    """Status and JSON of an address."""
    async with aiohttp.ClientSession() as session, session.get(address) as answer:
        return answer.status, await answer.json()


def test_responses_are_as_described() -> None:
    """History, a cascade, the stream's figures and the analyst's are as described; invalid ids are refused."""

    async def test() -> None:
        async with live_page.site() as here:
            api = f"{here.address}/api/v1"
            for path, name in (
                ("history", "History"),
                ("contents/p/cascade", "Cascade"),
                ("flow", "Flow"),
                ("top", "Top"),
            ):
                status, body = await get(f"{api}/{path}")
                assert (status, mistakes(name, body)) == (200, []), path
            status, body = await get(f"{api}/history?user={PEOPLE[0]}&user=zoe")
            assert list(body["reach"]) == [PEOPLE[0], "zoe"]
            assert len(body["times"]) == len(body["reach"]["zoe"])
            assert "zoe" in here.state.feed.history.watched_beside([])
            assert (await get(f"{api}/analyst/seeds"))[1]["seeds"][0]["user"] == PEOPLE[0]
            assert (await get(f"{api}/analyst/users/a%2Fb"))[1]["user"] == "a/b"
            long = "x" * 257
            for path in (f"history?user={long}", f"contents/{long}/cascade", f"analyst/users/{long}"):
                assert (await get(f"{api}/{path}"))[0] == 400
            here.state.readiness.loaded = False
            assert (await get(f"{api}/history"))[0] == 503
        async with live_page.site(analyst=False) as here:
            status, body = await get(f"{here.address}/api/v1/analyst/seeds")
            assert status == 404
            assert "GROUNDSWELL_ANALYST_URL" in body["error"]

    run(test)


def test_files_are_revalidated_and_bounded() -> None:
    """A script has a tag that a browser can ask with; other paths are not served."""

    async def test() -> None:
        async with live_page.site() as here, aiohttp.ClientSession() as session:
            address = f"{here.address}/static/js/main.js"
            async with session.get(address) as answer:
                assert answer.content_type == "text/javascript"
                assert answer.headers["Cache-Control"] == "no-cache"
                tag = answer.headers["ETag"]
            async with session.get(address, headers={"If-None-Match": tag}) as answer:
                assert (answer.status, await answer.read()) == (304, b"")
            for path in ("index.html", "js/none.js", "%2e%2e/pages.py", "lib/SHA256SUMS"):
                async with session.get(f"{here.address}/static/{path}") as answer:
                    assert answer.status == 404

    run(test)


def test_an_analyst_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the address; a running one is asked with the token."""
    monkeypatch.setattr(analyst_figures, "WAIT_S", 2.0)

    async def test() -> None:
        async with live_page.site() as here:
            figures = AnalystFigures(f"{here.address}/", {"Authorization": "Bearer x"})
            assert (await figures.user(PEOPLE[0]))[0] == 200
            gone = AnalystFigures("http://127.0.0.1:9", {})
            with pytest.raises(analyst_figures.AnalystUnreachable, match=r"127\.0\.0\.1:9"):
                await gone.seeds()
            for one in (figures, gone):
                async for _ in one.running(here.runner.app):
                    pass

    run(test)
