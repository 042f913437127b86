"""The dead letter topics as an operator uses them: read letters, send them to their input topic again, delete them.

A letter is done once it was sent again. The group `<group>.dlq` records this in Kafka: its committed offset in each
partition covers letters of every reason, and the commit's metadata holds further offsets that cover one reason each.
Offsets are committed after Kafka has acknowledged the sent letters. A crash in between sends at most one batch twice,
which changes nothing because events are set-valued. Workers do not commit in this group.
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
from streams.worker.processing.dead_letters import ATTEMPT, CUT, HEADER_PREFIX, TIMESTAMP

BATCH = 500
"""Number of letters that are sent between two commits."""
POLL_BYTES = 8 << 20
SEND_BYTES = 16 << 20
SEND_S = 60.0
COORDINATOR_S = 10.0
SHOWN_OFFSETS = 5
UNKNOWN = "unknown"
"""Reason of a letter whose headers name none."""
REFUSED = (MessageSizeTooLargeError, InvalidTimestampError, InvalidRecordError)
"""Errors that concern one letter and recur on every attempt."""

Progress = Callable[[int], None]
"""Receives the number of letters that were read since the previous call."""


def no_progress(_letters: int) -> None:
    """Ignore the progress."""


@dataclass(frozen=True)
class DeadLetter:
    """A dead letter, as stored in Kafka.

    Attributes:
        topic: The dead letter topic.
        partition: Partition in that topic.
        offset: Offset in that partition.
        time_ms: Time at which the letter was written (Unix time in ms).
        key: Key of the refused message.
        value: Value of the refused message, or the beginning of it.
        headers: Headers of the refused message, and those that describe the error.
    """

    topic: str
    partition: int
    offset: int
    time_ms: int
    key: bytes | None
    value: bytes
    headers: Headers

    @classmethod
    def from_record(cls, record: Any) -> DeadLetter:
        """Return the letter of a record of a dead letter topic."""
        headers = [(name, content or b"") for name, content in record.headers]
        value = record.value or b""
        return cls(record.topic, record.partition, record.offset, record.timestamp, record.key, value, headers)

    def header(self, name: str) -> str | None:
        """Return the last header of this name as text; None if there is none."""
        contents = [content for header, content in self.headers if header == name]
        return contents[-1].decode(errors="backslashreplace") if contents else None

    def number(self, name: str) -> int | None:
        """Return the value of a header as a number below 10^18; None if it holds anything else."""
        text = self.header(name) or ""
        return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None

    @property
    def message(self) -> str:
        """The error text, which begins with the reason; empty if the headers hold none."""
        return self.header(ERRORS + "message") or ""

    @property
    def reason(self) -> str:
        """The reason as a slug, such as `json`; UNKNOWN if the headers name none."""
        reason, colon, _ = self.message.partition(": ")
        return reason if colon and reason.isidentifier() else UNKNOWN

    @property
    def attempt(self) -> int:
        """Number of times that the message was sent again before it came back as this letter."""
        return self.number(ATTEMPT) or 0

    @property
    def cut(self) -> str | None:
        """Sizes of the whole message if the letter holds only a part of it, else None."""
        return self.header(CUT)

    @property
    def timestamp_ms(self) -> int:
        """Timestamp of the refused message (Unix time in ms); that of the letter if its headers hold none."""
        timestamp_ms = self.number(TIMESTAMP)
        return self.time_ms if timestamp_ms is None else timestamp_ms


class ResendPosition(NamedTuple):
    """Which letters of a partition are done.

    Attributes:
        offset: Letters below this offset are done.
        reasons: By reason: letters of that reason below this offset are done.
    """

    offset: int = 0
    reasons: Mapping[str, int] = {}

    @classmethod
    def from_commit(cls, commit: OffsetAndMetadata | None) -> ResendPosition:
        """Return a committed position; metadata of another tool counts as empty."""
        if commit is None or commit.offset < 0:
            return cls()
        try:
            metadata = json.loads(commit.metadata or "{}")
            reasons = {str(reason): int(offset) for reason, offset in metadata.items()}
        except (ValueError, TypeError, AttributeError):
            reasons = {}
        return cls(commit.offset, reasons)

    def to_commit(self) -> OffsetAndMetadata:
        """Return the position as it is committed."""
        text = json.dumps(dict(self.reasons), separators=(",", ":")) if self.reasons else ""
        return OffsetAndMetadata(self.offset, text, -1)

    def covers(self, letter: DeadLetter) -> bool:
        """Return whether the letter is done."""
        return letter.offset < max(self.offset, self.reasons.get(letter.reason, 0))

    def first_open(self, reason: str | None) -> int:
        """Return the first offset at which a letter (of this reason, if one is given) may not be done."""
        return max(self.offset, self.reasons.get(reason, 0)) if reason else self.offset

    def valid_for(self, end: int) -> ResendPosition:
        """Return this position, or that of an empty topic if it lies beyond the end: the topic was created again."""
        return self if self.offset <= end and max(self.reasons.values(), default=0) <= end else ResendPosition()

    def advanced(self, offset: int, reason: str | None) -> ResendPosition:
        """Return the position with all letters (of this reason, if one is given) below `offset` done as well."""
        if reason is None:
            raised = max(self.offset, offset)
            return ResendPosition(raised, {name: mark for name, mark in self.reasons.items() if mark > raised})
        return ResendPosition(self.offset, {**self.reasons, reason: max(offset, self.first_open(reason))})


@dataclass
class LeftOut:
    """Letters that were not sent for one cause.

    Attributes:
        count: Number of letters.
        offsets: Offsets of the first few.
    """

    count: int = 0
    offsets: list[int] = field(default_factory=list)


@dataclass
class ResendResult:
    """Letters of one topic that were sent again, or would be.

    Attributes:
        topic: The dead letter topic.
        sent: Number of letters that were sent.
        causes: Letters that were not sent, by cause.
    """

    topic: str
    sent: int = 0
    causes: dict[str, LeftOut] = field(default_factory=dict)

    @property
    def left_out(self) -> int:
        """Number of letters that were not sent."""
        return sum(letters.count for letters in self.causes.values())

    @property
    def examined(self) -> int:
        """Number of letters that were sent or left out."""
        return self.sent + self.left_out

    def leave_out(self, letter: DeadLetter, cause: str) -> None:
        """Count a letter that was not sent."""
        letters = self.causes.setdefault(cause, LeftOut())
        letters.count += 1
        if len(letters.offsets) < SHOWN_OFFSETS:
            letters.offsets.append(letter.offset)


class DeadLetterQueue:
    """The dead letter topics of one Kafka.

    Args:
        settings: Settings that name the topics and the group.
        client: An admin client of the same Kafka (`topics.admin`).
    """

    def __init__(self, settings: Settings, client: KafkaAdminClient) -> None:
        self._settings = settings
        self._client = client
        self._topics = Topics(settings)
        self.group = f"{settings.consumer_group}{DEAD_LETTERS}"

    def topic_names(self, wanted: str = "") -> list[str]:
        """Return the names of the dead letter topics that exist.

        Args:
            wanted: Only this topic: its name, that of its input topic, or the kind (`share`).

        Raises:
            InputError: there is no such topic.
            NotAllowed: the user may not describe or read one of them.
        """
        specs = self._topics.inputs
        aliases = {f"{spec.name}{DEAD_LETTERS}": (kind, spec.name) for kind, spec in specs.items()}
        names = [name for name, others in aliases.items() if wanted in ("", name, *others)]
        absent = rights.absent(self._client, names)
        names = [name for name in names if name not in absent]
        rights.require(self._client, [Right("read", name) for name in names])
        if wanted and not names:
            raise InputError(
                f"no dead letters of {wanted!r}; give one of {', '.join(specs)}, or see `groundswell topics`"
            )
        return names

    def bounds(self, name: str) -> dict[int, tuple[int, int]]:
        """Return the first and the end offset of each partition."""
        (topic,) = self._client.describe_topics([name])
        partitions = [TopicPartition(name, partition["partition_index"]) for partition in topic["partitions"]]
        begins = self._client.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.EARLIEST))
        ends = self._client.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
        return {
            partition.partition: (begins[partition].offset, ends[partition].offset) for partition in sorted(partitions)
        }

    def positions(self, name: str) -> dict[int, ResendPosition]:
        """Return which letters are done, by partition; partitions without a commit are absent."""
        commits = committed(self._client, self.group)
        return {
            partition.partition: ResendPosition.from_commit(commit)
            for partition, commit in commits.items()
            if partition.topic == name
        }

    def _commit(self, name: str, partition: int, position: ResendPosition) -> None:
        target = TopicPartition(name, partition)
        answer = self._client.alter_group_offsets(self.group, {target: position.to_commit()})
        if answer.get(target, NoError) is not NoError:
            raise answer[target](f"the position of {self.group}")

    def read(self, name: str, partition: int, begin: int, end: int) -> Iterator[list[DeadLetter]]:
        """Yield the letters of a partition from `begin` to before `end`, in batches of at most BATCH."""
        if begin >= end:
            return
        with _client(KafkaConsumer, self._settings, **CONSUMER) as consumer:
            for records in read_partitions(consumer, {TopicPartition(name, partition): (begin, end)}, BATCH):
                yield [DeadLetter.from_record(record) for record in records]

    def read_all(self, name: str, progress: Progress = no_progress) -> Iterator[tuple[DeadLetter, bool]]:
        """Yield every letter that a topic holds now, and whether it is done."""
        positions = self.positions(name)
        for partition, (begin, end) in self.bounds(name).items():
            position = positions.get(partition, ResendPosition()).valid_for(end)
            for letters in self.read(name, partition, begin, end):
                yield from ((letter, position.covers(letter)) for letter in letters)
                progress(len(letters))

    def resend(
        self,
        name: str,
        *,
        reason: str | None = None,
        limit: int = 0,
        dry_run: bool = False,
        progress: Progress = no_progress,
    ) -> ResendResult:
        """Send the letters that are not done to the input topic that they came from, in order.

        Only letters that exist at the start are sent, so a letter that fails again is not sent twice.

        Args:
            name: The dead letter topic.
            reason: Only letters of this reason.
            limit: Maximum number of letters that are sent or left out; 0: no maximum.
            dry_run: Only count.
            progress: Receives the number of letters that were read.

        Raises:
            BrokerError: Kafka did not acknowledge some letters; those acknowledged before are done.
        """
        result = ResendResult(name)
        target = name.removesuffix(DEAD_LETTERS)
        needed = [Right("read", self.group, group=True), Right("write", target)]
        rights.require(self._client, needed, COORDINATOR_S)
        (topic,) = self._client.describe_topics([target])
        sender = Resender(target, len(topic["partitions"]))
        positions = self.positions(name)
        with _client(KafkaProducer, self._settings, **PRODUCER) as producer:
            for partition, (begin, end) in self.bounds(name).items():
                position = positions.get(partition, ResendPosition()).valid_for(end)
                for letters in self.read(name, partition, max(begin, position.first_open(reason)), end):
                    eligible = [
                        letter for letter in letters if not position.covers(letter) and reason in (None, letter.reason)
                    ]
                    chosen = eligible[: limit - result.examined] if limit else eligible
                    if dry_run:
                        result.sent += len([letter for letter in chosen if not _left_out(letter, result)])
                    else:
                        sender.send(producer, chosen, result)
                    done = letters if len(chosen) == len(eligible) else chosen
                    position = position.advanced(done[-1].offset + 1, reason)
                    if not dry_run:
                        self._commit(name, partition, position)
                    progress(len(letters))
                    if limit and result.examined >= limit:
                        return result
        return result

    def purge(self, name: str, before: Mapping[int, int], *, really: bool = True) -> int:
        """Delete letters for good.

        Args:
            name: The dead letter topic.
            before: By partition: delete the letters below this offset.
            really: False to count only.

        Returns:
            The number of offsets that were deleted, or would be.
        """
        bounds = self.bounds(name)
        ends = {part: min(offset, bounds[part][1]) for part, offset in before.items() if part in bounds}
        deleted = {part: end for part, end in ends.items() if end > bounds[part][0]}
        if deleted and really:
            rights.require(self._client, [Right("delete", name)])
            self._client.delete_records({TopicPartition(name, part): end for part, end in deleted.items()})
        return sum(end - bounds[part][0] for part, end in deleted.items())


CONSUMER: dict[str, Any] = {
    "group_id": None,
    "enable_auto_commit": False,
    "isolation_level": "read_committed",
    "fetch_max_bytes": POLL_BYTES,
    "max_partition_fetch_bytes": POLL_BYTES,
}
PRODUCER: dict[str, Any] = {
    "acks": "all",
    # One request at a time keeps the order. An idempotent producer would keep it too, but fails all messages after one
    # that Kafka refuses. A message that a retry sends twice counts once.
    "enable_idempotence": False,
    "max_in_flight_requests_per_connection": 1,
    # A message that arrived in a compressed batch may exceed the maximum size uncompressed.
    "compression_type": "gzip",
    "max_request_size": SEND_BYTES,
    "linger_ms": 5,
}


@contextmanager
def _client(make: Callable[..., Any], settings: Settings, **options: Any) -> Iterator[Any]:
    """Open a Kafka client and close it at the end; raise its errors as BrokerError."""
    try:
        client = make(**kafka_arguments(settings), **options)
        try:
            yield client
        finally:
            client.close()
    except KafkaError as error:
        refusal = rights.refusal(error, settings)
        raise refusal or BrokerError(
            f"Kafka refused ({one_line(error)}); letters that were sent before are recorded as done, so try again"
        ) from error


def _left_out(letter: DeadLetter, result: ResendResult) -> bool:
    """Count a letter as left out if it holds only a part of its message; return whether it does."""
    if letter.cut is None:
        return False
    result.leave_out(letter, "it was cut")
    return True


class Resender(NamedTuple):
    """Sends letters to the input topic that they came from.

    Attributes:
        topic: The input topic.
        partitions: Number of its partitions.
    """

    topic: str
    partitions: int

    def send(self, producer: KafkaProducer, letters: list[DeadLetter], result: ResendResult) -> None:
        """Send letters in order and wait for every acknowledgement; leave out those that Kafka refuses for good."""
        pending = [(letter, self._send_one(producer, letter)) for letter in letters if not _left_out(letter, result)]
        producer.flush(SEND_S)
        for letter, future in pending:
            try:
                future.get(SEND_S)
                result.sent += 1
            except REFUSED as error:
                result.leave_out(letter, f"Kafka refused it: {type(error).__name__}")

    def _send_one(self, producer: KafkaProducer, letter: DeadLetter) -> Any:
        """Send the message of a letter: its bytes, headers and timestamp, to its partition; return the future."""
        kept = [(name, content) for name, content in letter.headers if not name.startswith((ERRORS, HEADER_PREFIX))]
        partition = letter.number(ERRORS + "partition")
        # The worker stores a message without a value as a letter with an empty one.
        absent = letter.reason == "empty" and not letter.value and letter.key is not None
        return producer.send(
            self.topic,
            value=None if absent else letter.value,
            key=letter.key,
            headers=[*kept, (ATTEMPT, b"%d" % (letter.attempt + 1))],
            partition=partition if partition is not None and partition < self.partitions else None,
            timestamp_ms=letter.timestamp_ms,
        )
