"""Other sources through a real broker: recorded samples of all shipped mappings become scores and alerts.

One worker gets all of them: two from topics, one from a WebSocket that breaks off, one from a file, one from a topic
whose connector is killed. The truth is a replay of the events that the same stream is, written without a mapping.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pyarrow import parquet as pq

from streams import cli
from streams.kafka.topics import Topics, TopicSpec, admin, make
from streams.messages.files import event_files
from streams.settings.settings import Settings
from streams.telemetry import logs
from tests.support import foreign
from tests.support.workers import environment, producer, read_all, wait_for, wait_quiet, worker

WAIT_S = 300.0
STREAMS = {name: foreign.actions(seed) for seed, name in enumerate(sorted(foreign.IDS), 11)}


def command(settings: Settings, *arguments: str) -> subprocess.Popen[bytes]:
    """Start `groundswell connect`."""
    full = [sys.executable, "-m", "streams.cli", "connect", *arguments]
    return subprocess.Popen(full, env=environment(settings), stderr=subprocess.PIPE, stdout=subprocess.PIPE)


def publish(settings: Settings, source: str) -> str:
    """Write the records of a source to a topic of its own, with the times of their arrival."""
    topic = f"{settings.prefix}app.{source}"
    with admin(settings) as client:
        # The times of the records are months ago, so with a retention Kafka may delete them at any moment.
        make(client, [TopicSpec(topic, 2, "", {"retention.ms": "-1"})])
    with producer(settings) as sender:
        for time, record in foreign.records(source, STREAMS[source]):
            # By the id of the record, so that an undo may be read before what it takes back.
            key = str(record.get("id", ""))
            sender.send(topic, json.dumps(record).encode(), key=key.encode(), timestamp_ms=round(time * 1000))
        sender.send(topic, None, key=b"tombstone", timestamp_ms=round(foreign.START_S * 1000))
    return topic


@contextmanager
def jetstream(records: list[dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """A server that sends records behind a cursor, and breaks off after a part of them; yields address and cursors."""
    cursors: list[str] = []

    async def handle(request: web.Request) -> web.WebSocketResponse:
        connection = web.WebSocketResponse()
        await connection.prepare(request)
        cursors.append(request.query.get("cursor", ""))
        behind = [record for record in records if record["time_us"] >= int(cursors[-1] or 0)]
        part = behind[: len(behind) // 2] if len(cursors) == 1 else behind
        for record in part:
            await connection.send_str(json.dumps(record))
        if len(cursors) > 1:
            await connection.receive()
        await connection.close()
        return connection

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> web.AppRunner:
        application = web.Application()
        application.router.add_get("/subscribe", handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(WAIT_S)
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/subscribe", cursors
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(WAIT_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WAIT_S)
        loop.close()


def _connect_all(settings: Settings, folder: Path, run: Callable[..., dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Deliver every source; return the summaries."""
    topics = {name: publish(settings, name) for name in ("mastodon", "x", "debezium")}
    records = [record for _, record in foreign.records("bluesky", STREAMS["bluesky"]) if record["time_us"] > 1]
    file = folder / "github.jsonl"
    file.write_text("".join(f"{json.dumps(one)}\n" for _, one in foreign.records("github", STREAMS["github"])))
    with jetstream(records) as (address, cursors):
        live = command(settings, address, "--map", "bluesky", "--json")
        # Killed at any point: what was not committed is read again.
        killed = command(settings, f"topic:{topics['debezium']}", "--map", "debezium")
        try:
            summaries = {"github": run(str(file), "--map", "github")}
            for name in ("mastodon", "x"):
                summaries[name] = run(f"topic:{topics[name]}", "--map", name, "--stop-at-end")
            killed.kill()
            killed.communicate()
            summaries["debezium"] = run(f"topic:{topics['debezium']}", "--map", "debezium", "--stop-at-end")
            wanted = len({json.dumps(row) for row in foreign.expected("bluesky", STREAMS["bluesky"])})
            wait_for(lambda: _of(settings, "did:plc:") >= wanted, WAIT_S, "all events of the WebSocket")
            live.send_signal(signal.SIGINT)
            output, errors = live.communicate(timeout=WAIT_S)
        finally:
            live.kill()
            killed.kill()
            live.communicate()
            killed.communicate()
    assert live.returncode == 0, errors.decode()
    assert cursors == ["", str(records[len(records) // 2 - 1]["time_us"])]
    return {**summaries, "bluesky": json.loads(output)}


def _of(settings: Settings, prefix: str) -> int:
    """The number of different events on the input topics whose users begin with a prefix."""
    records = read_all(settings, [spec.name for spec in Topics(settings).inputs.values()])
    return len({record.value for record in records if record.key.decode().startswith(prefix)})


def test_every_source_becomes_scores_and_alerts(
    ready: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The input topics hold exactly the events of the streams, every user is scored, and the alerts are a replay's."""
    monkeypatch.setattr(logs, "setup", lambda _settings: None)  # in this process pytest has the log

    def run(*arguments: str) -> dict[str, Any]:
        capsys.readouterr()
        assert cli.run(["connect", *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]

    summaries = _connect_all(ready, tmp_path, run)
    assert all(summary["skipped"] == {} for summary in summaries.values())
    rows = [row for name, stream in STREAMS.items() for row in foreign.expected(name, stream)]
    wanted = {event_files.row_mutations(row)[-1] for row in rows}
    sent = read_all(ready, [spec.name for spec in Topics(ready).inputs.values()])
    assert {event_files.row_mutations(json.loads(record.value))[-1] for record in sent} == wanted

    file = tmp_path / "events.jsonl"
    event_files.write(file, sorted(rows, key=lambda row: row["time"]))
    assert cli.run(["replay", str(file), "--out", str(tmp_path / "out"), "--json"]) == 0
    capsys.readouterr()
    replayed = pq.read_table(tmp_path / "out" / "alerts.parquet").to_pylist()
    reach = {row["user"]: row["reach"] for row in pq.read_table(tmp_path / "out" / "scores.parquet").to_pylist()}
    with worker(ready):
        wait_quiet(ready, WAIT_S, 3.0)
        alerts = [json.loads(record.value) for record in read_all(ready, [Topics(ready).alert.name])]
        scores = {r.key.decode(): json.loads(r.value) for r in read_all(ready, [Topics(ready).score.name])}
    assert {alert["alert"] for alert in alerts} == {alert["alert"] for alert in replayed}
    assert scores.keys() == reach.keys()
    places = {name: foreign.IDS[name].user(1)[:4] for name in STREAMS}
    for name, place in places.items():
        assert any(user.startswith(place) for user in scores), name
    assert len({alert["user"][:4] for alert in alerts}) >= 3
