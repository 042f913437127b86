"""Topics and communities end to end against a naive count: `python -m tests.load.topic_counts FILE --shards 3`.

The events of a file go through Kafka and a worker. What is on `influence.topic.v1` then, and what the worker answers
about users, contents and topics, is compared with counts from the rows of the file, made without any code of the graph.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow.parquet

from model.artifact import Artifact
from streams.embedded import EmbeddedKafka
from streams.kafka.topics import Topics
from streams.messages.events import TOPIC_OF
from streams.settings.settings import Settings
from tests.load.alert_equality import PARTITIONS, installed, send
from tests.support.workers import WorkerProcess, read_all, wait_quiet

Pair = tuple[str, str]
TOPICS = 8
SHOWN = 20
SAMPLE = 500
SECOND = 1_000_000


@dataclass
class Counts:
    """What the rows of a file define.

    Attributes:
        pairs: Posts and sharers within the horizon by topic and user.
        communities: Posts by community, by user.
        contents: Creator, community, topics and sharers by content.
    """

    pairs: dict[Pair, tuple[int, int]] = field(default_factory=dict)
    communities: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    contents: dict[str, tuple[str, str | None, list[str], int]] = field(default_factory=dict)


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def counted(rows: list[dict[str, Any]], horizon_s: float) -> Counts:
    """Count rows naively: what a user did up to a forget does not count, a delete does."""
    deleted: dict[str, float] = {}
    forgotten: dict[str, float] = {}
    unshared: dict[Pair, float] = {}
    for row in rows:
        if row["type"] == "delete":
            deleted[row["content"]] = max(row["time"], deleted.get(row["content"], -1.0))
        if row["type"] == "forget":
            forgotten[row["user"]] = max(row["time"], forgotten.get(row["user"], -1.0))
        if row["type"] == "unshare":
            pair = row["user"], row["content"]
            unshared[pair] = max(row["time"], unshared.get(pair, -1.0))
    creates: dict[str, dict[str, Any]] = {}
    shares: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        content = row.get("content")
        if content is None or row["time"] <= max(deleted.get(content, -1.0), forgotten.get(row["user"], -1.0)):
            continue
        if row["type"] == "create":
            first = creates.get(content)
            if first is None or (row["time"], row["user"]) < (first["time"], first["user"]):
                creates[content] = row
        if row["type"] == "share" and row["time"] > unshared.get((row["user"], content), -1.0):
            shares[content][row["user"]] = min(row["time"], shares[content].get(row["user"], row["time"]))
    counts = Counts()
    for content, create in creates.items():
        topics = list(dict.fromkeys(create.get("topics") or ()))[:TOPICS]
        times = shares[content].values()
        reach = sum(time <= create["time"] + horizon_s for time in times)
        counts.contents[content] = create["user"], create.get("community"), topics, len(times)
        for topic in topics:
            posts, total = counts.pairs.get((topic, create["user"]), (0, 0))
            counts.pairs[topic, create["user"]] = posts + 1, total + reach
        if create.get("community"):
            counts.communities[create["user"]][create["community"]] += 1
    return counts


def on_topic(settings: Settings) -> dict[Pair, tuple[int, int]]:
    """Return posts and sharers of the newest message of each key."""
    values: dict[bytes, bytes | None] = {}
    records = read_all(settings, [Topics(settings).topic.name])
    for record in sorted(records, key=lambda record: (record.partition, record.offset)):
        values[record.key] = record.value
    read = [json.loads(value) for value in values.values() if value is not None]
    say(f"{len(records):,} messages on {Topics(settings).topic.name}, {len(read):,} keys with a value")
    return {(one["topic"], one["user"]): (one["posts"], one["sharers"]) for one in read}


def differences(process: WorkerProcess, counts: Counts) -> dict[str, tuple[int, int]]:
    """Return how many values were compared and how many differ, by what they are."""

    def get(path: str) -> Any:
        status, body = process.get(path)
        return json.loads(body) if status == 200 else {"error": body}

    found = on_topic(process.settings)
    keys = found.keys() | counts.pairs.keys()
    results = {"pairs on influence.topic.v1": (len(keys), sum(found.get(k) != counts.pairs.get(k) for k in keys))}
    users, wrong = sorted(counts.communities), 0
    for user in users:
        ordered = sorted(counts.communities[user].items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
        answer = get(f"/api/v1/users/{quote(user, safe='')}").get("communities")
        wrong += answer != [{"community": name, "posts": posts} for name, posts in ordered]
    results["users with communities of /api/v1/users/{id}"] = len(users), wrong
    sample, wrong = random.Random(1).sample(sorted(counts.contents), min(SAMPLE, len(counts.contents))), 0
    for content in sample:
        answer = get(f"/api/v1/contents/{quote(content, safe='')}")
        answered = tuple(answer.get(name) for name in ("user", "community", "topics", "sharers"))
        wrong += answered != counts.contents[content]
    results["contents of /api/v1/contents/{id}"] = len(sample), wrong
    by_topic: dict[str, dict[str, int]] = defaultdict(dict)
    for (topic, user), (posts, _) in counts.pairs.items():
        by_topic[topic][user] = posts
    largest, wrong = sorted(by_topic, key=lambda topic: (-len(by_topic[topic]), topic))[:50], 0
    for topic in largest:
        answer = get(f"/api/v1/top?topic={quote(topic, safe='')}&limit=1000")["top"]
        wrong += {one["user"]: one["topic_posts"] for one in answer} != by_topic[topic]
    results["topics of /api/v1/top?topic="] = len(largest), wrong
    return results


def main() -> int:
    """Run the comparison; exit code 1 if anything differs."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("file", type=Path)
    arguments.add_argument("--shards", type=int, default=3)
    given = arguments.parse_args()
    table = pyarrow.parquet.read_table(given.file).to_pylist()
    rows = [{name: value for name, value in row.items() if value is not None} for row in table]
    for row in rows:
        row["time"] = row["time"].timestamp() if hasattr(row["time"], "timestamp") else float(row["time"])
        row |= {
            name: str(row[name])
            for name in ("user", "content", "target", "community", "via", "reply_to")
            if name in row
        }
    counts = counted(rows, Artifact.default().config.horizon_s)
    say(f"{len(rows):,} events: {dict(Counter(row['type'] for row in rows))}")
    say(
        f"{len(counts.pairs):,} pairs of {len({t for t, _ in counts.pairs}):,} topics and "
        f"{len({u for _, u in counts.pairs}):,} users; "
        f"{sum(map(len, counts.communities.values())):,} pairs of user and community"
    )
    rng = random.Random(7)
    messages = [(0, TOPIC_OF[row["type"]], rng.randrange(PARTITIONS), json.dumps(row).encode()) for row in rows]
    with (
        EmbeddedKafka() as kafka,
        tempfile.TemporaryDirectory(prefix="groundswell-topics-") as folder,
        installed(kafka, Path(folder), "topics", given.shards, 4.0) as process,
    ):
        process.start()
        process.wait_ready()
        begin = time.monotonic()
        send(process.settings, messages, 0)
        wait_quiet(process.settings, 600, 6)
        say(f"processed within {time.monotonic() - begin:.0f} s, {given.shards} shards")
        results = differences(process, counts)
        process.stop()
    for name, (compared, wrong) in results.items():
        say(f"{name}: {compared:,} compared, {wrong:,} differ")
    return int(any(wrong for _, wrong in results.values()))


if __name__ == "__main__":
    sys.exit(main())
