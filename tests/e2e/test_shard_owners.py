"""Two workers with a shard each: a user of the other shard is named with the address that has it, which answers."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import Request

from streams.kafka.topics import Topics, admin, create
from streams.settings.direct_http import urlopen
from streams.settings.settings import Settings
from tests.support.workers import WorkerProcess, producer, wait_for, worker

USERS = [f"u{number}/x" for number in range(12)]
FIRST_S = 180.0


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_user_of_another_shard(settings: Settings, tmp_path: Path) -> None:
    """Every user is answered by one worker, and the other names it; an unknown user is a 404 where its shard is."""
    settings = settings.model_copy(update={"shards": 2, "datadir": tmp_path / "a"})
    other = settings.model_copy(update={"datadir": tmp_path / "b", "web_port": _port()})
    with admin(settings) as client:
        create(client, Topics(settings).all())
    with producer(settings) as sender:
        for user in USERS:
            event = {"type": "create", "time": 1_772_366_400, "user": user, "content": f"post-{user}"}
            sender.send(Topics(settings).create.name, json.dumps(event).encode())
    with worker(settings) as first, worker(other) as second:

        def answers(process: WorkerProcess) -> dict[str, int]:
            return {user: process.get(f"/api/v1/users/{quote(user, safe='')}")[0] for user in USERS}

        def settled() -> bool:
            one, two = answers(first), answers(second)
            return all({one[user], two[user]} == {200, 421} for user in USERS)

        wait_for(settled, FIRST_S, "each worker to have a shard")
        named = {status for process in (first, second) for status in answers(process).values()}
        assert named == {200, 421}
        for process, has in ((first, second), (second, first)):
            elsewhere = next(user for user, status in answers(process).items() if status == 421)
            body = json.loads(process.get(f"/api/v1/users/{quote(elsewhere, safe='')}")[1])
            assert body["owner"]["url"] == f"http://127.0.0.1:{has.settings.web_port}"
            address = body["error"].rpartition(" ")[2]
            assert urlsplit(address).port == has.settings.web_port
            with urlopen(Request(address), 5) as answer:
                assert json.loads(answer.read())["user"] == elsewhere
        statuses = sorted(process.get("/api/v1/users/nowhere")[0] for process in (first, second))
        assert statuses == [404, 421]
