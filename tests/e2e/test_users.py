"""Tiers, growth, topics and comparison of users: from Kafka to the API and the commands, with one and three shards."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.kafka.topics import Topics
from streams.settings.settings import Settings
from tests.support.workers import WorkerProcess, producer, wait_for

DAY = 86_400
END = 1_700_000_000 - 1_700_000_000 % DAY
EVENTS: list[dict[str, Any]] = [
    *({"type": "follow", "time": END - 32 * DAY + k, "user": f"f{k}", "target": "ann"} for k in range(20)),
    *({"type": "follow", "time": END - DAY + k, "user": f"f{k}", "target": "ben"} for k in range(5)),
    {"type": "unfollow", "time": END - DAY + 60, "user": "f0", "target": "ben"},
    {"type": "create", "time": END - 3_000, "user": "ann", "content": "x", "topics": ["art", "sea"], "community": "k"},
    {"type": "create", "time": END - 3_000, "user": "ben", "content": "y", "topics": ["art"]},
    {"type": "create", "time": END - 3_000, "user": "ben", "content": "z", "topics": ["art"]},
    {"type": "delete", "time": END - 2_000, "user": "ben", "content": "z"},
    *({"type": "share", "time": END - 1_000 + k, "user": f"f{k}", "content": "y"} for k in range(3)),
    {"type": "share", "time": END, "user": "f9", "content": "x"},
]


@pytest.mark.parametrize("shards", [1, 3])
def test_figures_of_users(settings: Settings, shards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API and the commands show what the events define, with any number of shards."""
    settings = settings.model_copy(update={"shards": shards, "tiers": "nano=0,micro=4"})
    process, topics = WorkerProcess(settings), Topics(settings)
    process.start()
    try:
        process.wait_ready()
        with producer(settings) as sender:
            for event in EVENTS:
                topic = {"share": topics.share, "create": topics.create, "delete": topics.create}
                sender.send(topic.get(event["type"], topics.follow).name, json.dumps(event).encode())

        def get(path: str) -> Any:
            status, body = process.get(path)
            return json.loads(body) if status == 200 else {}

        def counts(user: str) -> tuple[Any, ...]:
            answer = get(f"/api/v1/users/{user}")
            return tuple(answer.get(name) for name in ("followers", "posts", "shares_received"))

        wait_for(lambda: (counts("ann"), counts("ben")) == ((20, 1, 1), (4, 1, 3)), 120, "all events")
        ann, ben = get("/api/v1/users/ann"), get("/api/v1/users/ben")
        assert (ann["tier"], ann["followers"], ann["gained"]) == ("micro", 20, {"1d": 0, "7d": 0, "30d": 0})
        assert (ben["tier"], ben["followers"], ben["gained"]["7d"], ben["growth"]["7d"]) == ("nano", 4, 4, 4.0)
        assert ben["engagement"] == 3 / 4
        assert [(one["topic"], one["posts"], one["mean_reach"]) for one in ben["topics"]] == [("art", 1, 3.0)]
        assert [one["topic"] for one in ann["topics"]] == ["art", "sea"]
        grown = get("/api/v1/top?by=growth&tier=nano&limit=1")
        assert (grown["by"], [one["user"] for one in grown["top"]]) == ("growth_7d", ["ben"])
        assert {one["user"] for one in get("/api/v1/top?topic=art")["top"]} == {"ann", "ben"}
        assert process.get("/api/v1/top?by=luck")[0] == 400
        assert process.get("/api/v1/compare?a=ann&b=nobody")[0] == 404
        monkeypatch.setenv("GROUNDSWELL_WEB_PORT", str(settings.web_port))
        commands = (
            ["top", "--topic", "sea"],
            ["top", "--by", "followers", "--tier", "micro"],
            ["compare", "ann", "ben"],
        )
        for command in commands:
            assert CliRunner().invoke(app, command).exit_code == 0, command
        answer = json.loads(CliRunner().invoke(app, ["compare", "ann", "ben", "--json"]).stdout)
        assert answer == get("/api/v1/compare?a=ann&b=ben")
        assert answer["odds"]["chance_a"] > 0.5
        gauge = b'groundswell_tier_users{tier="nano"}'
        wait_for(lambda: gauge in process.get("/metrics")[1], 60, "the sizes of tiers")
        assert process.stop() == 0
    finally:
        process.kill()
