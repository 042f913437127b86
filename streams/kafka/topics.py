"""The topics: their registry, and creating, listing and describing them.

`Topics(settings)` is the only place that knows names, partitions and configurations. The
functions below it take an admin client, so a test or a command can share one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import GroupAuthorizationFailedError, KafkaError, KafkaTimeoutError, TopicAlreadyExistsError
from kafka.structs import OffsetAndMetadata

from streams.errors import BrokerError, NotAllowed, Right, TopicError, one_line
from streams.kafka.access import rights
from streams.kafka.access.preflight import knock
from streams.messages.topic_identity import id_text
from streams.settings.connection import kafka_arguments
from streams.settings.settings import Settings

Kind = Literal["follow", "share", "create"]

# A pack holds 700 KB at most, but one message of an array just under the broker's 1 MB may
# become a pack of its own, and it grows: its mutations name their fields by position, yet each
# carries its user again.
MUTATIONS_MAX_BYTES = 4 * 1024 * 1024
# A dead letter is its message untouched plus headers, so it must fit where the message just fitted.
DEAD_LETTER_MAX_BYTES = 2 * 1024 * 1024
DEAD_LETTERS = ".dlq"
MODELS = "groundswell.models"
RESHARD = ".reshard"
"""What `state reshard` works in until it is done is named after the mutations topic and this."""
FOREVER = {"retention.ms": "-1", "retention.bytes": "-1", "max.message.bytes": str(MUTATIONS_MAX_BYTES)}
DAY_MS = 86_400_000
A_WEEK = {"retention.ms": str(7 * DAY_MS), "max.message.bytes": str(MUTATIONS_MAX_BYTES)}
"""Of halos only those are read again that came after a shard's hello; the rest it asks for."""


@dataclass(frozen=True)
class TopicSpec:
    """A topic as it should be: its full name, configuration, and the number of partitions that it is made with.

    sharded: one partition for each shard.
    """

    name: str
    partitions: int
    about: str
    config: dict[str, str] = field(default_factory=dict, hash=False)
    sharded: bool = False

    @property
    def fixed(self) -> bool:
        """Whether another number of partitions cannot be taken."""
        return self.sharded or self.name.endswith(MODELS)


class Topics:
    """The registry: every topic under the settings' prefix."""

    def __init__(self, settings: Settings) -> None:
        prefix = settings.prefix
        inputs = outputs = settings.partitions
        self.follow = TopicSpec(prefix + "influence.follow.v1", inputs, "follow, unfollow, join, leave, forget events")
        self.share = TopicSpec(prefix + "influence.share.v1", inputs, "share, unshare events")
        self.create = TopicSpec(prefix + "influence.create.v1", inputs, "create, delete events")
        self.score = TopicSpec(
            prefix + "influence.score.v1",
            outputs,
            "the newest score of each user",
            # Without a bound Kafka keeps values that were replaced as long as it likes, those of the forgotten too.
            {"cleanup.policy": "compact", "max.compaction.lag.ms": str(DAY_MS)},
        )
        self.alert = TopicSpec(
            prefix + "influence.alert.v1",
            outputs,
            "emerging influencers",
            {"retention.ms": str(30 * DAY_MS)},
        )
        shards, about = settings.shards, "validated events on their way to the shards"
        self.mutations = TopicSpec(prefix + "groundswell.mutations", shards, about, FOREVER, sharded=True)
        about = "what shards tell each other"
        self.halos = TopicSpec(prefix + "groundswell.halos", shards, about, A_WEEK, sharded=True)
        about = "the artifact in use, and what shards say of a switch to another"
        self.models = TopicSpec(prefix + MODELS, 1, about, {"cleanup.policy": "compact"})

    @property
    def inputs(self) -> dict[Kind, TopicSpec]:
        """The input topics by the kind of their events."""
        return {"follow": self.follow, "share": self.share, "create": self.create}

    def kind(self, name: str) -> Kind:
        """The kind of events on the input topic `name`. Raises TopicError for any other topic."""
        for kind, spec in self.inputs.items():
            if spec.name == name:
                return kind
        message = f"{name} is no input topic; the input topics are {', '.join(s.name for s in self.inputs.values())}"
        raise TopicError(message)

    def dlq(self, topic: str | TopicSpec) -> TopicSpec:
        """The dead letters of an input topic, given by its spec or its full name."""
        name = topic if isinstance(topic, str) else topic.name
        config = {"max.message.bytes": str(DEAD_LETTER_MAX_BYTES), "retention.ms": str(30 * DAY_MS)}
        return TopicSpec(name + DEAD_LETTERS, 1, f"dead letters of {name}", config)

    def all(self) -> list[TopicSpec]:
        """Every topic, inputs first."""
        inputs = list(self.inputs.values())
        ours = (self.mutations, self.halos, self.models)
        return [*inputs, self.score, self.alert, *ours, *(self.dlq(spec) for spec in inputs)]


@contextmanager
def admin(settings: Settings, timeout_s: float = 5.0) -> Iterator[KafkaAdminClient]:
    """An admin client for the settings' Kafka, closed at the end; any error of Kafka's becomes a BrokerError."""
    knock(settings, timeout_s)
    try:
        client = KafkaAdminClient(**kafka_arguments(settings), bootstrap_timeout_ms=int(timeout_s * 1000))
    except (KafkaError, OSError, ValueError) as error:
        message = f"no Kafka at {settings.broker} ({one_line(error)}); start it or set GROUNDSWELL_BROKER"
        raise BrokerError(message) from error
    try:
        yield client
    except NotAllowed as error:
        raise error.of(rights.user(settings)) from error
    except KafkaError as error:
        refusal = rights.refusal(error, settings)
        if refusal is not None:
            raise refusal from error
        message = f"Kafka at {settings.broker} refused: {one_line(error)}"
        raise BrokerError(message) from error
    finally:
        client.close()


def create(client: KafkaAdminClient, specs: list[TopicSpec], timeout_s: float = 30.0) -> list[str]:
    """Create the topics that are missing and wait until every partition has a leader.

    Existing topics are left as they are; one whose number of partitions is fixed and another is an error, because
    shards depend on it. Returns the names of the created, in the order of `specs`.

    Raises:
        TopicError: as `check`; then nothing was created, unless a topic that is there is the reason.
    """
    _no_reshard(client, specs)
    absent = make(client, specs, timeout_s)
    check(client, specs)
    return absent


def make(client: KafkaAdminClient, specs: list[TopicSpec], timeout_s: float = 30.0) -> list[str]:
    """Create the topics that are missing, wait for their leaders, and ask nothing else; returns their names."""
    absent = missing(client, specs)
    rights.require(client, [Right("create", name) for name in absent])
    wanted = {
        spec.name: {"num_partitions": spec.partitions, "configs": spec.config} for spec in specs if spec.name in absent
    }
    try:
        if wanted:
            client.create_topics(wanted, raise_errors=True)
    except TopicAlreadyExistsError:
        # Another process was quicker with one of them; the rest may be left undone by the error.
        for name, options in wanted.items():
            with suppress(TopicAlreadyExistsError):
                client.create_topics({name: options})
    try:
        client.wait_for_topics([spec.name for spec in specs], timeout_ms=int(timeout_s * 1000))
    except KafkaTimeoutError as error:
        message = f"topics have no leader after {timeout_s:.0f} s ({one_line(error)}); are Kafka's brokers well?"
        raise TopicError(message) from error
    return absent


def check(client: KafkaAdminClient, specs: list[TopicSpec]) -> None:
    """Compare the topics with the registry.

    Raises:
        TopicError: one is missing or has another number of partitions than is fixed for it, or a reshard is not
            finished.
    """
    _no_reshard(client, specs)
    absent = missing(client, specs)
    if absent:
        message = f"topic {absent[0]} is missing; run `groundswell topics create`"
        raise TopicError(message)
    found = partitions(client, [spec.name for spec in specs])
    for spec in specs:
        check_partitions(spec, found[spec.name])


def partitions(client: KafkaAdminClient, names: list[str]) -> dict[str, int]:
    """How many partitions each of these topics has, all of which are there."""
    found = client.describe_topics(names) if names else []
    return {topic["name"]: len(topic["partitions"]) for topic in found}


def ids(client: KafkaAdminClient, names: list[str]) -> dict[str, str]:
    """The id of each of these topics, all of which are there; empty where Kafka has none (before 2.8)."""
    found = client.describe_topics(names) if names else []
    return {topic["name"]: id_text(UUID(str(topic.get("topic_id") or UUID(int=0))).bytes) for topic in found}


def check_partitions(spec: TopicSpec, found: int) -> None:
    """Compare a number of partitions with what is fixed for a topic.

    Raises:
        TopicError: it is another one.
    """
    if not spec.fixed or found == spec.partitions:
        return
    message = f"topic {spec.name} has {found} partitions where {spec.partitions} are needed; "
    if spec.sharded:
        message += f"set GROUNDSWELL_SHARDS={found}, which is what the topics were made for, or move to "
        message += f"{spec.partitions} with `groundswell state reshard --to {spec.partitions}`"
    else:
        message += "it holds only the artifact in use: stop all workers, delete it, start them, and give "
        message += "`groundswell model use` again"
    raise TopicError(message)


def _no_reshard(client: KafkaAdminClient, specs: list[TopicSpec]) -> None:
    existing = set(client.list_topics())
    begun = next((spec.name + RESHARD for spec in specs if spec.name + RESHARD in existing), None)
    if begun is not None:
        message = f"a reshard was begun and is not finished (topic {begun}): run the same `groundswell state reshard "
        raise TopicError(message + "--to N` again, and start workers when it is done")


def missing(client: KafkaAdminClient, specs: list[TopicSpec]) -> list[str]:
    """The names of `specs` that do not exist.

    Raises:
        NotAllowed: the user may not describe one.
    """
    return rights.absent(client, [spec.name for spec in specs])


@dataclass(frozen=True)
class PartitionState:
    """One partition: its first and next offset, what the group committed, and how far that is behind."""

    partition: int
    leader: int
    start: int
    end: int
    committed: int | None
    lag_records: int | None


def describe(client: KafkaAdminClient, specs: list[TopicSpec], group: str) -> dict[str, list[PartitionState]]:
    """The partitions of the topics that exist, by name. A partition without a commit has lag None."""
    absent = set(missing(client, specs))
    names = [spec.name for spec in specs if spec.name not in absent]
    if not names:
        return {}
    leaders = {
        TopicPartition(topic["name"], partition["partition_index"]): partition["leader_id"]
        for topic in client.describe_topics(names)
        for partition in topic["partitions"]
    }
    starts = client.list_partition_offsets(dict.fromkeys(leaders, OffsetSpec.EARLIEST))
    ends = client.list_partition_offsets(dict.fromkeys(leaders, OffsetSpec.LATEST))
    marks = committed(client, group)
    states: dict[str, list[PartitionState]] = {name: [] for name in names}
    for key in sorted(leaders):
        mark = marks[key].offset if key in marks else None
        lag = None if mark is None else max(0, ends[key].offset - mark)
        state = PartitionState(key.partition, leaders[key], starts[key].offset, ends[key].offset, mark, lag)
        states[key.topic].append(state)
    return states


def committed(client: KafkaAdminClient, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
    """Return what the group committed, by partition."""
    try:
        found = with_coordinator(lambda: client.list_group_offsets({group: None})).get(group, {})
    except GroupAuthorizationFailedError as error:
        raise NotAllowed([Right("describe", group, group=True)]) from error
    return {part: mark for part, mark in found.items() if mark.offset >= 0}


def with_coordinator(request: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """Send a request about a consumer group; a Kafka that just started has no group coordinator yet: retry."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return request()
        except KafkaError as error:
            if not error.retriable or time.monotonic() > deadline:
                raise
        time.sleep(0.1)
