"""The dead letters as an operator sees them: reading, sending them again, deleting them.

A letter is done when it was sent again. What is done is kept where Kafka keeps such things: as the
committed offset of the group `<group>.dlq` in each partition of the dead letters, and, where only
the letters of one reason were sent, as a further offset for that reason in the commit's metadata.
It is committed after Kafka acknowledged what was sent: a crash in between sends at most one batch
again, which does no harm because events are set-valued. The worker commits nothing there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import (
    InvalidRecordError,
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    NoError,
)
from kafka.structs import OffsetAndMetadata

from streams.errors import BrokerError, InputError, Right, one_line
from streams.kafka.access import rights
from streams.kafka.log_io import read_partitions
from streams.kafka.topics import DEAD_LETTERS, Topics, committed
from streams.messages.headers import ERRORS, Headers
from streams.settings.connection import kafka_arguments
from streams.settings.settings import Settings
from streams.worker.processing.dead_letters import ATTEMPT, CUT, OURS, TIMESTAMP

BATCH = 500
"""Letters that are sent before what is done is committed."""
POLL_BYTES = 8 << 20
SEND_BYTES = 16 << 20
SEND_S = 60.0
COORDINATOR_S = 10.0
SHOWN_OFFSETS = 5
UNKNOWN = "unknown"
"""The reason of a letter that does not say one."""
REFUSED = (MessageSizeTooLargeError, InvalidTimestampError, InvalidRecordError)
"""Kafka will not take this letter, today or tomorrow; the next one may be fine."""

Progress = Callable[[int], None]


def silent(_: int) -> None:
    """Nobody wants to know how far it is."""


@dataclass(frozen=True)
class Letter:
    """A dead letter. time_ms: when it was written; timestamp_ms: that of the message it holds."""

    topic: str
    partition: int
    offset: int
    time_ms: int
    key: bytes | None
    value: bytes
    headers: Headers

    @classmethod
    def of(cls, record: Any) -> Letter:
        """A record of a topic of dead letters."""
        headers = [(name, held or b"") for name, held in record.headers]
        value = record.value or b""
        return cls(record.topic, record.partition, record.offset, record.timestamp, record.key, value, headers)

    def header(self, name: str) -> str | None:
        """The last header of this name as text."""
        found = [held for given, held in self.headers if given == name]
        return found[-1].decode(errors="backslashreplace") if found else None

    def number(self, name: str) -> int | None:
        """A header that holds a number no larger than Kafka's own."""
        text = self.header(name) or ""
        return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None

    @property
    def message(self) -> str:
        """What was wrong, with the reason in front."""
        return self.header(ERRORS + "message") or ""

    @property
    def reason(self) -> str:
        """The slug of what was wrong."""
        reason, found, _ = self.message.partition(": ")
        return reason if found and reason.isidentifier() else UNKNOWN

    @property
    def attempt(self) -> int:
        """How many times it was sent again before."""
        return self.number(ATTEMPT) or 0

    @property
    def cut(self) -> str | None:
        """How large it was, if this is not all of it."""
        return self.header(CUT)

    @property
    def timestamp_ms(self) -> int:
        """The message's own timestamp; of a letter that does not say it, the time when it was written."""
        found = self.number(TIMESTAMP)
        return self.time_ms if found is None else found


class Position(NamedTuple):
    """What is done in one partition: all below `offset`, and of some reasons all below another."""

    offset: int = 0
    reasons: Mapping[str, int] = {}

    @classmethod
    def of(cls, committed: OffsetAndMetadata | None) -> Position:
        """As it was committed; metadata of somebody else's making counts as none."""
        if committed is None or committed.offset < 0:
            return cls()
        try:
            found = json.loads(committed.metadata or "{}")
            reasons = {str(reason): int(offset) for reason, offset in found.items()}
        except (ValueError, TypeError, AttributeError):
            reasons = {}
        return cls(committed.offset, reasons)

    def commit(self) -> OffsetAndMetadata:
        """As it is committed."""
        text = json.dumps(dict(self.reasons), separators=(",", ":")) if self.reasons else ""
        return OffsetAndMetadata(self.offset, text, -1)

    def has(self, letter: Letter) -> bool:
        """Whether the letter is done."""
        return letter.offset < max(self.offset, self.reasons.get(letter.reason, 0))

    def first(self, reason: str | None) -> int:
        """The first offset at which a letter (of this reason) may not be done."""
        return max(self.offset, self.reasons.get(reason, 0)) if reason else self.offset

    def within(self, end: int) -> Position:
        """As it is, or nothing done where it lies beyond the end: the topic was made anew."""
        return self if self.offset <= end and max(self.reasons.values(), default=0) <= end else Position()

    def after(self, offset: int, reason: str | None) -> Position:
        """With all (of this reason) below `offset` done as well."""
        if reason is None:
            raised = max(self.offset, offset)
            return Position(raised, {name: mark for name, mark in self.reasons.items() if mark > raised})
        return Position(self.offset, {**self.reasons, reason: max(offset, self.first(reason))})


@dataclass
class Left:
    """Letters that were left out for one reason: how many, and the first few offsets."""

    count: int = 0
    offsets: list[int] = field(default_factory=list)


@dataclass
class Replayed:
    """What a replay did, or would do. left: what was left out, by why."""

    topic: str
    sent: int = 0
    left: dict[str, Left] = field(default_factory=dict)

    @property
    def left_out(self) -> int:
        """Letters that were not sent."""
        return sum(left.count for left in self.left.values())

    @property
    def looked_at(self) -> int:
        """Letters that were sent or left out."""
        return self.sent + self.left_out

    def leave(self, letter: Letter, why: str) -> None:
        """Count one that was not sent."""
        left = self.left.setdefault(why, Left())
        left.count += 1
        if len(left.offsets) < SHOWN_OFFSETS:
            left.offsets.append(letter.offset)


class Letters:
    """The dead letters of one Kafka.

    Args:
        client: an admin client of the same Kafka (`topics.admin`).
    """

    def __init__(self, settings: Settings, client: KafkaAdminClient) -> None:
        self._settings = settings
        self._client = client
        self._topics = Topics(settings)
        self.group = f"{settings.consumer_group}{DEAD_LETTERS}"

    def names(self, wanted: str = "") -> list[str]:
        """The topics of dead letters that exist, or the one that `wanted` names: as it is, by its input, or by kind.

        Raises:
            InputError: there is no such topic.
            NotAllowed: one of them may not be described or read.
        """
        specs = self._topics.inputs
        known = {f"{spec.name}{DEAD_LETTERS}": (kind, spec.name) for kind, spec in specs.items()}
        found = [name for name, other in known.items() if wanted in ("", name, *other)]
        absent = rights.absent(self._client, found)
        found = [name for name in found if name not in absent]
        rights.require(self._client, [Right("read", name) for name in found])
        if wanted and not found:
            raise InputError(
                f"no dead letters of {wanted!r}; give one of {', '.join(specs)}, or see `groundswell topics`"
            )
        return found

    def bounds(self, name: str) -> dict[int, tuple[int, int]]:
        """The first and the next offset of each partition."""
        (topic,) = self._client.describe_topics([name])
        parts = [TopicPartition(name, found["partition_index"]) for found in topic["partitions"]]
        begin = self._client.list_partition_offsets(dict.fromkeys(parts, OffsetSpec.EARLIEST))
        end = self._client.list_partition_offsets(dict.fromkeys(parts, OffsetSpec.LATEST))
        return {part.partition: (begin[part].offset, end[part].offset) for part in sorted(parts)}

    def positions(self, name: str) -> dict[int, Position]:
        """What is done, by partition; partitions without a commit are absent."""
        marks = committed(self._client, self.group)
        return {part.partition: Position.of(mark) for part, mark in marks.items() if part.topic == name}

    def _commit(self, name: str, partition: int, position: Position) -> None:
        part = TopicPartition(name, partition)
        answer = self._client.alter_group_offsets(self.group, {part: position.commit()})
        if answer.get(part, NoError) is not NoError:
            raise answer[part](f"the position of {self.group}")

    def read(self, name: str, partition: int, begin: int, end: int) -> Iterator[list[Letter]]:
        """The letters of a partition from `begin` to before `end`, in batches of at most BATCH."""
        if begin >= end:
            return
        with _client(KafkaConsumer, self._settings, **CONSUMER) as consumer:
            for records in read_partitions(consumer, {TopicPartition(name, partition): (begin, end)}, BATCH):
                yield [Letter.of(record) for record in records]

    def all(self, name: str, progress: Progress = silent) -> Iterator[tuple[Letter, bool]]:
        """Every letter of a topic that Kafka has now, and whether it is done."""
        positions = self.positions(name)
        for partition, (begin, end) in self.bounds(name).items():
            position = positions.get(partition, Position()).within(end)
            for batch in self.read(name, partition, begin, end):
                yield from ((letter, position.has(letter)) for letter in batch)
                progress(len(batch))

    def replay(
        self,
        name: str,
        *,
        reason: str | None = None,
        limit: int = 0,
        dry_run: bool = False,
        progress: Progress = silent,
    ) -> Replayed:
        """Send the letters that are not done again, in their order, to the topic that they came from.

        Ends where the topic ended when it began, so that what fails again is not sent again.

        Args:
            name: the topic of dead letters.
            reason: only letters of this reason.
            limit: look at no more than so many of them; 0: at all.
            dry_run: only count.
            progress: told how many letters were looked at.

        Raises:
            BrokerError: Kafka did not take some; what it took before is done.
        """
        result = Replayed(name)
        target = name.removesuffix(DEAD_LETTERS)
        needed = [Right("read", self.group, group=True), Right("write", target)]
        rights.require(self._client, needed, COORDINATOR_S)
        (topic,) = self._client.describe_topics([target])
        route = Route(target, len(topic["partitions"]))
        positions = self.positions(name)
        with _client(KafkaProducer, self._settings, **PRODUCER) as producer:
            for partition, (begin, end) in self.bounds(name).items():
                position = positions.get(partition, Position()).within(end)
                for batch in self.read(name, partition, max(begin, position.first(reason)), end):
                    wanted = [one for one in batch if not position.has(one) and reason in (None, one.reason)]
                    taken = wanted[: limit - result.looked_at] if limit else wanted
                    if dry_run:
                        result.sent += len([one for one in taken if not _left_out(one, result)])
                    else:
                        route.send(producer, taken, result)
                    position = position.after((batch if len(taken) == len(wanted) else taken)[-1].offset + 1, reason)
                    if not dry_run:
                        self._commit(name, partition, position)
                    progress(len(batch))
                    if limit and result.looked_at >= limit:
                        return result
        return result

    def purge(self, name: str, before: Mapping[int, int], *, really: bool = True) -> int:
        """Delete the letters below an offset of each partition for good; how many offsets that are (or would be)."""
        bounds = self.bounds(name)
        marks = {part: min(mark, bounds[part][1]) for part, mark in before.items() if part in bounds}
        gone = {part: mark for part, mark in marks.items() if mark > bounds[part][0]}
        if gone and really:
            rights.require(self._client, [Right("delete", name)])
            self._client.delete_records({TopicPartition(name, part): mark for part, mark in gone.items()})
        return sum(mark - bounds[part][0] for part, mark in gone.items())


CONSUMER: dict[str, Any] = {
    "group_id": None,
    "enable_auto_commit": False,
    "isolation_level": "read_committed",
    "fetch_max_bytes": POLL_BYTES,
    "max_partition_fetch_bytes": POLL_BYTES,
}
PRODUCER: dict[str, Any] = {
    "acks": "all",
    # One request after the other keeps the order. An idempotent producer would too, but a message that Kafka refuses
    # makes it give up those that follow. What a retry doubles counts once.
    "enable_idempotence": False,
    "max_in_flight_requests_per_connection": 1,
    # A message that came in a compressed batch may be too large for one that is not.
    "compression_type": "gzip",
    "max_request_size": SEND_BYTES,
    "linger_ms": 5,
}


@contextmanager
def _client(make: Callable[..., Any], settings: Settings, **options: Any) -> Iterator[Any]:
    """A client of Kafka's, closed at the end; an error of Kafka's becomes a BrokerError."""
    try:
        client = make(**kafka_arguments(settings), **options)
        try:
            yield client
        finally:
            client.close()
    except KafkaError as error:
        refusal = rights.refusal(error, settings)
        raise refusal or BrokerError(
            f"Kafka refused ({one_line(error)}); what was done before is noted, so try again"
        ) from error


def _left_out(letter: Letter, result: Replayed) -> bool:
    """Whether the letter cannot be sent because it is not all there."""
    if letter.cut is None:
        return False
    result.leave(letter, "it was cut")
    return True


class Route(NamedTuple):
    """Back to the topic that letters came from."""

    topic: str
    partitions: int

    def send(self, producer: KafkaProducer, letters: list[Letter], result: Replayed) -> None:
        """Send in order and wait for every acknowledgement; what Kafka will never take is left out."""
        waiting = [(one, self._send_one(producer, one)) for one in letters if not _left_out(one, result)]
        producer.flush(SEND_S)
        for letter, sent in waiting:
            try:
                sent.get(SEND_S)
                result.sent += 1
            except REFUSED as error:
                result.leave(letter, f"Kafka refused it: {type(error).__name__}")

    def _send_one(self, producer: KafkaProducer, letter: Letter) -> Any:
        """The untouched bytes, to the partition that they came from, with the timestamp and headers that they had."""
        kept = [(name, held) for name, held in letter.headers if not name.startswith((ERRORS, OURS))]
        partition = letter.number(ERRORS + "partition")
        # The value that a message without one has among the dead letters.
        absent = letter.reason == "empty" and not letter.value and letter.key is not None
        return producer.send(
            self.topic,
            value=None if absent else letter.value,
            key=letter.key,
            headers=[*kept, (ATTEMPT, b"%d" % (letter.attempt + 1))],
            partition=partition if partition is not None and partition < self.partitions else None,
            timestamp_ms=letter.timestamp_ms,
        )
