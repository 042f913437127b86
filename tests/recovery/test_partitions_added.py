"""Topics with any number of partitions, more of them while a worker runs and after a restart: the scores of replay."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from kafka.admin import NewPartitions

from streams.kafka.log_io import read_inputs
from streams.kafka.partitioner import partitions_of
from streams.kafka.topics import Topics, admin, check, create, make, partitions
from streams.messages.events import TOPIC_OF
from streams.operations import doctor
from streams.settings.settings import Settings
from tests.support.histories import history
from tests.support.shards import check_same, undisturbed
from tests.support.workers import producer, read_all, wait_for, wait_quiet, worker

PORTION = 700
QUIET_S, STILL_S = 60.0, 1.0


def feed(settings: Settings, events: list[dict[str, Any]], counts: dict[str, int], rng: random.Random) -> None:
    """Send events to random partitions of topics with these numbers of partitions."""
    topics = Topics(settings)
    with producer(settings) as sender:
        for event in events:
            name = topics.inputs[TOPIC_OF[event["type"]]].name
            sender.send(name, json.dumps(event).encode(), partition=rng.randrange(counts[name]))


def grow(settings: Settings, counts: dict[str, int]) -> None:
    """Increase the numbers of partitions."""
    with admin(settings) as client:
        client.create_partitions({name: NewPartitions(total_count=count) for name, count in counts.items()})
        wait_for(lambda: partitions(client, list(counts)) == counts, 30, "the partitions")


def owned(process: Any) -> set[str]:
    """The partitions that a worker owns."""
    return set(json.loads(process.get("/readyz")[1])["partitions"])


def test_partitions_are_added_while_a_worker_runs(settings: Settings, tmp_path: Path) -> None:
    """Inputs grow from 1, 3 and 4 partitions to 6, scores from 2 to 5: all events are scored as by replay."""
    settings = settings.model_copy(update={"retention_s": 0, "partitions": 4})
    topics, rng = Topics(settings), random.Random(16)
    events = list(history(rng, 3 * PORTION))
    portions = [events[first : first + PORTION] for first in range(0, len(events), PORTION)]
    before = {topics.follow.name: 1, topics.share.name: 4, topics.create.name: 3, topics.score.name: 2}
    after = {topics.follow.name: 6, topics.share.name: 6, topics.create.name: 6, topics.score.name: 5}
    with admin(settings) as client:
        specs = [spec for spec in topics.all() if spec.name in before]
        make(client, [replace(spec, partitions=before[spec.name]) for spec in specs])
        create(client, topics.all())
        assert partitions(client, [topics.alert.name]) == {topics.alert.name: 4}
    with worker(settings) as process:
        feed(settings, portions[0], before, rng)
        wait_quiet(settings, QUIET_S, STILL_S)
        grow(settings, after)
        feed(settings, portions[1], after, rng)
        new = {f"{name}:5" for name in after if name != topics.score.name}
        wait_for(lambda: new <= owned(process), 20, "the new partitions to be owned")
        wait_quiet(settings, QUIET_S, STILL_S)
        assert process.stop() == 0
    with worker(settings) as process:
        feed(settings, portions[2], after, rng)
        wait_quiet(settings, QUIET_S, STILL_S)
        assert process.stop() == 0
    expected = undisturbed(settings, events, tmp_path / "calm")
    check_same(settings, [settings.datadir], expected)
    check_scores(settings, topics, set(expected[0]), [before[topics.score.name], after[topics.score.name]])
    with admin(settings) as client:
        check(client, topics.all())
    assert doctor.registry(settings)
    assert len(read_inputs(settings).mutations) >= len(events)


def check_scores(settings: Settings, topics: Topics, users: set[str], counts: list[int]) -> None:
    """Check that each user has a score in the partition of their key, and that forgotten users have none anywhere."""
    newest: dict[tuple[str, int], bool] = {}
    for record in read_all(settings, [topics.score.name]):
        newest[record.key.decode(), record.partition] = record.value is not None
    for user in users:
        assert newest[user, partitions_of([user.encode()], counts[-1])[0]], user
    left = {user for (user, _), has in newest.items() if has and user not in users}
    assert not left
