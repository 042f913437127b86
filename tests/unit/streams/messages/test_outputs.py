"""Scores and alerts: the bytes of their messages, their JSON, and their tables."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np

from groundswell.values import decode_topic_score
from streams.messages.files.result_tables import ALERT_SCHEMA, SCORE_SCHEMA, alert_table, score_table
from streams.messages.headers import CloudEvents
from streams.messages.outputs import (
    ALERT_FIELDS,
    SCORE_FIELDS,
    Alert,
    Score,
    TopicScore,
    new_score,
    score_messages,
    tombstones,
    topic_messages,
    topic_tombstones,
)
from tests.support.processing import one_by_one

AS_OF = 1_300_000_000_000_001
TIME = "2011-03-13T07:06:40.000001Z"
EVENTS = CloudEvents("a.type", "/source")
ALERT = Alert("id1", "ann", AS_OF, 3.5, 7, 12.5, 99.25, 4, None)


def test_score_messages() -> None:
    """The value has the fields in their fixed order; a tombstone has none."""
    scores = [new_score(("ann é", 12.5, 0.1 + 0.2, AS_OF)), new_score(('b"\n', 1.0, 2.0, AS_OF + 1))]
    message, second = one_by_one(score_messages(scores, "m1", "0-17", EVENTS))
    value = f'{{"user":"ann é","reach":12.5,"percentile":0.30000000000000004,"as_of":"{TIME}","model":"m1"}}'
    assert message == ("ann é".encode(), value.encode(), EVENTS.headers("0-17/ann é".encode(), TIME.encode()))
    assert json.loads(second.value or b"")["user"] == second.key.decode() == 'b"\n'
    assert dict(second.headers)["ce_time"] == TIME.replace("1Z", "2Z").encode()
    (tombstone,) = tombstones(["bob"], "0-17", b"now", EVENTS)
    assert tombstone == (b"bob", None, EVENTS.headers(b"0-17/bob", b"now", empty=True))
    assert (*Score._fields, "model") == SCORE_FIELDS


def test_topic_messages() -> None:
    """The key is topic, U+001F and user; the schema's type reads the value; a tombstone has the same key."""
    score = TopicScore("kühe", "ann", 3, 12, 4.5, 60.0, AS_OF)
    (message,) = one_by_one(topic_messages([score], "0123456789ab", "0-17", EVENTS))
    assert message.key == "kühe\x1fann".encode()
    assert dict(message.headers)["ce_id"] == "0-17/kühe\x1fann".encode()
    value = decode_topic_score(message.value or b"")
    read = (value.topic, value.user, value.posts, value.sharers, value.reach, value.percentile)
    assert (*read, value.model) == (*score[:-1], "0123456789ab")
    (tombstone,) = topic_tombstones([("kühe", "ann")], "0-17", b"now", EVENTS)
    assert (tombstone.key, tombstone.value) == (message.key, None)


def test_alert_message() -> None:
    """The value has the fields in their fixed order; the JSON of the pages has all of them but the model."""
    value = (
        f'{{"alert":"id1","user":"ann","kind":"emerging","as_of":"{TIME}","velocity":3.5,"level":7,"reach":12.5,'
        '"percentile":99.25,"new_sharers":4,"content":null,"model":"m1"}'
    )
    assert ALERT.to_message("m1", EVENTS) == (b"ann", value.encode(), EVENTS.headers(b"id1", TIME.encode()))
    assert tuple(ALERT.to_json()) == ALERT_FIELDS[:-1]
    full = ALERT._replace(rising_s=60.0, sharers=("bo",), topics=("ai",)).to_json()
    assert full == {**ALERT.to_json(), "rising_s": 60.0, "sharers": ["bo"], "topics": ["ai"]}


def test_tables() -> None:
    """The tables have the fields of the types as columns, with times as timestamps."""
    assert (tuple(SCORE_SCHEMA.names), tuple(ALERT_SCHEMA.names)) == (Score._fields, Alert._fields)
    time = datetime(2011, 3, 13, 7, 6, 40, 1, tzinfo=UTC)
    named = ALERT._replace(sharers=("bo",))
    assert alert_table([named]).to_pylist() == [{**named._asdict(), "as_of": time, "sharers": ["bo"], "topics": []}]
    table = score_table(["ann"], np.array([12.5]), np.array([99.25]), np.array([AS_OF]))
    assert table.to_pylist() == [{"user": "ann", "reach": 12.5, "percentile": 99.25, "as_of": time}]
