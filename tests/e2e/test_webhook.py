"""The webhook against a server that refuses, hangs and comes back: every alert arrives, in the order of its user."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from streams.kafka.topics import Topics, admin, create
from streams.settings.settings import Settings
from streams.telemetry.metrics import Metrics
from streams.worker.web import webhook
from streams.worker.web.webhook import AlertWebhook
from tests.support.workers import producer

SECRET = "a secret of a test"
USERS, ALERTS = ("ana", "bo", "cy"), 8


class Address:
    """A server that answers by its `mode`, and keeps what it accepted."""

    def __init__(self) -> None:
        self.mode = "accept"
        self.requests = 0
        self.accepted: list[dict[str, Any]] = []

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request."""
        self.requests += 1
        if self.mode == "hang":
            await asyncio.sleep(3_600)
        if self.mode == "refuse":
            return web.Response(status=503)
        content = await request.read()
        fields = dict(part.split("=") for part in request.headers["X-Groundswell-Signature"].split(","))
        signed = hmac.new(SECRET.encode(), f"{fields['t']}.".encode() + content, hashlib.sha256).hexdigest()
        assert signed == fields["v1"]
        self.accepted.append(json.loads(content))
        return web.Response()


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[Address, str]]:
    """Run the server on a free port."""
    address = Address()
    application = web.Application()
    application.router.add_post("/hook", address.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield address, f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def running(settings: Settings, metrics: Metrics) -> AsyncIterator[None]:
    """Run the webhook, and stop it as a worker does."""
    task = asyncio.create_task(AlertWebhook(settings, metrics).run())
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Any, timeout_s: float = 40.0) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - the condition is another thread's or the server's
            await asyncio.sleep(0.05)


def publish(settings: Settings, first: int, count: int) -> None:
    """Publish alerts of all users, keyed by user."""
    topic = Topics(settings).alert.name
    with producer(settings) as sender:
        for number in range(first, first + count):
            for user in USERS:
                alert = {
                    "alert": f"{user}-{number}", "user": user, "kind": "emerging", "as_of": "2026-03-01T18:00:00Z",
                    "velocity": 2.5, "level": 1, "reach": 7.3, "percentile": 96.4, "new_sharers": 5, "content": "<p>",
                    "model": "0",
                }  # fmt: skip
                sender.send(topic, json.dumps(alert).encode(), key=user.encode())


async def _check(settings: Settings) -> None:
    metrics = Metrics()
    async with listening() as (address, url):
        settings = settings.model_copy(update={"alert_webhook": SecretStr(url)})
        publish(settings, 100, 1)  # before the webhook was set
        async with running(settings, metrics):
            await asyncio.sleep(6.0)
            publish(settings, 0, ALERTS // 2)
            await until(lambda: len(address.accepted) >= 3)
            address.mode = "refuse"
            publish(settings, ALERTS // 2, ALERTS // 2)
            before = address.requests
            await until(lambda: address.requests > before + 2)
            address.mode = "hang"
            await asyncio.sleep(1.5)
        # Stopped in the middle of a request; the next worker continues at the committed positions.
        address.mode = "accept"
        async with running(settings, metrics):
            last = {f"{user}-{ALERTS - 1}" for user in USERS}
            await until(lambda: last <= {alert["alert"] for alert in address.accepted})
    for user in USERS:
        numbers = [int(alert["alert"].split("-")[1]) for alert in address.accepted if alert["user"] == user]
        assert list(dict.fromkeys(numbers)) == list(range(ALERTS))
        assert numbers == sorted(numbers)
    assert address.accepted[0]["text"].startswith(f"{address.accepted[0]['user']} is emerging: 5 people shared")
    text = metrics.text().decode()
    assert 'groundswell_webhook_alerts_total{outcome="dropped"} 0.0' in text


def test_every_alert_arrives(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals, hanging requests and a restart in the middle lose nothing, and the order of each user is kept."""
    monkeypatch.setattr(webhook, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(webhook, "PAUSE_S", 0.1)
    settings = settings.model_copy(update={"alert_webhook_secret": SecretStr(SECRET)})
    with admin(settings) as client:
        create(client, [Topics(settings).alert])
    asyncio.run(_check(settings))


def test_a_dead_address(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the set time an alert is dropped, counted, and the next one follows."""
    monkeypatch.setattr(webhook, "PAUSE_S", 0.1)
    settings = settings.model_copy(
        update={"alert_webhook": SecretStr("http://127.0.0.1:9/hook"), "alert_webhook_retry_s": 0.5}
    )
    with admin(settings) as client:
        create(client, [Topics(settings).alert])

    async def check() -> None:
        metrics = Metrics()
        async with running(settings, metrics):
            await asyncio.sleep(6.0)
            publish(settings, 0, 2)
            dropped = metrics.webhook_alerts.labels("dropped")
            await until(lambda: dropped._value.get() == 2 * len(USERS))

    asyncio.run(check())
