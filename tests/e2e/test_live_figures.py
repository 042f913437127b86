"""Live figures of a real worker with three shards that is killed on the way, against the prequential evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np

from streams.kafka.topics import Topics, admin, create
from streams.settings.settings import Settings
from tests.load import live_figures
from tests.load.live_figures import TOLERANCE, differences, expected, of_worker
from tests.support.workers import worker

POSTS = 118
HOUR, DAY = 3_600, 86_400


def history(seed: int = 4) -> list[dict[str, Any]]:
    """Return posts of twenty authors at four moments an hour, their shares, and an event after the last horizon."""
    random, start = np.random.default_rng(seed), 1_600_000_000
    events: list[dict[str, Any]] = []
    for number in range(POSTS):
        at, author = start + number // 4 * HOUR, int(random.integers(20))
        events.append({"type": "create", "time": at, "user": f"u{author}", "content": f"c{number}"})
        events += [
            {"type": "share", "time": at + int(late), "user": f"u{random.integers(60)}", "content": f"c{number}"}
            for late in random.integers(1, 2 * DAY, int(random.poisson(1 + author % 5)))
        ]
    events.append({"type": "follow", "time": start + 9 * DAY, "user": "u1", "target": "u2"})
    return sorted(events, key=lambda event: (event["time"], event["type"] != "create"))


def test_equals_prequential_through_a_kill(settings: Settings, monkeypatch: Any) -> None:
    """The figures of all three shards together equal those of `evaluate` on the same events, to 1e-9."""
    monkeypatch.setattr(live_figures, "FIGURES_S", 5.0)
    own = settings.model_copy(update={"shards": 3, "partitions": 1, "retention_s": 0})
    with admin(own) as client:
        create(client, Topics(own).all())
    events = history()
    with worker(own) as running:
        found = of_worker(running, events)
    assert found["posts"] == POSTS
    apart = differences(expected(events, own.live_posts), found)
    assert max(apart.values()) <= TOLERANCE, apart
    assert found["spearman"]["model"]["all"] is not None
