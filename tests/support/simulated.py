"""Events of a small generated stream, and a way to send them to a worker."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any

from streams import cli
from streams.kafka.topics import Topics
from streams.messages.events import TOPIC_OF
from streams.settings.settings import Settings
from tests.support.workers import producer

Event = dict[str, Any]
SLICE, PAUSE_S = 200, 0.1
"""Events sent at once, and the pause after them: posts that open and close in one micro-batch have no live figures."""


def simulated(folder: Path, *options: str) -> list[Event]:
    """The events of `groundswell simulate`, in order of time."""
    path = folder / "events.jsonl"
    assert cli.run(["simulate", "--out", str(path), *options]) == 0
    return sorted((json.loads(line) for line in path.read_text().splitlines()), key=lambda event: float(event["time"]))


def send(settings: Settings, events: Iterable[Event]) -> None:
    """Send events to the first partition of their topics, some in each message."""
    topics = Topics(settings)
    with producer(settings) as sender:
        for part in batched(events, SLICE):
            by_kind: dict[Any, list[Event]] = {}
            for event in part:
                by_kind.setdefault(TOPIC_OF[event["type"]], []).append(event)
            for kind, some in by_kind.items():
                sender.send(topics.inputs[kind].name, json.dumps(some).encode(), partition=0)
            sender.flush()
            time.sleep(PAUSE_S)


@contextmanager
def repeated(action: Callable[[], object], each_s: float) -> Iterator[None]:
    """Repeat an action on a thread until the end of the block."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(each_s):
            action()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


@contextmanager
def trickle(settings: Settings, after_s: float, each_s: float = 0.2) -> Iterator[None]:
    """Send a share every so often, with rising times, until the end of the block.

    Args:
        settings: the topics.
        after_s: the first time, in Unix seconds.
        each_s: the pause.
    """
    numbers = count()

    def one() -> None:
        number = next(numbers)
        event = {
            "type": "share",
            "time": after_s + number + 1,
            "user": f"t{number % 50}",
            "content": f"t{number // 50}",
        }
        send(settings, [event])

    with repeated(one, each_s):
        yield


def batched(events: Iterable[Event], size: int) -> Iterator[list[Event]]:
    """The events in lists of this size."""
    remaining = iter(events)
    while part := list(islice(remaining, size)):
        yield part
