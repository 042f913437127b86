"""The models topic: the artifact in use, its files, and the rollout status of every shard.

    use              → Deployment    the artifact in use; without one, each worker serves the artifact of its settings
    try              → Deployment    an artifact that shards prepare and check, but do not serve yet
    part/VERSION/N   → bytes         the files of an artifact, split into parts below any broker's message limit
    shard/N          → ShardStatus   the newest status of a shard
    map/VERSION      → CalibrationMap  the map from an artifact's scores to persons
    history/ID       → bytes         a decision of the trainer (`streams/trainer/history.py`); ids rise with time
    posts/N          → bytes         the newest closed posts of a shard (`streams/messages/closed_posts.py`)

The topic has one partition and is compacted. A consumer that reads it from the beginning has the complete state, so
workers need no shared folder. `streams/worker/rollout/follower.py` is the worker's side; the operator's side is
`groundswell model use`.
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
from model.evaluation.calibration import CalibrationMap
from streams.errors import BrokerError, Right, StateError, one_line
from streams.kafka import aiokafka_internals, topics
from streams.kafka.access import rights
from streams.kafka.consumer.fetch_errors import decoding
from streams.kafka.topics import Topics
from streams.settings.connection import aiokafka_arguments
from streams.settings.settings import Settings

USE, TRY, PART, SHARD, POSTS, MAP, HISTORY = (
    "use", "try", "part", "shard", "posts", "map", "history",
)  # fmt: skip
PART_BYTES = 512 * 1024
POLL_S = 0.2
AGAIN_S = 1.0
READ_S = 30.0
TRIAL_S = 600.0
"""Age at which a trial counts as abandoned by the command that started it."""

RolloutState = Literal["ready", "refused", "serving"]


class Deployment(msgspec.Struct, frozen=True):
    """One artifact on the topic, to try or to use.

    Attributes:
        id: Id of the command that published it.
        version: Version of the artifact.
        parts: Number of parts.
        sha256: Checksum of all parts, concatenated.
    """

    id: str
    version: str
    parts: int
    sha256: str


class ShardStatus(msgspec.Struct, frozen=True, rename={"deployment_id": "order"}):
    """Rollout status of one shard.

    Attributes:
        shard: Number of the shard.
        deployment_id: Id of the deployment that the status is about.
        state: Whether the artifact is ready, refused or serving.
        version: Version that the shard serves.
        worker: Name of the worker that holds the shard.
        error: Why the artifact was refused; empty otherwise.
    """

    shard: int
    deployment_id: str
    state: RolloutState
    version: str
    worker: str = ""
    error: str = ""


_decode_deployment = msgspec.json.Decoder(Deployment).decode
_decode_status = msgspec.json.Decoder(ShardStatus).decode
_decode_files = msgspec.msgpack.Decoder(dict[str, bytes]).decode
encode = msgspec.json.Encoder().encode


class ModelsTopicMessage(NamedTuple):
    """One message of the topic; a value of None deletes the key. at_ms: Kafka's timestamp of it."""

    key: str
    value: bytes | None
    at_ms: int = 0


def new_deployment(artifact: Artifact, command: str) -> tuple[Deployment, list[ModelsTopicMessage]]:
    """Return the deployment of an artifact and the messages of its parts, which must be sent first."""
    data = msgspec.msgpack.encode(artifact.files())
    parts = [data[begin : begin + PART_BYTES] for begin in range(0, len(data), PART_BYTES)]
    deployment = Deployment(command, artifact.version, len(parts), hashlib.sha256(data).hexdigest())
    return deployment, [
        ModelsTopicMessage(part_key(deployment.version, number), part) for number, part in enumerate(parts)
    ]


def part_key(version: str, number: int) -> str:
    """Return the key of one part of an artifact."""
    return f"{PART}/{version}/{number}"


def map_key(version: str) -> str:
    """Return the key of the map from an artifact's scores to persons."""
    return f"{MAP}/{version}"


def _foreign(reason: str) -> StateError:
    return StateError(
        f"the models topic holds a message that Groundswell did not write ({reason}); nothing but Groundswell may "
        "write to it"
    )


class ModelsTopicState:
    """The state of the topic, as far as it was read.

    Attributes:
        use: The deployment in use; None if there is none.
        trial: The deployment to try; None if there is none.
        trial_time_ms: Kafka's timestamp of the newest trial message.
        trial_received_s: When that message was read, by `clock`.
        shards: The newest status of each shard.
        posts: Encoded closed posts of each shard.
        calibrations: Maps from scores to persons, by artifact version.
        history: Encoded decisions of the trainer, by id.
        parts: Parts by artifact version and part number.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self.use: Deployment | None = None
        self.trial: Deployment | None = None
        self.trial_time_ms, self.trial_received_s = 0, clock()
        self.shards: dict[int, ShardStatus] = {}
        self.posts: dict[int, bytes] = {}
        self.calibrations: dict[str, CalibrationMap] = {}
        self.history: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}

    def apply(self, message: ModelsTopicMessage) -> None:
        """Apply one message; messages must come in the order of the topic.

        Raises:
            StateError: Groundswell did not write the message.
        """
        kind, *rest = message.key.split("/")
        if kind not in (USE, TRY, PART, SHARD, POSTS, MAP, HISTORY):
            raise _foreign(f"the key {message.key!r}")
        try:
            if kind == USE:
                self.use = None if message.value is None else _decode_deployment(message.value)
            elif kind == TRY:
                self.trial = None if message.value is None else _decode_deployment(message.value)
                self.trial_time_ms, self.trial_received_s = message.at_ms, self._clock()
            elif kind == SHARD and message.value is not None:
                self.shards[int(rest[0])] = _decode_status(message.value)
            elif kind == POSTS and message.value is not None:
                self.posts[int(rest[0])] = message.value
            elif kind == HISTORY:
                self._apply_history(rest[0], message.value)
            elif kind == MAP:
                self._apply_map(rest[0], message.value)
            elif kind == PART:
                self._apply_part(rest[0], int(rest[1]), message.value)
        except (msgspec.DecodeError, ValueError, IndexError) as error:
            raise _foreign(one_line(error)) from error

    def _apply_history(self, row_id: str, value: bytes | None) -> None:
        if value is None:
            self.history.pop(row_id, None)
        else:
            self.history[row_id] = value

    def _apply_map(self, version: str, value: bytes | None) -> None:
        if value is None:
            self.calibrations.pop(version, None)
        else:
            self.calibrations[version] = CalibrationMap.unpack(value)

    def _apply_part(self, version: str, number: int, value: bytes | None) -> None:
        parts = self.parts.setdefault(version, {})
        if value is not None:
            parts[number] = value
        else:
            parts.pop(number, None)
        if not parts:
            del self.parts[version]

    def artifact(self, deployment: Deployment) -> Artifact:
        """Return the artifact of a deployment.

        Raises:
            ArtifactError: Parts are missing or damaged.
        """
        parts = self.parts.get(deployment.version, {})
        data = b"".join(parts[number] for number in sorted(parts) if number < deployment.parts)
        if hashlib.sha256(data).hexdigest() != deployment.sha256:
            raise ArtifactError(
                f"version {deployment.version} on the models topic is not whole: give `groundswell model use DIR` again"
            )
        try:
            files = _decode_files(data)
        except msgspec.DecodeError as error:
            raise ArtifactError(f"version {deployment.version} on the models topic cannot be read: {error}") from error
        return Artifact.of(files, "the models topic")

    def tombstones(self, keep: set[str]) -> Iterator[ModelsTopicMessage]:
        """Yield the messages that delete the parts of every version that is not in `keep`."""
        for version in sorted(self.parts.keys() - keep):
            for number in sorted(self.parts[version]):
                yield ModelsTopicMessage(part_key(version, number), None)
            if version in self.calibrations:
                yield ModelsTopicMessage(map_key(version), None)


class ModelsTopicReader:
    """Reads the topic from its beginning, then follows it.

    Args:
        settings: How Kafka is reached.
        wait_s: How long `open` retries while the broker cannot be reached.
    """

    def __init__(self, settings: Settings, wait_s: float = 0.0) -> None:
        self.state = ModelsTopicState()
        self._wait_s = wait_s
        self._settings = settings
        self._topic = Topics(settings).models.name
        self._partition = TopicPartition(self._topic, 0)
        self._consumer: Any = AIOKafkaConsumer(
            **aiokafka_arguments(settings), enable_auto_commit=False, auto_offset_reset="earliest"
        )

    async def open(self) -> None:
        """Read the topic up to its present end.

        Raises:
            BrokerError: Kafka cannot be reached or does not answer.
        """
        try:
            await self._connect()
            self._consumer.assign([self._partition])
            await self._consumer.seek_to_beginning(self._partition)
            end = (await self._consumer.end_offsets([self._partition]))[self._partition]
            async with asyncio.timeout(READ_S):
                while await self._consumer.position(self._partition) < end:
                    await self.read(POLL_S)
        except (KafkaError, TimeoutError) as error:
            refusal = rights.refusal(error, self._settings, Right("read", self._topic))
            raise refusal or BrokerError(f"{self._topic} cannot be read ({one_line(error)}); is Kafka well?") from error

    async def _connect(self) -> None:
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
        """Apply new messages; wait up to `timeout_s` for the first. Return whether there were any."""
        with decoding():
            fetched = await self._consumer.getmany(self._partition, timeout_ms=int(timeout_s * 1_000))
        records = [record for batch in fetched.values() for record in batch]
        for record in records:
            key = (record.key or b"").decode(errors="replace")
            self.state.apply(ModelsTopicMessage(key, record.value, record.timestamp))
        return bool(records)

    async def close(self) -> None:
        """Stop reading and disconnect."""
        try:
            await self._consumer.stop()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # This task was not cancelled: aiokafka leaks the cancellation of a fetch that waited for the broker.
            await aiokafka_internals.client(self._consumer).close()  # the rest of its own stop


class ModelsTopicWriter(ModelsTopicReader):
    """A reader that also writes, for an operator's command."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._producer: Any = AIOKafkaProducer(
            **aiokafka_arguments(settings), acks="all", enable_idempotence=True, max_request_size=2 * PART_BYTES
        )

    async def open(self) -> None:
        """Read the topic up to its present end and start the producer.

        Raises:
            BrokerError: Kafka cannot be reached or does not answer.
        """
        await super().open()
        await self._producer.start()

    async def write(self, *messages: ModelsTopicMessage) -> None:
        """Send messages in this order; all of them are acknowledged on return.

        Raises:
            BrokerError: Kafka did not accept a message.
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
        """Stop the producer and the reader."""
        await self._producer.stop()
        await super().close()


@asynccontextmanager
async def models_topic_writer(settings: Settings) -> AsyncIterator[ModelsTopicWriter]:
    """Open a writer for the duration of the context.

    Raises:
        BrokerError: Kafka cannot be reached or does not answer.
    """
    writer = ModelsTopicWriter(settings)
    try:
        await writer.open()
        yield writer
    finally:
        await writer.close()


def read_models_topic(settings: Settings) -> ModelsTopicState | None:
    """Return the present state of the topic, for a command; None if there is no topic.

    Raises:
        BrokerError: Kafka cannot be reached or does not answer.
    """
    with topics.admin(settings) as client:
        models = Topics(settings).models
        if topics.missing(client, [models]):
            return None
        rights.require(client, [Right("read", models.name)])

    async def read() -> ModelsTopicState:
        reader = ModelsTopicReader(settings)
        try:
            await reader.open()
            return reader.state
        finally:
            await reader.close()

    return asyncio.run(read())


def artifact_in_use(settings: Settings, state: ModelsTopicState | None) -> Artifact:
    """Return the artifact in use: the one on the topic; without one there, the one of the settings.

    Raises:
        ArtifactError: The artifact on the topic is incomplete.
    """
    if state is not None and state.use is not None:
        return state.artifact(state.use)
    return Artifact.load(Path(settings.model)) if settings.model else Artifact.default()
