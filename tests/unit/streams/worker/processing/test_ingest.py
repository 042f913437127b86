"""The ingest agent without a broker."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable
from random import Random
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from faust.types import TP

from graphstate.types import Kind, Mutation
from streams.errors import BadEvent
from streams.kafka.consumer.poll_queue import INPUTS, Poll
from streams.kafka.leased_client import LEASE_OVER, Refused
from streams.kafka.topics import Topics
from streams.messages.events import TopicKind, mutations
from streams.messages.headers import ERRORS
from streams.messages.packs.mutation_packs import messages, unpack
from streams.settings.settings import Settings
from streams.shard.routing import concerned
from streams.telemetry.metrics import Metrics
from streams.worker.processing import ingest as ingest_module
from streams.worker.processing.dead_letters import DeadLetters
from streams.worker.processing.ingest import Ingest
from streams.worker.processing.source_clock import SourceClock
from tests.support.processing import Record

NOW_MS = 1_714_564_800_000


def test_a_refused_poll_leaves_no_letters(offline_settings: Settings) -> None:
    """A poll that was refused is read again; its invalid messages become one dead letter each."""
    letters: list[bytes] = []
    completed: list[Poll] = []
    refusals = [Refused(LEASE_OVER), Refused(LEASE_OVER)]

    async def letter(_topic: str, _key: bytes | None, value: bytes, _headers: object) -> asyncio.Future[object]:
        letters.append(value)
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    async def send(*_about: Any, **_named: Any) -> asyncio.Future[object]:
        if refusals:
            raise refusals.pop()
        future = asyncio.get_running_loop().create_future()
        future.set_result(SimpleNamespace(offset=0))
        return future

    async def run() -> None:
        topics, producer = Topics(offline_settings), SimpleNamespace(client=SimpleNamespace(send=send))
        consumer: Any = SimpleNamespace(is_current=lambda _poll: True, complete_poll=completed.append)
        ingest = Ingest(topics, consumer, producer, DeadLetters(letter, Metrics(), 3), Metrics(), SourceClock(10, 0))  # type: ignore[arg-type]
        name = topics.share.name
        poll = Poll(INPUTS, 1, 1)
        good = b'{"type":"share","time":1714564800,"user":"ann","content":"c"}'
        poll.add(TP(name, 0), [Record(0, good, name), Record(1, b"{", name), Record(2, b"[", name)], 3)
        for _ in range(2):
            with pytest.raises(Refused):
                await ingest.handle(poll)
        assert completed == []
        assert await ingest.handle(poll)
        assert completed == [poll]

    asyncio.run(run())
    assert letters == [b"{", b"["]


@pytest.mark.parametrize("shards", [1, 3])
def test_packs_have_what_concerns_each_shard(
    offline_settings: Settings, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    """Every message is packed for the owners of its nodes with its source, offset and time, in order."""
    monkeypatch.setattr(ingest_module, "SLICE", 40)
    topics = Topics(offline_settings.model_copy(update={"shards": shards}))
    chance, letters = Random(shards), list[tuple[str, int]]()
    packs: dict[int, list[bytes]] = {shard: [] for shard in range(shards)}
    poll, expected = Poll(INPUTS, 1, 1), defaultdict[int, list[tuple[str, int, int, list[Mutation]]]](list)
    invalid: list[tuple[str, int]] = []
    counts = Counter[int]()
    for topic in ("share", "follow", "create"):
        name = topics.inputs[topic].name
        for partition in range(2):
            records = []
            for offset in range(0, 150, 1 + partition):
                value = message(chance, topic)
                records.append(Record(offset, value, name, partition, timestamp=NOW_MS + offset))
                try:
                    found = mutations(value, topic, NOW_MS + offset)
                except BadEvent as bad:
                    invalid.append((name, offset))
                    found = bad.good
                counts.update(one.kind for one in found if topic != "share" or one.kind != Kind.CREATE)
                for shard in range(shards):
                    own = [one for one in found if shard in concerned(one, shards)]
                    if own:
                        expected[shard].append((f"{name}#id:{partition}", offset, NOW_MS + offset, own))
            poll.add(TP(name, partition), records, 150)

    async def acknowledged(*_about: object) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        future.set_result(SimpleNamespace(offset=0))
        return future

    async def letter(_topic: str, _key: bytes | None, _value: bytes, headers: Any) -> asyncio.Future[object]:
        about = dict(headers)
        letters.append((about[f"{ERRORS}topic"].decode(), int(about[f"{ERRORS}offset"])))
        return await acknowledged()

    async def send(_topic: str, value: bytes, *, partition: int) -> asyncio.Future[Any]:
        packs[partition].append(value)
        return await acknowledged()

    async def run() -> Metrics:
        metrics, producer = Metrics(), SimpleNamespace(client=SimpleNamespace(send=send))
        consumer: Any = SimpleNamespace(is_current=lambda _poll: True, complete_poll=lambda _poll: None)
        ingest = Ingest(topics, consumer, producer, DeadLetters(letter, metrics, 1_000), metrics, SourceClock(10, 0))  # type: ignore[arg-type]
        ingest.sources = {tp: f"{tp.topic}#id:{tp.partition}" for tp in poll.parts}
        assert await ingest.handle(poll)
        return metrics

    metrics = asyncio.run(run())
    assert len(invalid) > 20
    assert letters == invalid
    for shard, values in packs.items():
        assert [one for value in values for one in messages(unpack(value))] == expected[shard]
    for kind, count in counts.items():
        labels = {"type": Kind(kind).name.lower(), "outcome": "accepted"}
        assert metrics.registry.get_sample_value("groundswell_events_total", labels) == count


def test_an_idle_partition_is_not_overtaken(offline_settings: Settings) -> None:
    """A pack that passes a boundary names the idle partitions with unread messages; Kafka is asked only then."""
    packs, asked, now_s = list[bytes](), list[set[TP]](), [0.0]
    topics = Topics(offline_settings)
    name = topics.share.name
    busy, quiet = TP(name, 0), TP(name, 1)

    async def send(_topic: str, value: bytes, **_named: Any) -> asyncio.Future[object]:
        packs.append(value)
        future = asyncio.get_running_loop().create_future()
        future.set_result(SimpleNamespace(offset=0))
        return future

    async def unread(partitions: Iterable[TP]) -> set[TP]:
        asked.append(set(partitions))
        return {quiet}

    async def run() -> None:
        clock = SourceClock(10.0, 0.0, lambda: now_s[0])
        clock.step_us = 60_000_000
        clock.assign([busy, quiet], {name: 2})
        producer = SimpleNamespace(client=SimpleNamespace(send=send))
        consumer: Any = SimpleNamespace(is_current=lambda _: True, complete_poll=lambda _: None, unread=unread)
        ingest = Ingest(topics, consumer, producer, DeadLetters(send, Metrics(), 3), Metrics(), clock)  # type: ignore[arg-type]
        for number, time_s in enumerate((1_714_564_800, 1_714_564_810, 1_714_564_870)):
            poll = Poll(INPUTS, 1, number + 1)
            event = {"type": "share", "time": time_s, "user": "ann", "content": "c"}
            poll.add(busy, [Record(number, msgspec.json.encode(event), name)], number + 1)
            assert await ingest.handle(poll)
            now_s[0] += 10.0
            clock.newly_idle({quiet: 0})

    asyncio.run(run())
    assert asked == [{quiet}]
    woken = [progress.woken if (progress := unpack(value).progress) else [] for value in packs]
    assert woken == [[f"{name}:0", f"{name}:1"], [], [f"{name}:1"]]


def message(chance: Random, topic: TopicKind) -> bytes:
    """Return a message of a topic: one event, an array, or an invalid one."""
    user, other, third = (f"u{chance.randrange(30)}" for _ in range(3))
    share = {"type": "share", "user": user, "content": other, "via": third}
    stated = {**share, "author": third, "created": 7.5}
    follow = {"type": "follow", "user": user, "target": other}
    create = {"type": "create", "user": user, "content": other, "reply_to": third}
    own = {"share": [share, stated], "follow": [follow, {"type": "forget", "user": user}], "create": [create]}[topic]
    events = [{**chance.choice(own), "time": chance.randrange(10**9)} for _ in range(chance.randrange(4))]
    match chance.randrange(8):
        case 0:
            return msgspec.json.encode(events)
        case 1:
            return msgspec.json.encode([*events, {"type": topic}])
        case 2:
            return b"{"
        case _:
            return msgspec.json.encode({**chance.choice(own), "time": chance.randrange(10**9)})
