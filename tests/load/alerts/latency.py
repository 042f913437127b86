"""Delay of an alert after the share that passes its boundary: `python -m tests.load.alerts.latency`.

A worker gets a history in which an author rises, in all partitions but one that stays silent after its first event.
Then one share passes the boundary. The alert must follow after the idle time of the silent partitions, and a second at
most. Scores do not wait: their freshness is measured while a silent partition holds the watermark back, and while all
partitions move, in turns.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from streams.embedded import EmbeddedKafka
from streams.kafka.topics import Topics
from streams.messages.events import TOPIC_OF
from streams.worker.web.feed import quantile_ms
from tests.load.alert_equality import NEVER_IDLE_S, PARTITIONS, READY_S, installed
from tests.support.workers import WorkerProcess, producer, read_all, wait_for, wait_quiet

STEP_S = 6 * 3_600
BEGIN_S = 1_772_366_400 // STEP_S * STEP_S


def events(number: int) -> list[dict[str, Any]]:
    """Return a rise of one author within the step before boundary `number`, and an event that passes nothing yet."""
    begin = BEGIN_S + (number - 1) * STEP_S
    author, content = f"author{number}", f"post{number}"
    found: list[dict[str, Any]] = [{"type": "create", "time": begin + 60, "user": author, "content": content}]
    found += [
        {"type": "share", "time": begin + 120 + k, "user": f"u{number}-{k}", "content": content} for k in range(6)
    ]
    return found


def freshness(process: WorkerProcess, rate: float, seconds: float, rounds: int) -> dict[str, list[float | None]]:
    """Return the median freshness (ms) of each round, with the watermark held back and moving."""
    settings, topics, number = process.settings, Topics(process.settings), 0
    found: dict[str, list[float | None]] = {"held back": [], "moving": []}
    for turn in range(2 * rounds):
        held = turn % 2 == 0
        before, begin = _buckets(process), time.monotonic()
        with producer(settings) as sender:
            for sent in range(int(rate * seconds)):
                time.sleep(max(0.0, begin + sent / rate - time.monotonic()))
                number += 1
                event = {"type": "share", "time": BEGIN_S + number, "user": f"f{number % 500}", "content": f"c{number}"}
                kinds = [spec.name for spec in topics.inputs.values()]
                # Other types of events keep their partitions moving, if they are to move.
                sender.send(topics.share.name, json.dumps(event).encode(), partition=number % (3 if held else 4))
                if not held and sent % 20 == 0:
                    _move(sender, kinds, BEGIN_S + number)
        wait_quiet(settings, 60.0, 1.0)
        found["held back" if held else "moving"].append(quantile_ms(_buckets(process) - before, 0.5))
    return found


def _move(sender: Any, names: list[str], at_s: int) -> None:
    """Send an event to every partition of every topic."""
    for name in names:
        kind = next(kind for kind in ("follow", "share", "create") if kind in name)
        for partition in range(PARTITIONS):
            event = {"type": kind, "time": at_s, "user": "m", "target": "n", "content": f"m{at_s}"}
            sender.send(name, json.dumps(event).encode(), partition=partition)


def _buckets(process: WorkerProcess) -> Any:
    """Return the cumulative counts of the histogram of freshness."""
    text = process.get("/metrics")[1].decode()
    found = re.findall(r"^groundswell_freshness_seconds_bucket\{[^}]*\} (\S+)$", text, re.MULTILINE)
    return np.array(found, float)


def main() -> None:
    """Print the delays of some alerts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--idle", type=float, default=3.0, help="GROUNDSWELL_WATERMARK_IDLE_S")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--alerts", type=int, default=8)
    parser.add_argument("--freshness", type=int, default=0, help="rounds of the measurement of freshness instead")
    options = parser.parse_args()
    if options.freshness:
        with (
            tempfile.TemporaryDirectory(prefix="groundswell-latency-") as folder,
            EmbeddedKafka(Path(folder) / "k") as kafka,
            installed(kafka, Path(folder), "freshness", options.shards, NEVER_IDLE_S) as process,
        ):
            process.start()
            process.wait_ready(READY_S)
            medians = freshness(process, 200.0, 10.0, options.freshness)
        sys.stdout.write(json.dumps({"freshness_p50_ms": medians}) + "\n")
        return
    delays = []
    with (
        tempfile.TemporaryDirectory(prefix="groundswell-latency-") as folder,
        EmbeddedKafka(Path(folder) / "k") as kafka,
        installed(kafka, Path(folder), "latency", options.shards, options.idle) as process,
    ):
        settings, topics = process.settings, Topics(process.settings)
        process.start()
        process.wait_ready(READY_S)
        for number in range(1, options.alerts + 1):
            with producer(settings) as sender:
                for place, event in enumerate(events(number)):
                    name = topics.inputs[TOPIC_OF[event["type"]]].name
                    sender.send(name, json.dumps(event).encode(), partition=place % 4)
            wait_quiet(settings, 60.0, 1.0)
            # The quietest partition has its last event now; the share that passes the boundary comes on another.
            with producer(settings) as sender:
                quiet = {"type": "share", "time": BEGIN_S + number * STEP_S - 5, "user": "q", "content": "other"}
                sender.send(topics.share.name, json.dumps(quiet).encode(), partition=0)
                last = {**quiet, "time": BEGIN_S + number * STEP_S + 5}
                sender.send(topics.share.name, json.dumps(last).encode(), partition=1)
            begin = time.monotonic()
            want = f"author{number}"

            def fired(want: str = want) -> bool:
                return any(
                    json.loads(record.value)["user"] == want for record in read_all(settings, [topics.alert.name])
                )

            wait_for(fired, options.idle + 60.0, f"the alert of {want}")
            delays.append(round(time.monotonic() - begin, 2))
    result = {
        "idle_s": options.idle,
        "shards": options.shards,
        "delays_s": delays,
        "most_beyond_idle_s": max(delays) - options.idle,
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
