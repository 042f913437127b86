"""Process that sends a stream at a rate: `python -m tests.load.feed ADDRESS STREAM ...`.

It prints one JSON object at its end: the number of events that Kafka acknowledged, and the seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from aiokafka import AIOKafkaProducer

from streams.kafka.batches import publish
from streams.kafka.topics import Topics
from streams.messages.outputs import Message
from streams.settings.connection import aiokafka_arguments
from streams.settings.settings import Settings
from tests.load.events import STREAMS, Sent

BEAT_S = 0.02
CHUNK = 5_000
IN_FLIGHT = 4
BATCH_BYTES = 256 * 1024


async def send(settings: Settings, events: Iterator[Sent], rate: float, count: int, seconds: float) -> dict[str, Any]:
    """Send until the count or the time is reached (0: no limit); rate 0: as fast as Kafka accepts."""
    topics = Topics(settings)
    client = AIOKafkaProducer(**aiokafka_arguments(settings), acks="all", max_batch_size=BATCH_BYTES)
    await client.start()
    begin, sent, waiting = time.monotonic(), 0, set[asyncio.Task[int]]()

    async def some(chunk: list[Sent]) -> int:
        by_kind: dict[Any, list[Message]] = {}
        for kind, key, value in chunk:
            by_kind.setdefault(kind, []).append(Message(key, value, []))
        for kind, messages in by_kind.items():
            await publish(client, topics.inputs[kind], messages, time.time_ns() // 1_000_000)
        return len(chunk)

    try:
        while True:
            passed = time.monotonic() - begin
            due = CHUNK if not rate else min(CHUNK, int(passed * rate) - sent)
            if count:
                due = min(due, count - sent)
            if (count and sent >= count) or (seconds and passed >= seconds):
                break
            if due <= 0:
                await asyncio.sleep(BEAT_S)
                continue
            sent += due
            waiting.add(asyncio.create_task(some(list(islice(events, due)))))
            await asyncio.sleep(0)
            while len(waiting) >= IN_FLIGHT:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        await asyncio.gather(*waiting)
    finally:
        await client.stop()
    return {"events": sent, "seconds": round(time.monotonic() - begin, 3)}


def main() -> None:
    """Send, and print what was sent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("stream", choices=STREAMS)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    settings = Settings.load(broker=given.address)
    events = STREAMS[given.stream](given.seed, given.first)
    done = asyncio.run(send(settings, events, given.rate, given.count, given.seconds))
    sys.stdout.write(json.dumps(done) + "\n")


if __name__ == "__main__":
    main()
