"""The same alerts and outcomes from a file, however it reaches the shards: `python -m tests.load.alert_equality FILE…`.

Each event file is replayed with 1, 3 and 8 shards, and sent to real workers: at once; in time order at a rate;
partitions one after the other, the smallest events last; to a worker that was stopped when all partitions were idle;
and with workers killed at random moments. The table has the counts of alerts and outcomes of each way and the
differences to the first: ids, outcomes, and the texts of alerts, but for the score, which does not wait for the
watermark. Texts that differ because a content was deleted or a new sharer forgotten after the boundary are counted
apart: such a one is named no more if that was read before the judgement.
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
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

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
from tests.support.workers import WorkerProcess, producer, read_all, wait_quiet

PARTITIONS = 4
WEIGHTS = (1.0, 1.0, 1.0, 0.01)
"""Of the partitions: the last one of each topic is idle most of the time."""
HOUR_US = 3_600_000_000
SMALL_BATCH = 10
IDLE_S = 4.0
NEVER_IDLE_S = 3_600.0
READY_S = 600.0
WAITED_FOR = 0.75
"""Part of the kills after which the worker is ready before the next one; otherwise it may be killed while it starts."""
AWAY_S = 3.0
"""Maximum time for which a killed worker is away."""
OF_SCORE = ("reach", "percentile", "model")


class FiredAlert(NamedTuple):
    """An alert.

    Attributes:
        end: Outcome and lead (s), None for an alert without an outcome.
        text: Fields of its message as of its boundary.
    """

    end: tuple[str, float] | None
    text: dict[str, Any]


@dataclass
class Fired:
    """The alerts of one way.

    Attributes:
        alerts: Alerts by id.
        repeats: Messages on the topics that repeat an alert or an outcome.
        conflicts: Repeats with other fields.
    """

    alerts: dict[str, FiredAlert] = field(default_factory=dict)
    repeats: int = 0
    conflicts: int = 0

    @property
    def ends(self) -> dict[str, tuple[str, float] | None]:
        """Outcome and lead (s) by alert id."""
        return {name: alert.end for name, alert in self.alerts.items()}


def text_of(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an alert's message that do not come from a score."""
    return {name: given for name, given in value.items() if name not in OF_SCORE}


def replayed(mutations: list[Mutation], shards: int, delay_s: float = 0.0, batch: int = BATCH) -> Fired:
    """Replay events and return the alerts; `delay_s`: delay of the watermark. Within a batch no event is late."""
    artifact = Artifact.default()
    spec = graph_spec(artifact.config, retention_s=0, lateness_s=0)
    with (
        tempfile.TemporaryDirectory(prefix="groundswell-equality-") as folder,
        cluster(artifact, spec, Path(folder), shards, delay_s=delay_s) as opened,
    ):
        result = replay(opened, mutations, batch)
    outcomes = {end.alert: (end.outcome, end.lead_s) for end in result.outcomes}
    return Fired(
        {alert.alert: FiredAlert(outcomes.get(alert.alert), text_of(alert.to_json())) for alert in result.alerts}
    )


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
    """Return the events as messages, each with a random partition of its topic (`WEIGHTS`), in their order."""
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
        (time, TOPIC_OF[event["type"]], rng.choices(range(PARTITIONS), WEIGHTS)[0], json.dumps(event).encode())
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


def read_fired(settings: Settings) -> Fired:
    """Return the alerts and outcomes on the topics."""
    topics, fired = Topics(settings), Fired()
    messages: list[dict[str, dict[str, Any]]] = []
    for topic in (topics.alert.name, topics.outcome.name):
        first: dict[str, dict[str, Any]] = {}
        for record in read_all(settings, [topic]):
            value = text_of(json.loads(record.value))
            fired.repeats += value["alert"] in first
            fired.conflicts += first.setdefault(value["alert"], value) != value
        messages.append(first)
    alerts, outcomes = messages
    for name, value in alerts.items():
        end = outcomes.pop(name, None)
        fired.alerts[name] = FiredAlert((end["outcome"], end["lead_s"]) if end else None, value)
    assert not outcomes, "outcomes without an alert"
    return fired


def drained(process: WorkerProcess, timeout_s: float, still_s: float) -> None:
    """Wait until everything is processed and nothing is published any more."""
    wait_quiet(process.settings, timeout_s, still_s)


@dataclass(frozen=True)
class Trouble:
    """How workers are killed.

    Attributes:
        processes: Number of worker processes; each kill takes one of them.
        kills: Number of kills.
        seed: Seed of the moments and of who is killed.
    """

    processes: int
    kills: int
    seed: int


def worked(
    way: str, rows: list[Row], kafka: EmbeddedKafka, folder: Path, shards: int, rate: float, trouble: Trouble
) -> Fired:
    """Send the events to workers in one of the ways, and return their alerts."""
    name = f"{way.replace(' ', '-')}-{shards}-{os.getpid()}-{random.randrange(1 << 20)}"
    last = IDLE_S if way != "one by one" else NEVER_IDLE_S
    with installed(kafka, folder, name, shards, last) as process:
        if way == "at once":
            send(process.settings, rows, 0)
            process.start()
            process.wait_ready(READY_S)
        elif way == "in order":
            process.start()
            process.wait_ready(READY_S)
            send(process.settings, rows, rate)
        elif way == "one by one":
            _one_by_one(process, rows)
        elif way == "after a stop":
            _after_a_stop(process, rows)
        else:
            _killed(process, rows, rate, trouble)
        drained(process, 900.0, IDLE_S + 4.0)
        fired = read_fired(process.settings)
        process.kill()
        return fired


def _one_by_one(process: WorkerProcess, rows: list[Row]) -> None:
    """Drain one partition after the other, then let a worker with a short idle time end the stream."""
    process.start()
    process.wait_ready(READY_S)
    parts = sorted({(kind, partition) for _, kind, partition, _ in rows})
    random.Random(3).shuffle(parts)
    for part in parts:
        send(process.settings, [row for row in rows if row[1:3] == part], 0)
        drained(process, 600.0, 1.5)
    process.stop()
    process.settings = process.settings.model_copy(update={"watermark_idle_s": IDLE_S})
    process.start()
    process.wait_ready(READY_S)


def _after_a_stop(process: WorkerProcess, rows: list[Row]) -> None:
    """Stop the worker after a part of the events, when all partitions are idle; it finds the others when it is back."""
    first = len(rows) // 10
    process.start()
    process.wait_ready(READY_S)
    send(process.settings, rows[:first], 0)
    drained(process, 600.0, IDLE_S + 4.0)
    process.stop()
    send(process.settings, rows[first:], 0)
    process.start()
    process.wait_ready(READY_S)


def _killed(process: WorkerProcess, rows: list[Row], rate: float, trouble: Trouble) -> None:
    """Send the events in portions; during each of them a worker is killed at a random moment, and started again."""
    rng = random.Random(trouble.seed)
    size = len(rows) // trouble.kills + 1
    with ExitStack() as stack:
        team = [process]
        for number, port in enumerate(free_ports(trouble.processes - 1)):
            own = {"datadir": Path(f"{process.settings.datadir}-{number}"), "web_port": port}
            team.append(WorkerProcess(process.settings.model_copy(update=own)))
        for one in team:
            one.start()
        for one in team[1:]:
            stack.callback(one.kill)
        for one in team:
            one.wait_ready(READY_S)
        for first in range(0, len(rows), size):
            feeder = threading.Thread(target=send, args=(process.settings, rows[first : first + size], rate))
            feeder.start()
            time.sleep(rng.uniform(0.0, size / rate))
            victim = rng.choice(team)
            victim.kill()
            time.sleep(rng.uniform(0.0, AWAY_S))
            victim.start()
            feeder.join()
            if rng.random() < WAITED_FOR:
                victim.wait_ready(READY_S)
        for one in team:
            one.wait_ready(READY_S)
        drained(process, 900.0, IDLE_S + 4.0)


WAYS = ("at once", "in order", "one by one", "after a stop", "killed")


def erased(mutations: list[Mutation]) -> frozenset[str]:
    """Return the contents and users that are deleted or forgotten at some time."""
    return frozenset(
        mutation.user if mutation.kind == Kind.FORGET else mutation.other
        for mutation in mutations
        if mutation.kind in (Kind.DELETE, Kind.FORGET)
    )


def differing(text: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names of the fields that differ."""
    return [name for name in text.keys() | other.keys() if text.get(name) != other.get(name)]


def of_erased(text: Mapping[str, Any], other: Mapping[str, Any], gone: frozenset[str]) -> bool:
    """Return whether two texts differ only where one of them names what is erased."""
    fields = differing(text, other)
    named = {
        name
        for given in (text, other)
        for name in ([given.get("content")] if {"content", "topics"}.intersection(fields) else [])
        + (given.get("sharers", []) if "sharers" in fields else [])
    }
    return {"content", "topics", "sharers"}.issuperset(fields) and not gone.isdisjoint(named)


def line(name: str, fired: Fired, first: Fired, seconds: float, gone: frozenset[str]) -> dict[str, Any]:
    """Return a row of the table; gone: contents and users that are erased."""
    shared = fired.alerts.keys() & first.alerts.keys()
    texts = [(fired.alerts[alert].text, first.alerts[alert].text) for alert in shared]
    texts = [(text, other) for text, other in texts if text != other]
    of_gone = sum(of_erased(text, other, gone) for text, other in texts)
    kinds = [end[0] for end in fired.ends.values() if end is not None]
    return {
        "way": name,
        "alerts": len(fired.alerts),
        "confirmed": kinds.count("confirmed"),
        "expired": kinds.count("expired"),
        "missing": len(first.alerts) - len(shared),
        "more": len(fired.alerts) - len(shared),
        "other outcome": sum(fired.alerts[alert].end != first.alerts[alert].end for alert in shared),
        "other text": len(texts) - of_gone,
        "erased since": of_gone,
        "fields": dict(Counter(chain.from_iterable(differing(text, other) for text, other in texts))),
        "repeats": fired.repeats,
        "conflicts": fired.conflicts,
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
    parser.add_argument("--kills", default=10, type=int, help="how often a worker is killed")
    parser.add_argument("--seed", default=11, type=int, help="of the moments at which one is killed")
    parser.add_argument("--processes", default=1, type=int, help="worker processes of the way with kills")
    parser.add_argument("--rate", default=500.0, type=float, help="events a second of the ways with a rate")
    options = parser.parse_args()
    mutations = list(event_files.mutations(*options.files, until=options.until))
    first: Fired | None = None
    gone = erased(mutations)
    show(f"{', '.join(path.name for path in options.files)}: {len(mutations):,} events")
    for shards in map(int, options.shards.split(",")):
        begin = time.monotonic()
        fired = replayed(mutations, shards)
        first = fired if first is None else first
        show(json.dumps(line(f"replay, {shards} shards", fired, first, time.monotonic() - begin, gone)))
    assert first is not None
    if options.late:
        for delay_s in (0.0, 3_600.0):
            begin = time.monotonic()
            fired = replayed(out_of_order(mutations, options.late), 1, delay_s, SMALL_BATCH)
            way = f"replay, {options.late:.0%} late, delay {delay_s:.0f} s"
            show(json.dumps(line(way, fired, first, time.monotonic() - begin, gone)))
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
                trouble = Trouble(options.processes, options.kills, options.seed)
                fired = worked(way, rows, kafka, Path(folder), shards, options.rate, trouble)
                row = line(f"worker, {way}, {shards} shards", fired, first, time.monotonic() - begin, gone)
                show(json.dumps(row))


if __name__ == "__main__":
    main()
