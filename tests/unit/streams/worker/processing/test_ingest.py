"""The parts of the agents that need no broker: polls, micro-batches, the shard host, the flood guard."""

from __future__ import annotations

import asyncio
import gc
import weakref
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from graphstate.types import Kind, Mutation
from streams.errors import BadEvent, DeadLetterFlood, StaleStep, StateError
from streams.kafka.consumer.transport import INPUTS, Poll
from streams.kafka.leased_client import BEGUN, Refused
from streams.kafka.topics import Topics
from streams.messages.mutation_packs import Packer
from streams.settings.settings import Settings
from streams.shard.shard import Outcome
from streams.telemetry.metrics import Metrics
from streams.telemetry.readiness import Readiness
from streams.worker.positions import check_log
from streams.worker.processing.dead_letters import DeadLetters, FloodGuard
from streams.worker.processing.ingest import Ingest
from streams.worker.processing.shard_agent import STEP_MUTATIONS, micro_batches
from streams.worker.processing.shard_host import ShardHost


@dataclass
class Record:
    """A consumed record, as far as anyone looks."""

    offset: int
    value: bytes | None = b"x"
    topic: str = "t"
    partition: int = 0
    key: bytes | None = None
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    timestamp: int = 0

    @property
    def serialized_value_size(self) -> int:
        """As aiokafka has it."""
        return -1 if self.value is None else len(self.value)


def test_a_poll_ends_with_its_last_user() -> None:
    """Its records are not kept until Python looks for cycles: rarely, and they are hundreds of thousands by then."""
    poll = Poll("t", 1, 1)
    assert poll.value is poll
    record = Record(0)
    poll.add(TP("t", 0), [record], 1)
    seen = weakref.ref(record)
    gc.disable()
    try:
        del poll, record
        assert seen() is None
    finally:
        gc.enable()


def pack(first: int, count: int, size: int = 1) -> bytes:
    """A pack of `count` messages from offset `first` on, each of `size` mutations."""
    packer = Packer(max_bytes=10**9, max_mutations=10**9)
    for offset in range(first, first + count):
        packer.add("in:0", offset, offset, 10, [Mutation(Kind.FORGET, offset, "u")] * size)
    return packer.finish()[0]


def records(*values: bytes, first: int = 0) -> list[Record]:
    return [Record(first + number, value, "mutations") for number, value in enumerate(values)]


# Polls


def test_polls_merge() -> None:
    """A merged poll holds all records in order, the later positions and both sizes."""
    one, two = Poll("t", 1, 4), Poll("t", 1, 5)
    one.add(TP("t", 0), [Record(0), Record(1)], 2)
    one.add(TP("t", 1), [Record(7)], 8)
    two.add(TP("t", 0), [Record(2, None)], 3)
    two.add(TP("u", 0), [Record(0, b"yyy")], 1)
    one.merge(two)
    assert (one.first, one.last, one.size) == (4, 5, 6)
    assert {tp: ([r.offset for r in rs], position) for tp, (rs, position) in one.parts.items()} == {
        TP("t", 0): ([0, 1, 2], 3),
        TP("t", 1): ([7], 8),
        TP("u", 0): ([0], 1),
    }


# Micro-batches


def test_below_the_next_offset_is_skipped() -> None:
    """Records that the state holds are left out, and messages below the marks."""
    some = records(pack(0, 2), pack(1, 2), pack(3, 1))
    (batch,) = micro_batches(some, 1, {"in:0": 1}, 0)
    assert [m.time for record in batch.new.records for m in record.mutations] == [2, 3]
    assert (batch.next_offset, batch.new.marks, batch.new.repeated) == (3, {"in:0": 3}, 1)
    assert list(micro_batches(some, 3, {}, 0)) == []


def test_a_gap_is_an_error() -> None:
    """Missing records between the state and the log are never passed over."""
    with pytest.raises(StateError, match="ends at offset 4"):
        list(micro_batches(records(pack(0, 1), first=5), 4, {}, 0))


def test_full_batches_are_split_at_packs() -> None:
    """A micro-batch ends with the pack that fills it."""
    size = STEP_MUTATIONS // 2
    some = records(*(pack(n, 1, size) for n in range(5)))
    batches = list(micro_batches(some, 0, {}, 0))
    assert [batch.new.count for batch in batches] == [2 * size, 2 * size, size]
    assert [batch.next_offset for batch in batches] == [2, 4, 5]
    assert [batch.new.marks for batch in batches] == [{"in:0": 1}, {"in:0": 3}, {"in:0": 4}]


def test_silent_below_what_was_told() -> None:
    """Outputs of records below the group's offset are not repeated; no batch is half silent."""
    some = records(*(pack(n, 1) for n in range(4)))
    assert [(b.loud, b.next_offset) for b in micro_batches(some, 0, {}, 3)] == [(False, 3), (True, 4)]


# The shard host


class FakeShard:
    """Counts what it is told."""

    def __init__(self, disk: dict[int, int], partition: int) -> None:
        self.disk, self.partition = disk, partition
        self.next_offset = disk.get(partition, 0)
        self.marks: dict[str, int] = {}
        self.closed = False
        self.owed = self.hushed = 0
        self.republish_pending = False
        self.mirrors = self.publisher = self.reads = self

    def request_republish(self) -> None:
        """Count it."""
        self.owed += 1

    @property
    def interrupted(self) -> bool:
        """What is on the disk."""
        return bool(self.disk.get(-1 - self.partition, 0))

    def mark_publishing(self, *, publishing: bool) -> None:
        """Write to the disk."""
        self.disk[-1 - self.partition] = publishing

    def suspend(self) -> None:
        """Count it."""
        self.hushed += 1

    def process(self, records: list[Any], _halos: Any = (), **_named: Any) -> Outcome:
        """Count."""
        return Outcome(counts={"applied": len(records)})

    def commit(self, next_offset: int, marks: dict[str, int]) -> None:
        """Write to the disk that outlives it."""
        self.next_offset = self.disk[self.partition] = next_offset
        self.marks = marks

    def top(self, n: int) -> list[dict[str, Any]]:
        """Some users."""
        return [{"user": f"{self.partition}-{k}", "reach": 10 * k + self.partition} for k in range(n)]

    def user(self, user_id: str) -> dict[str, Any] | None:
        """One user."""
        return {"user": user_id} if user_id == f"u{self.partition}" else None

    def close(self) -> None:
        """Note it."""
        self.closed = True


@pytest.fixture
def opened() -> list[FakeShard]:
    return []


@pytest.fixture
def host(opened: list[FakeShard]) -> ShardHost:
    disk: dict[int, int] = {}

    def open_shard(partition: int) -> Any:
        opened.append(FakeShard(disk, partition))
        return opened[-1]

    return ShardHost(open_shard)


def test_commit_lasts(host: ShardHost, opened: list[FakeShard]) -> None:
    """A committed step is in the position; the shard stays open over an assignment."""

    async def run() -> None:
        assert await host.settle({0: 0}) == {0: 0}
        await host.step(0, [])
        assert await host.commit(0, 5, {"a:0": 1}, lambda: True)
        assert host.position(0) == (5, {"a:0": 1})
        assert await host.settle({0: 0}) == {0: 5}
        await host.close()

    asyncio.run(run())
    assert [shard.closed for shard in opened] == [True]


def test_a_stale_step_is_undone(host: ShardHost, opened: list[FakeShard]) -> None:
    """A step that may not be committed makes the shard refuse all until it is opened again."""

    async def run() -> None:
        await host.settle({0: 0})
        await host.step(0, [])
        assert not await host.commit(0, 5, {}, lambda: False)
        with pytest.raises(StaleStep):
            await host.step(0, [])
        with pytest.raises(StaleStep):
            host.position(0)
        assert await host.settle({0: 0}) == {0: 0}
        await host.step(0, [])
        assert await host.commit(0, 1, {}, lambda: True)
        await host.close()

    asyncio.run(run())
    assert [shard.closed for shard in opened] == [True, True]


def test_what_is_not_owned_is_closed(host: ShardHost, opened: list[FakeShard]) -> None:
    """After an assignment exactly the owned shards are open; a step on another is stale."""

    async def run() -> None:
        await host.settle({0: 0, 1: 0})
        await host.settle({1: 0})
        with pytest.raises(StaleStep):
            await host.step(0, [])
        assert not await host.commit(0, 1, {}, lambda: True)
        await host.close()

    asyncio.run(run())
    assert {shard.partition: shard.closed for shard in opened} == {0: True, 1: True}


def test_who_owes_everybody(host: ShardHost, opened: list[FakeShard]) -> None:
    """Wherever somebody else may have published last: behind what was told, lost in between, a broken generation."""

    async def run() -> None:
        await host.settle({0: 0, 1: 7})
        assert [(shard.owed, shard.hushed) for shard in opened] == [(0, 0), (1, 0)]
        assert set(host.taken_over) == {1}
        await host.settle({0: 0, 1: 0}, unbroken=True)
        assert [(shard.owed, shard.hushed) for shard in opened] == [(0, 0), (1, 0)]
        await host.settle({0: 0, 1: 0})
        assert [(shard.owed, shard.hushed) for shard in opened] == [(1, 1), (2, 1)]
        await host.settle({1: 0}, unbroken=True)
        await host.settle({0: 0, 1: 0}, unbroken=True)
        assert [(shard.owed, shard.hushed) for shard in opened] == [(1, 1), (2, 1), (1, 0)]
        await host.close()

    asyncio.run(run())


def test_who_repeats_everything_later(opened: list[FakeShard]) -> None:
    """After others, and after a process that did not end well or ended before it had repeated what others had said.

    To say everything again for another reason, as after a change of the artifact, does not pay that.
    """
    disk: dict[int, int] = {}

    def host() -> ShardHost:
        return ShardHost(lambda partition: opened.append(FakeShard(disk, partition)) or opened[-1])  # type: ignore[func-returns-value]

    async def life(told: dict[int, int], *, repeats: bool, well: bool) -> set[int]:
        one = host()
        await one.settle(told)
        found = dict(one.taken_over)
        for partition in told:
            await one.owe(partition, found.get(partition) if repeats else None)
        await one.close(well=well)
        return set(found)

    async def twice(told: dict[int, int]) -> None:
        one = host()
        await one.settle(told)
        (debt,) = one.taken_over.values()
        await one.settle({partition: offset + 1 for partition, offset in told.items()}, unbroken=True)
        await one.owe(1, debt)
        await one.close(well=True)

    async def run() -> None:
        assert await life({0: 0, 1: 0}, repeats=False, well=True) == set()
        assert await life({0: 0, 1: 3}, repeats=False, well=True) == {1}
        disk[1] = 3
        assert await life({0: 0, 1: 3}, repeats=True, well=True) == {1}
        assert await life({0: 0, 1: 3}, repeats=False, well=False) == set()
        assert await life({0: 0, 1: 3}, repeats=True, well=False) == {0, 1}
        assert await life({0: 0, 1: 3}, repeats=True, well=True) == {0, 1}
        assert await life({0: 0, 1: 3}, repeats=False, well=True) == set()
        # What is owed since the second of two take-overs is not paid by what the first owed.
        await twice({1: 4})
        assert await life({1: 3}, repeats=True, well=True) == {1}

    asyncio.run(run())


def test_where_halos_are_read_from(host: ShardHost) -> None:
    """From the end before the hello; then after what was read; from the end again if some was deleted unread."""
    assert host.halo_offset(0, 3, 9) == 9
    host.halo_offsets[0] = 4
    assert host.halo_offset(0, 4, 9) == 4
    assert host.halo_offset(0, 5, 9) == 9
    assert 0 not in host.halo_offsets


def test_reading(host: ShardHost) -> None:
    """The top is merged over the shards, a user found on whichever has it."""

    async def run() -> None:
        await host.settle({0: 0, 1: 0})
        assert [row["user"] for row in await host.top(3)] == ["1-2", "0-2", "1-1"]
        assert await host.user("u1") == {"user": "u1"}
        assert await host.user("nobody") is None
        await host.close()

    asyncio.run(run())


# Dead letters


def test_flood_counts_per_topic() -> None:
    """Good messages of another topic do not end a row, those of the same do."""
    guard = FloodGuard(3)
    bad = BadEvent("json", "not JSON")
    for offset in range(2):
        guard.bad(Record(offset, topic="a"), bad)
        guard.good(Record(offset, topic="b"))
    guard.good(Record(2, topic="a"))
    guard.bad(Record(3, topic="a"), bad)
    guard.bad(Record(4, topic="a"), bad)
    with pytest.raises(DeadLetterFlood, match="3 bad messages in a row on a, the last: json: not JSON"):
        guard.bad(Record(5, topic="a"), bad)


def test_flood_counts_once() -> None:
    """What is read again neither makes a row longer nor ends it; another partition has offsets of its own."""
    guard = FloodGuard(3)
    bad = BadEvent("json", "not JSON")
    for _ in range(3):
        guard.good(Record(6))
        guard.bad(Record(7), bad)
        guard.bad(Record(8), bad)
    with pytest.raises(DeadLetterFlood):
        guard.bad(Record(0, partition=1), bad)


def test_dead_letters_are_sent_at_flush() -> None:
    """Nothing is sent before the flush, everything by its end, counted by reason."""
    sent: list[tuple[str, bytes | None, bytes]] = []
    metrics = Metrics()

    async def send(topic: str, key: bytes | None, value: bytes, headers: object) -> asyncio.Future[object]:
        sent.append((topic, key, value))
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    async def run() -> None:
        dead = DeadLetters(send, metrics, 10)
        dead.add(Record(1, b"\xff", key=b"k"), BadEvent("utf8", "x" * 10_000))
        dead.add(Record(2, None, key=b"k"), BadEvent("empty", "nothing"))
        assert sent == []
        await dead.flush()
        await dead.flush()

    asyncio.run(run())
    assert sent == [("t.dlq", b"k", b"\xff"), ("t.dlq", b"k", b"")]
    assert b'groundswell_dead_letters_total{reason="utf8",topic="t"} 1.0' in metrics.text()


def test_a_refused_poll_leaves_no_letters(offline_settings: Settings) -> None:
    """What was refused is read again: its bad messages become letters once."""
    letters: list[bytes] = []
    refusals = [Refused(BEGUN), Refused(BEGUN)]

    async def letter(_topic: str, _key: bytes | None, value: bytes, _headers: object) -> asyncio.Future[object]:
        letters.append(value)
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    async def send(*_about: Any, **_named: Any) -> asyncio.Future[object]:
        if refusals:
            raise refusals.pop()
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    async def run() -> None:
        topics, producer = Topics(offline_settings), SimpleNamespace(client=SimpleNamespace(send=send))
        ingest = Ingest(topics, producer, DeadLetters(letter, Metrics(), 3), Metrics())  # type: ignore[arg-type]
        name = topics.share.name
        poll = Poll(INPUTS, 1, 1)
        good = b'{"type":"share","time":1714564800,"user":"ann","content":"c"}'
        poll.add(TP(name, 0), [Record(0, good, name), Record(1, b"{", name), Record(2, b"[", name)], 3)
        for _ in range(2):
            with pytest.raises(Refused):
                await ingest.handle(poll)
        assert await ingest.handle(poll)

    asyncio.run(run())
    assert letters == [b"{", b"["]


# Positions and readiness


@pytest.mark.parametrize(("next_offset", "begin", "end"), [(0, 0, 0), (5, 0, 5), (5, 5, 9)])
def test_a_state_that_fits_its_log(next_offset: int, begin: int, end: int) -> None:
    """A state within its log can go on."""
    check_log(TP("m", 0), next_offset, begin, end)


@pytest.mark.parametrize(
    ("next_offset", "begin", "end", "says"),
    [(4, 5, 9, "begins at offset 5"), (0, 1, 1, "begins at offset 1"), (6, 0, 5, "ends at 5.*reset-offsets")],
)
def test_a_state_that_does_not(next_offset: int, begin: int, end: int, says: str) -> None:
    """A log that was cut off, emptied or made anew is an error, not a wrong state."""
    with pytest.raises(StateError, match=says):
        check_log(TP("m", 0), next_offset, begin, end)


def test_readiness() -> None:
    """Ready is loaded and sought and not stopping; until then it says what it waits for."""
    readiness = Readiness()
    readiness.progress("loading shard 0", 1, 4)
    assert readiness.as_dict() == {
        "ready": False,
        "detail": "loading shard 0",
        "progress": 0.25,
        "partitions": [],
    }
    readiness.loaded = readiness.sought = True
    assert readiness.as_dict()["ready"] is True
    readiness.stopping = True
    assert not readiness.ready
