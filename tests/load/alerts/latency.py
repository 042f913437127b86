"""Delay of an alert after the share that passes its boundary: `python -m tests.load.alerts.latency`.

A worker gets a history in which an author rises, in all partitions but one that stays silent after its first event.
Then one share passes the boundary. The alert must follow after the idle time of the silent partitions, and a second at
most; scores do not wait.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from streams.embedded import EmbeddedKafka
from streams.kafka.topics import Topics
from streams.messages.events import TOPIC_OF
from tests.load.alert_equality import installed
from tests.support.workers import producer, read_all, wait_for, wait_quiet

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


def main() -> None:
    """Print the delays of some alerts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--idle", type=float, default=3.0, help="GROUNDSWELL_WATERMARK_IDLE_S")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--alerts", type=int, default=8)
    options = parser.parse_args()
    delays = []
    with (
        tempfile.TemporaryDirectory(prefix="groundswell-latency-") as folder,
        EmbeddedKafka(Path(folder) / "k") as kafka,
        installed(kafka, Path(folder), "latency", options.shards, options.idle) as process,
    ):
        settings, topics = process.settings, Topics(process.settings)
        process.start()
        process.wait_ready()
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
