"""Events of a small generated stream, and a way to send them to a worker."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from streams import cli
from streams.kafka.topics import Topics
from streams.messages.events import TOPIC_OF
from streams.settings.settings import Settings
from tests.support.workers import producer

Event = dict[str, Any]
ARRAY = 100
"""Events in one message."""


def simulated(folder: Path, *options: str) -> list[Event]:
    """The events of `groundswell simulate`, in order of time."""
    path = folder / "events.jsonl"
    assert cli.run(["simulate", "--out", str(path), *options]) == 0
    return sorted((json.loads(line) for line in path.read_text().splitlines()), key=lambda event: str(event["time"]))


def send(settings: Settings, events: Iterable[Event]) -> None:
    """Send events to the first partition of their topics, some in each message."""
    topics, waiting = Topics(settings), dict[str, list[Event]]()
    with producer(settings) as sender:
        for event in events:
            kind = TOPIC_OF[event["type"]]
            waiting.setdefault(kind, []).append(event)
            if len(waiting[kind]) >= ARRAY:
                sender.send(topics.inputs[kind].name, json.dumps(waiting.pop(kind)).encode(), partition=0)
        for kind, rest in waiting.items():
            sender.send(topics.inputs[kind].name, json.dumps(rest).encode(), partition=0)
