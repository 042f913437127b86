"""Freshness measured independently of the worker, from Kafka's log.

An event is accepted at the timestamp of its message. Its answer is the score of the acting user as of the event's time,
published in the step that processed the event: a score's id contains the offset in the mutations log where its step
ended, and the packs in that log name the messages that they were made from. The broker writes when the score was
appended (`log_append_time`). A score that changed too little is not published, so some events have no answer.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as Part
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from graphstate.types import GraphSpec
from streams.kafka.topics import Topics, admin
from streams.messages.files.event_files import time_us
from streams.messages.packs.mutation_packs import unpack
from streams.messages.packs.topic_identity import source_partition
from streams.settings.connection import aiokafka_arguments, kafka_arguments
from streams.settings.settings import Settings

MANY = 150_000
"""Maximum number of score records to read; above it only some partitions are read, a random part of the users."""
APPENDED = 1
"""A record's timestamp_type where the broker set the timestamp."""
TICK_US = GraphSpec().tick_s * 1_000_000
QUANTILES = (0.5, 0.99, 0.999)

Span = Mapping[Any, tuple[int, int]]
"""By partition: the first offset, and the one behind the last."""


class _Event(msgspec.Struct):
    time: float
    user: str


class _Score(msgspec.Struct):
    as_of: str


_event = msgspec.json.Decoder(_Event, strict=False).decode
_score = msgspec.json.Decoder(_Score).decode


class Asked(NamedTuple):
    """An event: acting user, event time (µs), when Kafka accepted it (ms), and the position of its message."""

    user: bytes
    time: int
    accepted_ms: int
    source: str
    offset: int


class Published(NamedTuple):
    """A score: its user, as of when (µs), when it was appended (ms), and where its step ended in the mutations log."""

    user: bytes
    as_of: int
    appended_ms: int
    step: int


@dataclass
class Answers:
    """Seconds per answered event for a part of the users. events: number of events, answered or not."""

    seconds: list[float]
    events: int

    def quantiles_ms(self) -> list[float | None]:
        """The quantiles `QUANTILES` in milliseconds."""
        return [round(float(np.quantile(self.seconds, q)) * 1e3, 1) if self.seconds else None for q in QUANTILES]


def matched(asked: Iterable[Asked], packed: Mapping[tuple[str, int], int], published: Iterable[Published]) -> Answers:
    """Match each event with the score that answers it.

    Args:
        asked: the events.
        packed: offset of the pack, by source and offset of the message.
        published: scores, in log order per user.

    Raises:
        RuntimeError: No event is in a pack, so the names of the sources differ.
    """
    scores, events = list(published), list(asked)
    if packed and events and not any((event.source, event.offset) in packed for event in events):
        raise RuntimeError(f"no event is in a pack: events of {events[0].source}, packs of {next(iter(packed))[0]}")
    steps = sorted({score.step for score in scores})
    first: dict[tuple[bytes, int], Published] = {}
    for score in scores:
        first.setdefault((score.user, score.as_of), score)
    seconds = []
    for event in events:
        answer = first.get((event.user, event.time))
        pack = packed.get((event.source, event.offset))
        # At a tick every score is as of the tick's time, whether or not the user acted.
        if answer is None or pack is None or event.time % TICK_US == 0:
            continue
        at = bisect_left(steps, answer.step)
        # A score that changed too little in its step may be published by a later step, for another reason.
        if pack < answer.step and (at == 0 or pack >= steps[at - 1]):
            seconds.append(max(0, answer.appended_ms - event.accepted_ms) / 1e3)
    return Answers(seconds, len(events))


def stamp_scores(settings: Settings) -> None:
    """Configure the score topic so that the broker writes when each score was appended."""
    name = Topics(settings).score.name
    change = {"message.timestamp.type": "LogAppendTime"}
    with admin(settings, 20.0) as client:
        client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=change)])


def ends(settings: Settings) -> dict[TopicPartition, int]:
    """End offsets of the topics of inputs, mutations and scores."""
    topics = Topics(settings)
    consumer = KafkaConsumer(**kafka_arguments(settings))
    try:
        specs = [*topics.inputs.values(), topics.mutations, topics.score]
        parts = [TopicPartition(spec.name, number) for spec in specs for number in range(spec.partitions)]
        found: dict[TopicPartition, int] = consumer.end_offsets(parts)
        return found
    finally:
        consumer.close()


def answers(settings: Settings, begin: Mapping[TopicPartition, int], end: Mapping[TopicPartition, int]) -> Answers:
    """Answers to the events between two results of `ends`; `end` was taken when all of them were answered."""
    topics = Topics(settings)
    score, inputs = topics.score.name, {spec.name for spec in topics.inputs.values()}
    chosen, count = set[int](), 0
    for part in sorted(end, key=lambda part: int(part.partition)):
        if part.topic == score and (not chosen or count + end[part] - begin[part] <= MANY):
            chosen.add(part.partition)
            count += end[part] - begin[part]
    # Topics keyed by user have the same user in the same partition.
    span = {
        part: (begin[part], end[part])
        for part in end
        if end[part] > begin[part] and (part.topic == topics.mutations.name or part.partition in chosen)
    }
    records = asyncio.run(_read(settings, span))
    packed = dict(
        pair for part, some in records.items() if part.topic == topics.mutations.name for pair in _packs(some)
    )
    asked = [one for part, some in records.items() if part.topic in inputs for one in map(_asked, some)]
    published = [one for part, some in records.items() if part.topic == score for one in map(_published, some) if one]
    return matched(asked, packed, published)


async def _read(settings: Settings, span: Span) -> dict[Any, list[Any]]:
    """Read every record of these spans."""
    consumer = AIOKafkaConsumer(**aiokafka_arguments(settings), group_id=None)
    span = {Part(*part): offsets for part, offsets in span.items()}
    found: dict[Any, list[Any]] = {part: [] for part in span}
    await consumer.start()
    try:
        consumer.assign(list(span))
        for part, (first, _) in span.items():
            consumer.seek(part, first)
        open_ = set(span)
        while open_:
            for part, records in (await consumer.getmany(*open_, timeout_ms=500)).items():
                found[part] += (record for record in records if record.offset < span[part][1])
            for part in list(open_):
                if await consumer.position(part) >= span[part][1]:
                    open_.discard(part)
    finally:
        await consumer.stop()
    return found


def _packs(records: Iterable[Any]) -> Iterator[tuple[tuple[str, int], int]]:
    for record in records:
        for segment in unpack(record.value).segments:
            for offset in segment.offsets.tolist():
                yield (source_partition(segment.source), offset), record.offset


def _asked(record: Any) -> Asked:
    event = _event(record.value)
    return Asked(
        record.key, round(event.time * 1e6), record.timestamp, f"{record.topic}:{record.partition}", record.offset
    )


def _published(record: Any) -> Published | None:
    """Decode a score record; None for a tombstone."""
    if record.value is None:
        return None
    if record.timestamp_type != APPENDED:
        raise RuntimeError(f"{record.topic} has timestamps of the producer, not of the broker; call stamp_scores first")
    origin = dict(record.headers)["ce_id"].split(b"/")[0]
    as_of = time_us(_score(record.value).as_of)
    return Published(record.key, as_of, record.timestamp, int(origin.rpartition(b"-")[2]))
