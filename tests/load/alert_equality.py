"""The same alerts and outcomes from a file, however it reaches the shards: `python -m tests.load.alert_equality FILE…`.

Each event file is replayed with 1, 3 and 8 shards, and sent to real workers: at once; in time order at a rate;
partitions one after the other, the smallest events last; and with the worker killed at random moments. The table has
the counts of alerts and outcomes of each way and the differences to the first.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graphstate.memory.labels import read_labels
from graphstate.types import Kind, Mutation
from model.artifact import Artifact
from streams.embedded import EmbeddedKafka
from streams.kafka.topics import Topics, admin, create
from streams.messages.events import TOPIC_OF, TopicKind
from streams.messages.files import event_files
from streams.offline.replay import BATCH, cluster, replay
from streams.settings.settings import Settings
from streams.shard.graph_view import graph_spec
from tests.chaos.network import free_ports
from tests.support.workers import WorkerProcess, producer, read_all, wait_for, wait_quiet

Ends = dict[str, tuple[str, float] | None]
"""Outcome and lead (s) by alert id, None for an alert without an outcome."""
PARTITIONS = 4
HOUR_US = 3_600_000_000
SMALL_BATCH = 10
IDLE_S = 4.0
NEVER_IDLE_S = 3_600.0


def replayed(mutations: list[Mutation], shards: int, delay_s: float = 0.0, batch: int = BATCH) -> Ends:
    """Replay events and return the alerts; `delay_s`: delay of the watermark. Within a batch no event is late."""
    artifact = Artifact.default()
    spec = graph_spec(artifact.config, retention_s=0, lateness_s=0)
    with (
        tempfile.TemporaryDirectory(prefix="groundswell-equality-") as folder,
        cluster(artifact, spec, Path(folder), shards, delay_s=delay_s) as opened,
    ):
        result = replay(opened, mutations, batch)
    outcomes = {end.alert: (end.outcome, end.lead_s) for end in result.outcomes}
    return {alert.alert: outcomes.get(alert.alert) for alert in result.alerts}


def out_of_order(mutations: list[Mutation], part: float) -> list[Mutation]:
    """Return the events in order of arrival: a part of them arrives up to an hour late."""
    rng = random.Random(5)
    late = [rng.random() < part for _ in mutations]
    arrivals = [
        mutation.time + (rng.randrange(HOUR_US) if is_late else 0)
        for mutation, is_late in zip(mutations, late, strict=True)
    ]
    return [mutations[place] for place in sorted(range(len(mutations)), key=arrivals.__getitem__)]


Row = tuple[int, TopicKind, int, bytes]
"""Time (µs), topic, partition and message of an event."""


def rows_of(mutations: list[Mutation]) -> list[Row]:
    """Return the events as messages, each with a random partition of its topic, in their order."""
    rng = random.Random(7)
    events: list[dict[str, Any]] = []
    for mutation in mutations:
        if mutation.kind == Kind.LABELS:
            # They come behind their create.
            community, topics = read_labels(mutation.extra or "")
            events[-1] |= {"topics": list(topics)} | ({"community": community} if community else {})
        else:
            events.append(event_files.row_of(mutation))
    times = [mutation.time for mutation in mutations if mutation.kind != Kind.LABELS]
    return [
        (time, TOPIC_OF[event["type"]], rng.randrange(PARTITIONS), json.dumps(event).encode())
        for time, event in zip(times, events, strict=True)
    ]


def send(settings: Settings, rows: list[Row], rate: float) -> None:
    """Send messages in their order; rate: messages a second, 0 for no limit."""
    topics, begin = Topics(settings), time.monotonic()
    with producer(settings) as sender:
        for number, (_, kind, partition, value) in enumerate(rows):
            if rate and number % 20 == 0:
                time.sleep(max(0.0, begin + number / rate - time.monotonic()))
            sender.send(topics.inputs[kind].name, value, partition=partition)


@contextmanager
def installed(kafka: EmbeddedKafka, folder: Path, name: str, shards: int, idle_s: float) -> Iterator[WorkerProcess]:
    """Create topics of a prefix of their own, and yield a worker that is not started."""
    (port,) = free_ports(1)
    settings = Settings.load(
        broker=kafka.address,
        shards=shards,
        partitions=PARTITIONS,
        prefix=f"{name}.",
        datadir=folder / name,
        web_port=port,
        retention_s=0,
        watermark_idle_s=idle_s,
        log_format="json",
    )
    with admin(settings, 20.0) as client:
        create(client, Topics(settings).all())
    process = WorkerProcess(settings)
    try:
        yield process
    finally:
        if process.process is not None and process.process.poll() is None:
            process.kill()
        shutil.rmtree(folder / name, ignore_errors=True)


def read_ends(settings: Settings) -> Ends:
    """Return the alerts and outcomes on the topics."""
    topics = Topics(settings)
    ends: Ends = {json.loads(record.value)["alert"]: None for record in read_all(settings, [topics.alert.name])}
    for record in read_all(settings, [topics.outcome.name]):
        value = json.loads(record.value)
        ends[value["alert"]] = value["outcome"], value["lead_s"]
    return ends


def drained(process: WorkerProcess, timeout_s: float, still_s: float) -> None:
    """Wait until everything is processed and nothing is published any more."""
    wait_quiet(process.settings, timeout_s, still_s)


def worked(
    way: str, rows: list[Row], kafka: EmbeddedKafka, folder: Path, shards: int, rate: float, kills: int, seed: int
) -> Ends:
    """Send the events to a worker in one of the ways, and return its alerts."""
    name = f"{way.replace(' ', '-')}-{shards}-{os.getpid()}-{random.randrange(1 << 20)}"
    last = IDLE_S if way != "one by one" else NEVER_IDLE_S
    with installed(kafka, folder, name, shards, last) as process:
        if way == "at once":
            send(process.settings, rows, 0)
            process.start()
            process.wait_ready()
        elif way == "in order":
            process.start()
            process.wait_ready()
            send(process.settings, rows, rate)
        elif way == "one by one":
            _one_by_one(process, rows)
        else:
            _killed(process, rows, rate, kills, seed)
        drained(process, 900.0, IDLE_S + 4.0)
        ends = read_ends(process.settings)
        process.kill()
        return ends


def _one_by_one(process: WorkerProcess, rows: list[Row]) -> None:
    """Drain one partition after the other, then let a worker with a short idle time end the stream."""
    process.start()
    process.wait_ready()
    parts = sorted({(kind, partition) for _, kind, partition, _ in rows})
    random.Random(3).shuffle(parts)
    for part in parts:
        send(process.settings, [row for row in rows if row[1:3] == part], 0)
        drained(process, 600.0, 1.5)
    process.stop()
    process.settings = process.settings.model_copy(update={"watermark_idle_s": IDLE_S})
    process.start()
    process.wait_ready()


def _killed(process: WorkerProcess, rows: list[Row], rate: float, kills: int, seed: int) -> None:
    """Send the events while the worker is killed at random moments and started again."""
    rng = random.Random(seed)
    feeder = threading.Thread(target=send, args=(process.settings, rows, rate))
    feeder.start()
    for _ in range(kills):
        process.start()
        process.wait_ready()
        time.sleep(rng.uniform(0.1, 3.0))
        process.kill()
    process.start()
    process.wait_ready()
    feeder.join()
    wait_for(lambda: process.get("/livez")[0] == 200, 60.0, "the last worker")


WAYS = ("at once", "in order", "one by one", "killed")


def line(name: str, ends: Ends, first: Ends, seconds: float) -> dict[str, Any]:
    """Return a row of the table."""
    shared = ends.keys() & first.keys()
    return {
        "way": name,
        "alerts": len(ends),
        "confirmed": sum(end is not None and end[0] == "confirmed" for end in ends.values()),
        "expired": sum(end is not None and end[0] == "expired" for end in ends.values()),
        "missing": len(first) - len(shared),
        "more": len(ends) - len(shared),
        "other outcome": sum(ends[alert] != first[alert] for alert in shared),
        "seconds": round(seconds, 1),
    }


def show(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Print the table of one set of files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--until", default=None, help="only events up to this time")
    parser.add_argument("--shards", default="1,3,8", help="numbers of shards of the replays")
    parser.add_argument("--workers", default="1,3", help="numbers of shards of the workers; empty: replays only")
    parser.add_argument("--ways", default=",".join(WAYS), help="how the events reach the workers")
    parser.add_argument(
        "--late", default=0.0, type=float, help="replay with this part of the events up to an hour late"
    )
    parser.add_argument("--kills", default=10, type=int, help="how often the worker is killed")
    parser.add_argument("--seed", default=11, type=int, help="of the moments at which it is killed")
    parser.add_argument("--rate", default=500.0, type=float, help="events a second of the ways with a rate")
    options = parser.parse_args()
    mutations = list(event_files.mutations(*options.files, until=options.until))
    first: Ends | None = None
    show(f"{', '.join(path.name for path in options.files)}: {len(mutations):,} events")
    for shards in map(int, options.shards.split(",")):
        begin = time.monotonic()
        ends = replayed(mutations, shards)
        first = ends if first is None else first
        show(json.dumps(line(f"replay, {shards} shards", ends, first, time.monotonic() - begin)))
    assert first is not None
    if options.late:
        for delay_s in (0.0, 3_600.0):
            begin = time.monotonic()
            ends = replayed(out_of_order(mutations, options.late), 1, delay_s, SMALL_BATCH)
            way = f"replay, {options.late:.0%} late, delay {delay_s:.0f} s"
            show(json.dumps(line(way, ends, first, time.monotonic() - begin)))
    if not options.workers:
        return
    rows = rows_of(mutations)
    with (
        tempfile.TemporaryDirectory(prefix="groundswell-equality-") as folder,
        EmbeddedKafka(Path(folder) / "k") as kafka,
    ):
        for shards in map(int, options.workers.split(",")):
            for way in options.ways.split(","):
                begin = time.monotonic()
                moments = options.kills, options.seed
                ends = worked(way, rows, kafka, Path(folder), shards, options.rate, *moments)
                show(json.dumps(line(f"worker, {way}, {shards} shards", ends, first, time.monotonic() - begin)))


if __name__ == "__main__":
    main()
