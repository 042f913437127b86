"""The typed client on a real broker: plain and asynchronous, repeats, groups, forgotten users, foreign messages."""

from __future__ import annotations

import asyncio
import json
from itertools import islice
from typing import Any

import pytest

from docs.contract import EXAMPLES
from groundswell import client
from streams.kafka.topics import Topics, admin, create
from streams.settings.settings import Settings
from tests.support.workers import producer

ALERT, OUTCOME, SCORE = EXAMPLES["alert"][0], EXAMPLES["outcome"][0], EXAMPLES["score"][0]


@pytest.fixture
def published(settings: Settings) -> Settings:
    """Scores, a tombstone, an alert that comes twice, another one, and an outcome."""
    topics = Topics(settings)
    with admin(settings) as kafka:
        create(kafka, topics.outputs)
    send: list[tuple[str, Any]] = [
        (topics.score.name, SCORE), (topics.score.name, None), (topics.alert.name, ALERT), (topics.alert.name, ALERT),
        (topics.alert.name, {**ALERT, "alert": "second", "new_field": 1}), (topics.outcome.name, OUTCOME),
    ]  # fmt: skip
    send += [(topics.topic.name, EXAMPLES["topic"][0]), (topics.topic.name, None)]
    with producer(settings) as sender:
        for topic, value in send:
            key = b"owls\x1fbo" if topic == topics.topic.name else b"bo"
            sender.send(topic, value and json.dumps(value).encode(), key=key, partition=0)
    return settings


def test_values_are_typed_and_come_once(published: Settings) -> None:
    """Each value has its type, a repeated alert comes once, and a tombstone is a forgotten user."""
    where: dict[str, Any] = {"prefix": published.prefix, "from_beginning": True}
    scores = list(islice(client.scores(published.broker, **where), 2))
    assert scores == [client.Score("bo", 7.31, 96.4, scores[0].as_of, "0123456789ab"), client.Forgotten("bo")]  # type: ignore[union-attr]
    assert scores[0].as_of.isoformat() == "2026-03-01T18:00:00+00:00"  # type: ignore[union-attr]
    alerts = list(islice(client.alerts(published.broker, **where), 2))
    assert [alert.alert for alert in alerts] == [ALERT["alert"], "second"]
    on_topic = list(islice(client.topics(published.broker, **where), 2))
    assert on_topic[1] == client.OffTopic("owls", "bo")
    assert isinstance(on_topic[0], client.TopicScore)
    assert (on_topic[0].topic, on_topic[0].posts, on_topic[0].sharers) == ("owls", 7, 96)
    (outcome,) = islice(client.outcomes(published.broker, **where), 1)
    assert (outcome.outcome, outcome.lead_s) == ("confirmed", 43_200.0)


def test_asynchronous_values(published: Settings) -> None:
    """The asynchronous iterators yield the same."""

    async def read(values: Any, count: int) -> list[Any]:
        found = []
        async for value in values:
            found.append(value)
            if len(found) == count:
                await values.aclose()
                return found
        return found

    where: dict[str, Any] = {"prefix": published.prefix, "from_beginning": True}
    assert len(asyncio.run(read(client.scores_async(published.broker, **where), 2))) == 2
    alerts = asyncio.run(read(client.alerts_async(published.broker, **where), 2))
    assert [type(alert) for alert in alerts] == [client.Alert, client.Alert]
    (outcome,) = asyncio.run(read(client.outcomes_async(published.broker, **where), 1))
    assert outcome.user == "bo"


def test_a_group_continues_behind_what_was_processed(published: Settings) -> None:
    """What was taken and not followed by a request for more comes again; the rest does not."""
    where: dict[str, Any] = {"prefix": published.prefix, "group": f"{published.prefix}own"}
    first = client.alerts(published.broker, **where)
    assert next(first).alert == ALERT["alert"]
    first.close()  # type: ignore[attr-defined]
    again = client.alerts(published.broker, **where)
    assert [next(again).alert, next(again).alert] == [ALERT["alert"], "second"]
    with producer(published) as sender:
        sender.send(Topics(published).alert.name, json.dumps({**ALERT, "alert": "third"}).encode(), key=b"bo")
    assert next(again).alert == "third"  # behind a commit
    again.close()  # type: ignore[attr-defined]
    assert next(client.alerts(published.broker, **where)).alert == "third"


def test_a_foreign_message_is_an_error_with_its_place(published: Settings) -> None:
    """The error has topic, partition and offset."""
    topic = Topics(published).outcome.name
    with producer(published) as sender:
        sender.send(topic, b'{"user": 3}', key=b"bo", partition=0)
    values = client.outcomes(published.broker, prefix=published.prefix, from_beginning=True)
    next(values)
    with pytest.raises(client.Undecodable, match=rf"^{topic}, partition 0, offset 1: "):
        next(values)
