"""Live figures of a worker: merged over shards and workers, sent only when they changed, and shown as metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from model.evaluation.calibration import IDENTITY, POSTS_MIN, CalibrationMap, fit
from model.evaluation.live_figures import POST, LivePosts, figures, newest
from streams.messages.closed_posts import decode, encode
from streams.telemetry.metrics import Metrics
from streams.worker.inspection import live_figures
from streams.worker.inspection.live_figures import LiveFigures


def posts(number: int, seed: int) -> LivePosts:
    """Return random closed posts."""
    random = np.random.default_rng(seed)
    made = np.zeros(number, POST)
    made["created_at"], made["content"] = random.integers(0, 1_000, number), random.integers(0, 1 << 60, number)
    made["score"], made["people"], made["reach"] = random.random((3, number)) * 9
    made["model"] = 11
    made["posts"] = random.integers(0, 3, number)
    return made


@dataclass
class Topic:
    """What the models topic holds."""

    posts: dict[int, bytes]
    version: str = "00000000000b"
    calibration: CalibrationMap = IDENTITY
    history: dict[str, bytes] = field(default_factory=dict)


class Shards:
    """Open shards with posts that the test sets."""

    def __init__(self) -> None:
        self.posts: dict[int, LivePosts] = {}

    async def read(self, query: Callable[[Any], Any]) -> list[Any]:
        """Return the answer of each shard."""
        return [
            query(SimpleNamespace(shard_id=shard, posts=SimpleNamespace(closed=closed, open=3)))
            for shard, closed in self.posts.items()
        ]


def test_merges_and_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Posts of other workers count once; own ones are sent after a change, and a failure stops nothing."""
    monkeypatch.setattr(live_figures, "EVERY_S", 0.0)
    monkeypatch.setattr(live_figures, "SEND_S", 0.0)
    shards, metrics, sent = Shards(), Metrics(), list[tuple[str, bytes]]()
    shards.posts = {0: posts(90, 1), 2: posts(80, 2)}
    topic = Topic({1: encode(posts(70, 3)), 2: encode(posts(9, 4))})
    topic.history = {"000000000005000": b'{"action":"refused","id":"5"}'}

    async def send(key: str, value: bytes) -> None:
        sent.append((key, value))
        if len(sent) == 1:
            raise ConnectionError("away")

    live = LiveFigures(shards, metrics, 200, topic, send)
    asyncio.run(live.tick())
    expected = figures(newest([posts(90, 1), posts(80, 2), posts(70, 3)], 200))
    assert live.figures == expected | {"calibrated": False}
    assert [key for key, _ in sent] == ["posts/0"]
    asyncio.run(live.tick())
    assert [key for key, _ in sent] == ["posts/0", "posts/0", "posts/2"]
    assert np.array_equal(decode(sent[2][1]), posts(80, 2))
    shards.posts[2] = posts(81, 5)
    asyncio.run(live.tick())
    assert [key for key, _ in sent] == ["posts/0", "posts/0", "posts/2", "posts/2"]
    text = metrics.text().decode()
    assert 'groundswell_live_posts{state="closed"} 200.0' in text
    assert 'groundswell_live_posts{state="open"} 6.0' in text
    assert 'groundswell_trainer_decisions{action="refused"} 1.0' in text
    assert "groundswell_trainer_decided_timestamp_seconds 5.0" in text
    assert 'groundswell_live_spearman{authors="all",scorer="past_mean"}' in text


def test_calibrates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker of shard 0 sends a map of enough posts, and another only if reach moves."""
    monkeypatch.setattr(live_figures, "EVERY_S", 0.0)
    monkeypatch.setattr(live_figures, "FIT_S", 0.0)
    shards, topic, sent = Shards(), Topic({}), dict[str, bytes]()

    async def send(key: str, value: bytes) -> None:
        sent[key] = value
        if key.startswith("map/"):
            topic.calibration = CalibrationMap.unpack(value)

    live = LiveFigures(shards, Metrics(), 1_000, topic, send)
    for number, shard, maps in ((POSTS_MIN - 1, 0, 0), (POSTS_MIN, 1, 0), (POSTS_MIN, 0, 1), (POSTS_MIN + 1, 0, 0)):
        shards.posts, before = {shard: posts(number, 1)}, topic.calibration
        sent.clear()
        asyncio.run(live.tick())
        assert sum(key == "map/00000000000b" for key in sent) == maps
        assert (topic.calibration != before) == bool(maps)
    assert topic.calibration == fit(posts(POSTS_MIN, 1))


def test_switched_off() -> None:
    """Without closed posts to keep nothing is read or sent."""
    live = LiveFigures(Shards(), Metrics(), 0, Topic({}), lambda _key, _value: asyncio.sleep(0))
    asyncio.run(live.tick())
    assert live.figures["posts"] == 0
