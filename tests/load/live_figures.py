"""Live figures of a worker against those of the prequential evaluation: `python -m tests.load.live_figures FILE`.

A broker and a worker get the events post by post: the creates of one moment, and when these are processed, all events
up to the next create. In the middle the worker is killed and started again. Its figures must equal the evaluation's to
1e-9, which computes them without a broker from the events and the state just before each post. `--free` sends
everything at once instead and prints the differences: micro-batches then span many posts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from pyarrow import parquet as pq

from graphstate.types import GraphSpec, Kind, Mutation
from model.artifact import Artifact
from model.evaluation.live_figures import figures, newest
from streams.kafka.topics import Topics
from streams.messages.events import TOPIC_OF, mutations
from streams.offline.dataset import closed_posts
from streams.offline.evaluation import EvaluationSet, Protocol
from streams.offline.prequential import prequential
from streams.settings.connection import kafka_arguments
from streams.settings.settings import Settings
from tests.load.rig import Rig
from tests.support.workers import WorkerProcess, producer, wait_for

Event = dict[str, Any]
TOLERANCE = 1e-9
STEPS = 1_000_000
ARRAY = 500
"""Events in one message."""
FIGURES_S = 10.0


def read(path: Path, posts: int, since: float = 0.0) -> list[Event]:
    """Return the events of a Parquet file from a time (s) up to its create number `posts` from there, in order of time.

    Follows of all times are returned. Creates come first among events of equal time.
    """
    table = pq.read_table(path).to_pylist()
    rows = [
        {name: value for name, value in row.items() if value is not None}
        for row in table
        if row["time"] >= since or row["type"] == "follow"
    ]
    rows.sort(key=lambda row: (row["time"], row["type"] != "create"))
    created = [row["time"] for row in rows if row["type"] == "create"]
    last = created[min(posts, len(created)) - 1]
    return [row for row in rows if row["time"] <= last]


def decoded(events: Iterable[Event]) -> list[Mutation]:
    """Return the events as a worker reads them."""
    now_ms = time.time_ns() // 1_000_000
    return [one for event in events for one in mutations(json.dumps(event).encode(), TOPIC_OF[event["type"]], now_ms)]


def post_by_post(events: Sequence[Event]) -> Iterator[list[Event]]:
    """Yield the creates of each moment alone, and between them all that follows."""
    for is_create, group in groupby(events, key=lambda event: event["type"] == "create"):
        if is_create:
            for _, moment in groupby(group, key=lambda event: event["time"]):
                yield list(moment)
        else:
            yield list(group)


class Feeder:
    """Sends events to the input topics and waits until the workers have processed them with all consequences."""

    def __init__(self, settings: Settings, sender: KafkaProducer) -> None:
        self._settings, self._sender = settings, sender
        registry = Topics(settings)
        self._topics = registry.inputs
        self._read = [*(spec.name for spec in self._topics.values()), registry.mutations.name]
        self._read += [registry.halos.name] * (settings.shards > 1)
        self._consumer = KafkaConsumer(
            **kafka_arguments(settings), group_id=settings.consumer_group, enable_auto_commit=False
        )
        self._parts = [
            TopicPartition(name, number)
            for name in self._read
            for number in sorted(self._consumer.partitions_for_topic(name) or ())
        ]

    def send(self, events: Sequence[Event]) -> None:
        """Send events as arrays, one topic after the other."""
        for kind, spec in self._topics.items():
            own = [event for event in events if TOPIC_OF[event["type"]] == kind]
            for begin in range(0, len(own), ARRAY):
                self._sender.send(spec.name, json.dumps(own[begin : begin + ARRAY]).encode(), partition=0)
        self._sender.flush()

    def processed(self) -> bool:
        """Whether nothing is left to process: the group commits a message after all that it led to was sent."""
        committed = {part: self._consumer.committed(part) or 0 for part in self._parts}
        ends = self._consumer.end_offsets(self._parts)
        return all(committed[part] >= ends[part] for part in self._parts)

    def wait(self, timeout_s: float = 120.0) -> None:
        """Wait until everything is processed."""
        end = time.monotonic() + timeout_s
        while not self.processed():
            if time.monotonic() > end:
                raise TimeoutError(f"not processed within {timeout_s:.0f} s")
            time.sleep(0.002)

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()


def expected(events: Sequence[Event], limit: int) -> dict[str, Any]:
    """Return the figures of the prequential evaluation over the newest closed posts."""
    artifact, spec = Artifact.default(), GraphSpec()
    log = sorted(decoded(events), key=lambda event: (event.time, event.kind != Kind.CREATE))
    tick, horizon = spec.tick_s * 1_000_000, artifact.config.horizon_s * 1_000_000
    until = log[-1].time // tick * tick
    posts, authors = closed_posts(log, horizon, until)
    times = Protocol(0, 0.1, -1, until, horizon)
    users = EvaluationSet(times, [], np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.bool_), posts, authors)
    return figures(newest([prequential(log, users, artifact, steps=STEPS).posts], limit))


def of_worker(worker: WorkerProcess, events: Sequence[Event], *, free: bool = False) -> dict[str, Any]:
    """Feed a worker, kill it in the middle, and return its figures at the end."""
    chunks = [list(events)] if free else list(post_by_post(events))
    with producer(worker.settings) as sender:
        feeder = Feeder(worker.settings, sender)
        for number, chunk in enumerate(chunks):
            feeder.send(chunk)
            if number == len(chunks) // 2:
                worker.kill()
                worker.start()
                worker.wait_ready()
            feeder.wait()
        feeder.close()

    def answer() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(worker.get("/api/v1/live")[1])
        return found

    time.sleep(FIGURES_S)
    wait_for(lambda: worker.get("/api/v1/live")[0] == 200, 30, "the figures")
    return answer()


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Return the absolute differences of all figures; a figure that only one has counts as 1."""

    def flat(found: dict[str, Any]) -> dict[str, float | None]:
        by_scorer = {
            f"{scorer}, {who}": value for scorer, row in found["spearman"].items() for who, value in row.items()
        }
        return by_scorer | {"posts": found["posts"], "known": found["known"], "calibration": found["calibration"]}

    mine, theirs = flat(one), flat(other)
    result = {}
    for name, value in mine.items():
        if value is None or theirs[name] is None:
            result[name] = float(value is not theirs[name])
        else:
            result[name] = abs(value - (theirs[name] or 0.0))
    return result


def check(events: list[Event], shards: int, *, limit: int = 1_000, free: bool = False) -> dict[str, Any]:
    """Return the figures of both, and the largest difference."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="groundswell-live-") as folder:
        options = {"retention_s": 0, "partitions": 1, "live_posts": limit}
        with Rig(Path(folder), workers=1, shards=shards, **options) as rig:
            worker = of_worker(rig.workers[0], events, free=free)
    reference = expected(events, limit)
    apart = differences(reference, worker)
    return {
        "events": len(events),
        "shards": shards,
        "closed_posts": worker["posts"],
        "worker": worker["spearman"],
        "evaluate": reference["spearman"],
        "largest_difference": max(apart.values()),
        "differences": apart,
        "seconds": round(time.monotonic() - begin, 1),
    }


def main() -> int:
    """Run the checks of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--posts", type=int, default=400, help="creates of the file that are sent")
    parser.add_argument("--shards", type=int, nargs="*", default=[1, 3])
    parser.add_argument("--free", action="store_true", help="send everything at once and only print the differences")
    parser.add_argument("--since", type=float, default=0.0, help="first event, in Unix seconds")
    given = parser.parse_args()
    events, equal = read(given.file, given.posts, given.since), True
    for shards in given.shards:
        found = check(events, shards, free=given.free)
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        equal &= found["largest_difference"] <= TOLERANCE
    return 0 if equal or given.free else 1


if __name__ == "__main__":
    sys.exit(main())
