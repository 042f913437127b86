"""Tiers, growth, topics, pairs and queries: from Kafka to topics, API and commands, with one and three shards."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from groundswell.values import decode_topic_score
from streams.cli import app
from streams.kafka.topics import Topics
from streams.settings.settings import Settings
from tests.support.workers import WorkerProcess, producer, read_all, wait_for

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
        assert get("/api/v1/users/ann")["communities"] == [{"community": "k", "posts": 1}]
        content = get("/api/v1/contents/x")
        assert (content["user"], content["community"], content["topics"]) == ("ann", "k", ["art", "sea"])
        assert (process.get("/api/v1/contents/z")[0], content["sharers"]) == (404, 1)
        check_queries(get)
        check_topic_scores(settings, ann, ben)
        gauge = b'groundswell_tier_users{tier="nano"}'
        wait_for(lambda: gauge in process.get("/metrics")[1], 60, "the sizes of tiers")
        assert process.stop() == 0
    finally:
        process.kill()


def ask(query: str, *options: str) -> Any:
    """The result of `groundswell query`."""
    return CliRunner().invoke(app, ["query", query, *options])


def check_queries(get: Callable[[str], Any]) -> None:
    """The command has the answer of the endpoint, and its errors point at the word."""
    asked = json.loads(ask("RANK users BY growth WHERE tier = nano AND topic = art", "--json").stdout)
    assert asked["answer"] == get("/api/v1/top?by=growth&tier=nano&topic=art")
    assert json.loads(ask("COMPARE user ann WITH user ben", "--json").stdout)["answer"] == get(
        "/api/v1/compare?a=ann&b=ben"
    )
    on_topic = json.loads(ask("PREDICT reach FOR user ben IN 3 DAYS ON TOPIC art", "--json").stdout)["answer"]
    assert on_topic.items() >= get("/api/v1/users/ben")["topics"][0].items()
    assert ask("PREDICT reach FOR user ben").stdout.startswith("ben: reach ")
    wrong = ask("RANK users BYE growth")
    assert (wrong.exit_code, wrong.stderr) == (1, "RANK users BYE growth\n           ^^^\n")
    assert "did you mean BY?" in str(wrong.exception)
    assert "no artifact" in str(ask("PREDICT share OF content y FOR user f7").exception)


def newest(settings: Settings) -> dict[str, Any]:
    """The newest value of each key of the topic of scores by user and topic."""
    records = read_all(settings, [Topics(settings).topic.name])
    return {
        record.key.decode(): record.value and json.loads(record.value)
        for record in sorted(records, key=lambda record: record.offset)
    }


def check_topic_scores(settings: Settings, ann: dict[str, Any], ben: dict[str, Any]) -> None:
    """The topic has posts, sharers and reach as the API does; a forget withdraws a user's."""
    expected = {
        f"{one['topic']}\x1f{user['user']}": (one["posts"], one["sharers"])
        for user in (ann, ben)
        for one in user["topics"]
    }

    def counts() -> dict[str, Any]:
        return {key: value and (value["posts"], value["sharers"]) for key, value in newest(settings).items()}

    wait_for(lambda: counts() == expected, 60, "all scores by topic")
    value = decode_topic_score(json.dumps(newest(settings)["art\x1fben"]).encode())
    assert value.model == ben["model"]
    with producer(settings) as sender:
        event = {"type": "forget", "time": END + 10, "user": "ben"}
        sender.send(Topics(settings).follow.name, json.dumps(event).encode())
    wait_for(lambda: counts() == {**expected, "art\x1fben": None}, 60, "the tombstone of a forgotten user")
