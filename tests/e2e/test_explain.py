"""`model explain` and `?explain=1`: real shards behind a real server, their stored state, and a real browser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web

from graphstate.types import Kind, Mutation, owner
from model.artifact import Artifact
from model.explain.numpy_reference import NumpyReference
from streams import cli
from streams.demo import share_button
from streams.messages.packs.mutation_packs import Record
from streams.settings.settings import PREFIX, Settings
from streams.shard.graph_view import graph_spec
from streams.shard.score_publisher import Publishing
from streams.shard.shard import Shard
from streams.telemetry.metrics import Metrics
from streams.telemetry.readiness import Readiness
from streams.worker.data_dir import lock_data_dir, state_folder
from streams.worker.inspection.score_history import ScoreHistory
from streams.worker.inspection.user_audit import LIMIT
from streams.worker.processing.shard_host import ShardHost
from streams.worker.web import LiveFeed, LiveState, routes
from streams.worker.web.auth import Guard
from tests.support import browser, needs
from tests.support.coroutines import run
from tests.support.graphs import MINUTE, START

EVIL = "a/b</script><img src=x>?"
TOKEN = "a-token-of-sixteen"
SHARDS = 2


def follow(user: str, target: str, minute: int) -> Mutation:
    """A follow event."""
    return Mutation(int(Kind.FOLLOW), START + minute * MINUTE, user, target)


def first() -> list[Mutation]:
    """Two users who post and are shared, one of them with an id that needs escaping."""
    log = [follow("bo", "ana", 0), follow(EVIL, "ana", 1), follow("ana", EVIL, 1)]
    for minute, (user, content) in enumerate([("ana", "p1"), ("ana", "p2"), (EVIL, "p3")], 2):
        log.append(Mutation(int(Kind.CREATE), START + minute * MINUTE, user, content))
        log += [Mutation(int(Kind.SHARE), START + (minute + 1) * MINUTE, f"s{n}", content) for n in range(4)]
    return log


@dataclass
class Site:
    """A server with open shards."""

    host: ShardHost
    settings: Settings
    session: aiohttp.ClientSession
    address: str

    async def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a page."""
        async with self.session.get(self.address + path, headers=self.settings.web_headers()) as answer:
            return answer.status, await answer.json()

    async def feed(self, log: list[Mutation]) -> None:
        """Run one step of each shard with its part of the log; facts are delivered immediately."""
        told = []
        for partition in range(SHARDS):
            begin = self.host.offsets[partition]
            outcome = await self.host.step(partition, [Record.of(begin, log, log[-1].time)])
            told += outcome.outbound_facts
            await self.host.commit(partition, begin + 1, {}, lambda: True)
        for one in told:
            begin = self.host.offsets[one.shard]
            await self.host.step(one.shard, [Record.of(begin, one.facts, log[-1].time)])
            await self.host.commit(one.shard, begin + 1, {}, lambda: True)


EVERY_CHANGE = Publishing(1e-6, 1e-6)


@asynccontextmanager
async def site(settings: Settings) -> AsyncIterator[Site]:
    """Two shards in the data folder, and a server on the web port."""
    artifact = Artifact.default()
    spec = graph_spec(artifact.config, retention_s=settings.retention_s, lateness_s=settings.lateness_s)

    def opened(partition: int) -> Shard:
        own = replace(spec, shards=SHARDS, shard=partition)
        return Shard.open(state_folder(settings.datadir, partition), artifact, own, publishing=EVERY_CHANGE)

    history = ScoreHistory()
    host = ShardHost(opened, history)
    await host.sync_assignment(dict.fromkeys(range(SHARDS), 0))
    app = web.Application()
    state = LiveState(LiveFeed(), Readiness(loaded=True, sought=True), Metrics(), host, artifact.version, history)
    routes(app, state, Guard(settings.web_token.get_secret_value()))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", settings.web_port).start()
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as session:
            yield Site(host, settings, session, f"http://127.0.0.1:{settings.web_port}")
    finally:
        await runner.cleanup()
        await host.close()


@pytest.fixture
def here(tmp_path: Path, web_port: int, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings, also in the environment, as commands read them."""
    given = {"DATADIR": tmp_path / "state", "WEB_PORT": web_port, "SHARDS": SHARDS, "WEB_TOKEN": TOKEN}
    for name, value in given.items():
        monkeypatch.setenv(PREFIX + name, str(value))
    return Settings.load()


def test_the_api_explains_with_names(here: Settings) -> None:
    """Neighbours have names, whatever their ids are; unknown users get 404; forgotten users are in no answer."""

    async def test() -> None:
        async with site(here) as shown:
            await shown.feed(first())
            plain = (await shown.get("/api/v1/users/ana"))[1]
            status, answer = await shown.get("/api/v1/users/ana?explain=1")
            assert status == 200
            told = answer.pop("explanation")
            assert answer == plain
            assert {("follows", "bo"), ("follows", EVIL), ("created", "p1"), ("interacts", "s0")} <= {
                (one["relation"], one["id"]) for one in told["neighbours"]
            }
            assert told["error"] <= 1e-5
            assert told["change"]["published"]["reach"] == pytest.approx(answer["reach"])
            assert (await shown.get(f"/api/v1/users/{quote(EVIL, safe='')}?explain=1"))[1]["user"] == EVIL
            assert (await shown.get("/api/v1/users/nobody?explain=1"))[0] == 404
            assert (await shown.get("/api/v1/users/ana?explain=yes"))[0] == 400
            await shown.feed([Mutation(int(Kind.FORGET), START + 60 * MINUTE, "bo"), follow("cy", "ana", 61)])
            text = json.dumps((await shown.get("/api/v1/users/ana?explain=1"))[1])
            assert '"cy"' in text
            assert '"bo"' not in text
            assert (await shown.get("/api/v1/users/bo?explain=1"))[0] == 404

    run(test)


def test_the_command_asks_the_worker_that_holds_the_folder(here: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """It sends the token; if the worker does not answer, or has no such user, one line names the remedy."""

    async def test() -> None:
        async with site(here) as shown:
            await shown.feed(first())
            with lock_data_dir(here.datadir):
                assert await asyncio.to_thread(cli.run, ["model", "explain", EVIL, "--json"]) == 0
                found = json.loads(capsys.readouterr().out)
                assert (found["user"], found["from"]) == (EVIL, shown.address)
                assert await asyncio.to_thread(cli.run, ["model", "explain", "nobody"]) == 1
                assert "no such user" in capsys.readouterr().err
            assert await asyncio.to_thread(cli.run, ["model", "explain", "ana", "--worker", shown.address]) == 0
            assert "follows" in capsys.readouterr().out

    run(test)
    with lock_data_dir(here.datadir):
        assert cli.run(["model", "explain", "ana"]) == 1
        line = capsys.readouterr().err
        assert len(line.splitlines()) == 1
        assert "is in use by a worker" in line
        assert "--worker" in line
    assert cli.run(["model", "explain", "ana", "--worker", "6066"]) == 1
    assert "is no address" in capsys.readouterr().err


def test_the_command_reads_the_state_of_a_stopped_worker(here: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """The explanation equals the worker's, and the folder is not changed; only the previous score is missing."""
    answers: dict[str, Any] = {}

    async def test() -> None:
        async with site(here) as shown:
            await shown.feed(first())
            await shown.feed([follow("cy", "ana", 30), follow("di", "ana", 30)])
            answers["ana"] = (await shown.get("/api/v1/users/ana?explain=1"))[1]

    run(test)
    files = {path: path.stat().st_mtime_ns for path in here.datadir.rglob("*.sst")}
    assert cli.run(["model", "explain", "ana", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    was, now = answers["ana"]["explanation"], found["explanation"]
    assert found["from"].endswith(f"shard-{owner('ana', SHARDS)}")
    assert was["change"]["before"]["reach"] > 0
    assert now["change"]["before"] is None
    assert now["change"]["published"] == pytest.approx(was["change"]["published"], abs=1e-5)
    assert now["log_reach"] == pytest.approx(was["log_reach"], abs=1e-5)
    assert [one["id"] for one in now["neighbours"][:5]] == [one["id"] for one in was["neighbours"][:5]]
    assert {path: path.stat().st_mtime_ns for path in here.datadir.rglob("*.sst")} == files
    assert cli.run(["model", "explain", "ana"]) == 0
    text = capsys.readouterr().out
    assert "a user without any data has reach" in text
    assert "not available" in text
    assert cli.run(["model", "explain", "nobody"]) == 1
    assert capsys.readouterr().err == "groundswell: no such user, or the user was forgotten: nobody\n"


def test_a_missing_state_is_reported_in_one_line(here: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """The line names the folder and the settings that choose it; no folder is created."""
    assert cli.run(["model", "explain", "ana"]) == 1
    line = capsys.readouterr().err
    assert f"has no state of shard {owner('ana', SHARDS)}" in line
    assert "GROUNDSWELL_DATADIR" in line
    assert not here.datadir.exists()


@needs.chromium
def test_a_click_on_a_user_shows_the_explanation(here: Settings, tmp_path: Path) -> None:
    """Chromium shows parts, neighbours and features in words; an id that is markup stays text."""
    settings = here.model_copy(update={"web_token": type(here.web_token)("")})

    async def test() -> None:
        async with site(settings) as shown, browser.page(shown.address) as page:
            await shown.feed(first())
            await page.page.locator("#top a.user", has_text="ana").first.click()
            await page.wait("document.querySelectorAll('#why table').length == 3")
            assert await page.run("document.activeElement.id") == "whom"
            assert await page.text("#whom") == "ana"
            said = await page.text("#why")
            assert "people are expected to share the next post of ana" in said
            assert "they do not add up to the score" in said
            assert EVIL in said
            assert "a post of this user" in said
            assert await page.run("document.querySelectorAll('img').length") == 0
            assert await page.run("document.querySelectorAll('#net a').length") > 1
            await page.page.screenshot(path=tmp_path / "why.png")
            assert page.problems == []

    run(test)


def test_the_demos_button_is_checked_against_the_reference(here: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A served user equals the reference's; a changed value in memory shows as a difference."""

    class InProcess(NumpyReference):
        """The reference, without a process of its own."""

        def __init__(self, artifact: Artifact) -> None:
            super().__init__(artifact.weights, artifact.config)

    monkeypatch.setattr(share_button, "ReferenceProcess", InProcess)

    async def test() -> None:
        async with site(here) as shown:
            await shown.feed(first())
            worker: Any = SimpleNamespace(host=shown.host)
            button = share_button.ShareButton(worker)
            found = await button._check("ana")
            assert found["error"] <= LIMIT
            assert found["mismatches"] == []

            def spoil(shard: Shard) -> None:
                shard.engine.hidden2[shard.graph.users.index["ana"]] += 1.0

            await shown.host.run_on_any(lambda shards: share_button._owner(shards, "ana"), spoil)
            assert (await button._check("ana"))["error"] > 0.5

    run(test)
