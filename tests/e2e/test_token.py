"""Access to the web port: the token, the accepted host names, the headers of the answers."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from playwright.async_api import Error as PlaywrightError

from streams import cli
from streams.settings.settings import Settings
from streams.telemetry.metrics import Metrics
from streams.telemetry.readiness import Readiness
from streams.worker.web import Guard, LiveFeed, LiveState, routes, state
from streams.worker.web import auth as guards
from tests.support import browser, needs
from tests.support.coroutines import run
from tests.support.workers import WorkerProcess, worker

TOKEN = "correct-horse:battery-staple"
PATHS = ("/", "/metrics", "/api/v1/top", "/api/v1/users/ana", "/api/v1/alerts", "/api/v1/stream", "/no/such/page")
HEALTH = ("/livez", "/readyz")


class OneUser:
    """A worker with one user, as the web pages read it."""

    async def read(self, question: Callable[[Any], Any]) -> list[Any]:
        """Return nothing: there are no shards."""
        del question
        return []

    async def top(self, n: int) -> list[dict[str, Any]]:
        """The only user."""
        return [{"user": "ana", "reach": 1.0, "percentile": 50.0, "as_of": 0}][:n]

    async def user(self, user_id: str) -> dict[str, Any] | None:
        """The only user, for any id."""
        return {"user": user_id, "reach": 1.0, "percentile": 50.0, "as_of": 0}


@asynccontextmanager
async def site(guard: Guard) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """A server with this guard: a session and the address."""
    app = web.Application()
    routes(app, LiveState(LiveFeed(), Readiness(loaded=True, sought=True), Metrics(), OneUser(), "0123456789ab"), guard)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:
        yield session, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def status(session: aiohttp.ClientSession, address: str, **headers: str) -> int:
    """The status of an answer; the body, which may be an endless stream, is not read."""
    async with session.get(address, headers=headers) as answer:
        return answer.status


def basic(user: str, password: str) -> str:
    """The header of basic authentication."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


RIGHT = [f"Bearer {TOKEN}", f"bearer  {TOKEN} ", basic("", TOKEN), basic("anybody", TOKEN)]
WRONG = [
    "",
    "Bearer",
    "Bearer ",
    f"Bearer {TOKEN}x",
    f"Bearer {TOKEN[:-1]}",
    f"Bearer {TOKEN.upper()}",
    "Bearer ü",
    TOKEN,
    f"Token {TOKEN}",
    basic(TOKEN, ""),
    basic("anybody", TOKEN + "x"),
    "Basic !!!",
    "Basic /////w==",
    "Basic " + base64.b64encode(TOKEN.split(":")[1].encode()).decode(),
]


@pytest.mark.parametrize("local", [False, True])
def test_every_page_but_health_requires_the_token(local: bool) -> None:
    """Health pages are public; every other path, existing or not, requires the token; metrics too, except locally."""

    async def test() -> None:
        async with site(Guard(TOKEN, local=local)) as (session, address):
            for path in HEALTH:
                assert await status(session, address + path) == 200
            for path in PATHS:
                asked = not (local and path == "/metrics")
                assert (await status(session, address + path) == 401) == asked, path
                known = 404 if path.startswith("/no") else 200
                assert await status(session, address + path, Authorization=f"Bearer {TOKEN}") == known, path

    run(test)


def test_only_the_exact_token_is_accepted() -> None:
    """As a bearer token or as the password of any user; no similar token and no malformed header."""

    async def test() -> None:
        async with site(Guard(TOKEN)) as (session, address):
            for header in RIGHT:
                assert await status(session, f"{address}/api/v1/top", Authorization=header) == 200, header
            for header in WRONG:
                assert await status(session, f"{address}/api/v1/top", Authorization=header) == 401, header

    run(test)


def test_a_refusal_names_both_methods_and_no_secret() -> None:
    """The answer is JSON, offers both ways to authenticate, and does not contain the token."""

    async def test() -> None:
        async with (
            site(Guard(TOKEN)) as (session, address),
            session.get(f"{address}/", headers={"Authorization": "Bearer no"}) as answer,
        ):
            challenges = answer.headers.getall("WWW-Authenticate")
            assert [challenge.split()[0] for challenge in challenges] == ["Bearer", "Basic"]
            assert list(await answer.json()) == ["error"]
            assert TOKEN not in await answer.text()

    run(test)


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("127.0.0.1:6066", True),
        ("localhost", True),
        ("LOCALHOST:6066", True),
        ("page.localhost:1", True),
        ("[::1]:6066", True),
        ("10.0.0.7", True),
        ("evil.example", False),
        ("evil.example:6066", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_foreign_host_names_are_refused(name: str, taken: bool) -> None:
    """Without a token only addresses and localhost are accepted as host: a foreign page has another host name."""
    assert guards.is_local_name(name) == taken

    async def test() -> None:
        async with site(Guard()) as (session, address):
            assert (await status(session, f"{address}/api/v1/top", Host=name) == 200) == taken
            assert await status(session, f"{address}/livez", Host=name) == 200

    if name and name != "[::1":
        run(test)


def test_every_answer_has_the_security_headers() -> None:
    """Pages, errors and the open stream: no content sniffing, no frames, no referrer, no caching."""

    async def test() -> None:
        async with site(Guard(TOKEN)) as (session, address):
            for path in (*PATHS, *HEALTH):
                for headers in ({}, {"Authorization": f"Bearer {TOKEN}"}):
                    async with session.get(address + path, headers=headers) as answer:
                        for name, value in guards.HEADERS.items():
                            assert name in answer.headers, path
                            assert name == "Cache-Control" or answer.headers[name] == value
                        if path == "/" and headers:
                            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
                            assert "script-src 'self'" in answer.headers["Content-Security-Policy"]

    run(test)


def test_ids_and_limits_are_bounded() -> None:
    """An id that no event can have is refused before a shard is read, in every encoding."""

    async def test() -> None:
        async with site(Guard()) as (session, address):
            users = f"{address}/api/v1/users/"
            assert await status(session, users + "x" * 256) == 200
            assert await status(session, users + "%C3%A9" * 128) == 200
            assert await status(session, users + "x" * 257) == 400
            assert await status(session, users + "%C3%A9" * 129) == 400
            for invalid in ("%FF", "%ED%A0%80", "%00", "a%0Ab"):
                assert await status(session, users + invalid) in {200, 400}, invalid
            assert await status(session, users + "x" * 20_000) == 400
            assert await status(session, f"{address}/api/v1/top?limit={'9' * 5_000}") == 400

    run(test)


@needs.chromium
def test_a_browser_with_the_password_shows_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """After one login Chromium gets the page, its requests and its stream; without the password it gets nothing."""
    monkeypatch.setattr(state, "TICK_S", 0.1)

    async def test() -> None:
        async with site(Guard(TOKEN, local=False)) as (_, address):
            with pytest.raises(PlaywrightError, match="INVALID_AUTH_CREDENTIALS"):
                async with browser.page(address):
                    pass
            login = {"username": "anybody", "password": TOKEN}
            async with browser.page(address, http_credentials=login) as page:
                await page.wait("document.querySelector('#status')?.className == 'live'")
                await page.wait("document.querySelector('#top a.user')?.textContent == 'ana'")

    run(test)


def test_a_worker_on_all_addresses_requires_its_token(settings: Settings) -> None:
    """A real worker bound to all addresses: health is public, other pages are not, and no output contains the token."""
    everywhere = Settings.load(**{**dict(settings), "web_host": "0.0.0.0", "web_token": TOKEN})
    with worker(everywhere) as process:
        assert process.get("/livez")[0] == 200
        for path in ("/", "/metrics", "/api/v1/top"):
            code, body = process.get(path)
            assert code == 401, path
            assert TOKEN not in body.decode()
        assert asyncio.run(_with_token(process)) == 200
        assert process.stop() == 0
    assert TOKEN not in process.log.read_text()


SECRETS = {"sasl_password": "hush-sasl-password", "ssl_password": "hush-ssl-password", "web_token": TOKEN}


def test_no_command_prints_a_secret(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Settings, doctor and errors of wrong settings show that a secret is set, and never its value."""
    for name, value in {"broker": settings.broker, "prefix": settings.prefix, "web_host": "0.0.0.0", **SECRETS}.items():
        monkeypatch.setenv(f"GROUNDSWELL_{name.upper()}", value)
    output = ""
    for command in (["config"], ["config", "--json"], ["doctor"], ["dlq", "list"], ["--help"]):
        cli.run(command)
        printed = capsys.readouterr()
        output += printed.out + printed.err
    for variable, value in (("BROKER", "nowhere"), ("SSL_KEYFILE", "key.pem"), ("SECURITY_PROTOCOL", "SASL_SSL")):
        with monkeypatch.context() as patch:
            patch.setenv(f"GROUNDSWELL_{variable}", value)
            assert cli.run(["doctor"]) == 1
            output += capsys.readouterr().err
    assert output.count("***") == 2 * len(SECRETS)
    assert [value for value in SECRETS.values() if value in output] == []


async def _with_token(process: WorkerProcess) -> int:
    async with aiohttp.ClientSession(headers=process.settings.web_headers()) as session:
        return await status(session, f"http://127.0.0.1:{process.settings.web_port}/metrics")
