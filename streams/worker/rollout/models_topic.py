"""The models topic: which artifact is in use, the artifact itself, and what shards say of a switch to another.

    use              → Order     the artifact in use; without one each worker serves what its settings say
    try              → Order     one that shards are to make ready, and not to serve yet
    part/VERSION/N   → bytes     its files, cut into parts that any broker takes
    shard/N          → Answer    the last word of a shard

The topic has one partition and is compacted, so whoever reads it from its begin knows all of this, and workers need no
folder in common. `streams/worker/rollout/follower.py` is the workers' side, `groundswell model use` the operator's.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Literal, NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError

from model.artifact import Artifact
from model.errors import ArtifactError
from streams.errors import BrokerError, Right, StateError, one_line
from streams.kafka import topics
from streams.kafka.access import rights
from streams.kafka.consumer.fetch_errors import decoding
from streams.kafka.topics import Topics
from streams.settings.connection import aiokafka_arguments
from streams.settings.settings import Settings

USE, TRY, PART, SHARD = "use", "try", "part", "shard"
PART_BYTES = 512 * 1024
POLL_S = 0.2
AGAIN_S = 1.0
READ_S = 30.0
TRIAL_S = 600.0
"""An order to try that nobody decided about for so long was given up by whoever gave it."""

State = Literal["ready", "refused", "serving"]


class Order(msgspec.Struct, frozen=True):
    """An artifact as the topic has it. id: of the command. parts: how many; sha256: of all of them together."""

    id: str
    version: str
    parts: int
    sha256: str


class Answer(msgspec.Struct, frozen=True):
    """What a shard says: of which order it is, in what state, which version it serves; error: why it refused."""

    shard: int
    order: str
    state: State
    version: str
    worker: str = ""
    error: str = ""


_order, _answer = msgspec.json.Decoder(Order).decode, msgspec.json.Decoder(Answer).decode
_parcel = msgspec.msgpack.Decoder(dict[str, bytes]).decode
encode = msgspec.json.Encoder().encode


class Message(NamedTuple):
    """One message of the topic; no value: what the key said is no longer so. at_ms: Kafka's time of it."""

    key: str
    value: bytes | None
    at_ms: int = 0


def order_of(artifact: Artifact, command: str) -> tuple[Order, list[Message]]:
    """The order of an artifact and the messages of its parts, which go first."""
    data = msgspec.msgpack.encode(artifact.files())
    parts = [data[begin : begin + PART_BYTES] for begin in range(0, len(data), PART_BYTES)]
    order = Order(command, artifact.version, len(parts), hashlib.sha256(data).hexdigest())
    return order, [Message(part_key(order.version, number), part) for number, part in enumerate(parts)]


def part_key(version: str, number: int) -> str:
    """The key of a part of an artifact."""
    return f"{PART}/{version}/{number}"


def _foreign(why: str) -> StateError:
    return StateError(
        f"a message on the models topic that is none of ours ({why}); nothing but Groundswell may write to it"
    )


class Notices:
    """What the topic says, as far as it was read. tried_ms: Kafka's time of the order to try; heard_s: when it came
    here, by `clock`.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self.use: Order | None = None
        self.trial: Order | None = None
        self.tried_ms, self.heard_s = 0, clock()
        self.answers: dict[int, Answer] = {}
        self.parts: dict[str, dict[int, bytes]] = {}

    def take(self, message: Message) -> None:
        """One message, in the order of the topic.

        Raises:
            StateError: it is none of ours.
        """
        kind, *rest = message.key.split("/")
        if kind not in (USE, TRY, PART, SHARD):
            raise _foreign(f"the key {message.key!r}")
        try:
            if kind == USE:
                self.use = None if message.value is None else _order(message.value)
            elif kind == TRY:
                self.trial = None if message.value is None else _order(message.value)
                self.tried_ms, self.heard_s = message.at_ms, self._clock()
            elif kind == SHARD and message.value is not None:
                self.answers[int(rest[0])] = _answer(message.value)
            elif kind == PART:
                self._part(rest[0], int(rest[1]), message.value)
        except (msgspec.DecodeError, ValueError, IndexError) as error:
            raise _foreign(one_line(error)) from error

    def _part(self, version: str, number: int, value: bytes | None) -> None:
        parts = self.parts.setdefault(version, {})
        if value is not None:
            parts[number] = value
        else:
            parts.pop(number, None)
        if not parts:
            del self.parts[version]

    def artifact(self, order: Order) -> Artifact:
        """The artifact of an order.

        Raises:
            ArtifactError: its parts are missing or damaged.
        """
        parts = self.parts.get(order.version, {})
        data = b"".join(parts[number] for number in sorted(parts) if number < order.parts)
        if hashlib.sha256(data).hexdigest() != order.sha256:
            raise ArtifactError(
                f"version {order.version} on the models topic is not whole: give `groundswell model use DIR` again"
            )
        try:
            files = _parcel(data)
        except msgspec.DecodeError as error:
            raise ArtifactError(f"version {order.version} on the models topic cannot be read: {error}") from error
        return Artifact.of(files, "the models topic")

    def outdated(self, keep: set[str]) -> Iterator[Message]:
        """What takes the parts of all other versions off the topic."""
        for version in sorted(self.parts.keys() - keep):
            for number in sorted(self.parts[version]):
                yield Message(part_key(version, number), None)


class Board:
    """Reads the topic from its begin, and goes on to read what is added.

    wait_s: for how long it asks again where nobody answers when it is opened.
    """

    def __init__(self, settings: Settings, wait_s: float = 0.0) -> None:
        self.notices = Notices()
        self._wait_s = wait_s
        self._settings = settings
        self._topic = Topics(settings).models.name
        self._part = TopicPartition(self._topic, 0)
        self._consumer: Any = AIOKafkaConsumer(
            **aiokafka_arguments(settings), enable_auto_commit=False, auto_offset_reset="earliest"
        )

    async def open(self) -> None:
        """Read everything that is there now.

        Raises:
            BrokerError: Kafka cannot be reached or does not answer.
        """
        try:
            await self._reach()
            self._consumer.assign([self._part])
            await self._consumer.seek_to_beginning(self._part)
            end = (await self._consumer.end_offsets([self._part]))[self._part]
            async with asyncio.timeout(READ_S):
                while await self._consumer.position(self._part) < end:
                    await self.read(POLL_S)
        except (KafkaError, TimeoutError) as error:
            refusal = rights.refusal(error, self._settings, Right("read", self._topic))
            raise refusal or BrokerError(f"{self._topic} cannot be read ({one_line(error)}); is Kafka well?") from error

    async def _reach(self) -> None:
        end = monotonic() + self._wait_s
        while True:
            try:
                await self._consumer.start()
            except KafkaConnectionError:
                if monotonic() >= end:
                    raise
                await asyncio.sleep(AGAIN_S)
            else:
                return

    async def read(self, timeout_s: float) -> bool:
        """Take what was added, and wait for so long if nothing was; returns whether there was something."""
        with decoding():
            found = await self._consumer.getmany(self._part, timeout_ms=int(timeout_s * 1_000))
        records = [record for records in found.values() for record in records]
        for record in records:
            key = (record.key or b"").decode(errors="replace")
            self.notices.take(Message(key, record.value, record.timestamp))
        return bool(records)

    async def close(self) -> None:
        """Read no more."""
        try:
            await self._consumer.stop()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Nobody cancelled us: aiokafka lets the end of a fetch out that waited for Kafka to come back.
            await self._consumer._client.close()  # noqa: SLF001 - the rest of its own stop


class Desk(Board):
    """A board to which an operator's command also writes."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._producer: Any = AIOKafkaProducer(
            **aiokafka_arguments(settings), acks="all", enable_idempotence=True, max_request_size=2 * PART_BYTES
        )

    async def open(self) -> None:
        """Read everything, and be ready to write."""
        await super().open()
        await self._producer.start()

    async def write(self, *messages: Message) -> None:
        """Send messages in this order; all of them are acknowledged on return.

        Raises:
            BrokerError: Kafka did not take them.
        """
        try:
            for message in messages:
                await self._producer.send_and_wait(self._topic, message.value, key=message.key.encode(), partition=0)
        except KafkaError as error:
            refusal = rights.refusal(error, self._settings, Right("write", self._topic))
            raise refusal or BrokerError(
                f"Kafka did not take a message for {self._topic} ({one_line(error)})"
            ) from error

    async def close(self) -> None:
        """Read and write no more."""
        await self._producer.stop()
        await super().close()


@asynccontextmanager
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    """A desk that is open, closed at the end."""
    found = Desk(settings)
    try:
        await found.open()
        yield found
    finally:
        await found.close()


def read_notices(settings: Settings) -> Notices | None:
    """What the topic says now, for a command; None if there is no topic.

    Raises:
        BrokerError: Kafka cannot be reached or does not answer.
    """
    with topics.admin(settings) as client:
        models = Topics(settings).models
        if topics.missing(client, [models]):
            return None
        rights.require(client, [Right("read", models.name)])

    async def read() -> Notices:
        board = Board(settings)
        try:
            await board.open()
            return board.notices
        finally:
            await board.close()

    return asyncio.run(read())


def in_use(settings: Settings, notices: Notices | None) -> Artifact:
    """The artifact in use: what the topic says, or what the settings say while it says nothing.

    Raises:
        ArtifactError: it is not whole.
    """
    if notices is not None and notices.use is not None:
        return notices.artifact(notices.use)
    return Artifact.load(Path(settings.model)) if settings.model else Artifact.default()
