"""The registry of all topics, and functions that create, check and describe them.

`Topics(settings)` is the only place that defines names, partition counts and configurations. The functions below it
take an admin client, so that a command or a test can share one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
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
from streams.kafka.access.preflight import check_connection
from streams.messages.packs.topic_identity import id_text
from streams.settings.connection import kafka_arguments
from streams.settings.settings import Settings

Kind = Literal["follow", "share", "create"]

# A pack has at most 700 KB, except for a single message: an array of just under the broker's 1 MB becomes one pack,
# and grows, because each of its mutations repeats its user.
MUTATIONS_MAX_BYTES = 4 * 1024 * 1024
# A dead letter is the whole message plus headers, so the limit exceeds that of the input topics.
DEAD_LETTER_MAX_BYTES = 2 * 1024 * 1024
DEAD_LETTERS = ".dlq"
MODELS = "groundswell.models"
RESHARD = ".reshard"
"""Suffix of the topic that `state reshard` writes until it is done, after the name of the mutations topic."""
FOREVER = {"retention.ms": "-1", "retention.bytes": "-1", "max.message.bytes": str(MUTATIONS_MAX_BYTES)}
DAY_MS = 86_400_000
A_WEEK = {"retention.ms": str(7 * DAY_MS), "max.message.bytes": str(MUTATIONS_MAX_BYTES)}
"""Retention of halos: a shard reads again only those after its announcement, which requests all it mirrors."""


@dataclass(frozen=True)
class TopicSpec:
    """A topic of the registry.

    Attributes:
        name: the full name, with the prefix of the settings.
        partitions: the number of partitions with which it is created.
        about: its contents, for people.
        config: its configuration in Kafka.
        sharded: whether it has one partition per shard.
    """

    name: str
    partitions: int
    about: str
    config: dict[str, str] = field(default_factory=dict, hash=False)
    sharded: bool = False

    @property
    def fixed(self) -> bool:
        """Whether the topic must have exactly this number of partitions."""
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
            # Without this bound Kafka may keep replaced values for any time, those of forgotten users too.
            {"cleanup.policy": "compact", "max.compaction.lag.ms": str(DAY_MS)},
        )
        # As for scores: values of forgotten users are removed within a day.
        compacted = {"cleanup.policy": "compact", "max.compaction.lag.ms": str(DAY_MS)}
        self.topic = TopicSpec(
            prefix + "influence.topic.v1", outputs, "posts, sharers and reach of each user on each topic", compacted
        )
        self.alert = TopicSpec(
            prefix + "influence.alert.v1",
            outputs,
            "emerging influencers",
            {"retention.ms": str(30 * DAY_MS)},
        )
        self.outcome = TopicSpec(
            prefix + "influence.outcome.v1",
            outputs,
            "what became of each alert: confirmed or expired",
            {"retention.ms": str(30 * DAY_MS)},
        )
        self.centrality = TopicSpec(
            prefix + "influence.centrality.v1", outputs, "PageRank, k-core and degrees of each user", compacted
        )
        self.community = TopicSpec(prefix + "influence.community.v1", outputs, "the community of each user", compacted)
        self.seeds = TopicSpec(
            prefix + "influence.seeds.v1", 1, "lists of users that reach most people together", compacted
        )
        shards, about = settings.shards, "validated events, routed to shards"
        self.mutations = TopicSpec(prefix + "groundswell.mutations", shards, about, FOREVER, sharded=True)
        about = "changes of nodes, sent to the shards that mirror them"
        self.halos = TopicSpec(prefix + "groundswell.halos", shards, about, A_WEEK, sharded=True)
        about = "the artifact in use, and the status of each shard during a switch"
        self.models = TopicSpec(prefix + MODELS, 1, about, {"cleanup.policy": "compact"})

    @property
    def inputs(self) -> dict[Kind, TopicSpec]:
        """The input topics, by kind of event."""
        return {"follow": self.follow, "share": self.share, "create": self.create}

    @property
    def outputs(self) -> list[TopicSpec]:
        """The topics that shards publish to."""
        return [self.score, self.topic, self.alert, self.outcome]

    @property
    def analysis(self) -> list[TopicSpec]:
        """The topics of the analyst."""
        return [self.centrality, self.community, self.seeds]

    def kind(self, name: str) -> Kind:
        """Return the kind of events on an input topic.

        Raises:
            TopicError: the topic is no input topic.
        """
        for kind, spec in self.inputs.items():
            if spec.name == name:
                return kind
        message = f"{name} is no input topic; the input topics are {', '.join(s.name for s in self.inputs.values())}"
        raise TopicError(message)

    def dlq(self, topic: str | TopicSpec) -> TopicSpec:
        """Return the dead letter topic of an input topic, which is given by its spec or its full name."""
        name = topic if isinstance(topic, str) else topic.name
        config = {"max.message.bytes": str(DEAD_LETTER_MAX_BYTES), "retention.ms": str(30 * DAY_MS)}
        return TopicSpec(name + DEAD_LETTERS, 1, f"dead letters of {name}", config)

    def of_worker(self) -> list[TopicSpec]:
        """Return every topic that a worker needs: all but the analyst's."""
        return [spec for spec in self.all() if spec not in self.analysis]

    def all(self) -> list[TopicSpec]:
        """Return every topic, inputs first."""
        inputs = list(self.inputs.values())
        internal = (self.mutations, self.halos, self.models)
        return [
            *inputs,
            *self.outputs,
            *self.analysis,
            *internal,
            *(self.dlq(spec) for spec in inputs),
        ]


@contextmanager
def admin(settings: Settings, timeout_s: float = 5.0) -> Iterator[KafkaAdminClient]:
    """Return an admin client for the Kafka of the settings, which is closed at the end.

    Raises:
        BrokerError: Kafka cannot be reached, or refused a request.
        NotAllowed: a right is missing.
    """
    check_connection(settings, timeout_s)
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

    Existing topics are not changed.

    Args:
        client: an admin client.
        specs: the topics.
        timeout_s: maximum seconds to wait for leaders.

    Returns:
        The names of the created topics, in the order of `specs`.

    Raises:
        TopicError: as for `check`. Missing topics were created, unless a reshard is not finished.
    """
    _no_reshard(client, specs)
    absent = make(client, specs, timeout_s)
    check(client, specs)
    return absent


def make(client: KafkaAdminClient, specs: list[TopicSpec], timeout_s: float = 30.0) -> list[str]:
    """Create the topics that are missing and wait for their leaders, without any check; returns their names."""
    absent = missing(client, specs)
    rights.require(client, [Right("create", name) for name in absent])
    wanted = {
        spec.name: {"num_partitions": spec.partitions, "configs": spec.config} for spec in specs if spec.name in absent
    }
    try:
        if wanted:
            client.create_topics(wanted, raise_errors=True)
    except TopicAlreadyExistsError:
        # Another process created one of them; the error may have left the others uncreated.
        for name, options in wanted.items():
            with suppress(TopicAlreadyExistsError):
                client.create_topics({name: options})
    try:
        client.wait_for_topics([spec.name for spec in specs], timeout_ms=int(timeout_s * 1000))
    except KafkaTimeoutError as error:
        message = f"topics have no leader after {timeout_s:.0f} s ({one_line(error)}); check Kafka's brokers"
        raise TopicError(message) from error
    return absent


def check(client: KafkaAdminClient, specs: list[TopicSpec]) -> None:
    """Compare the topics with the registry.

    Raises:
        TopicError: a topic is missing or has another number of partitions than it must have, or a reshard is not
            finished.
    """
    _no_reshard(client, specs)
    absent = missing(client, specs)
    if absent:
        message = f"topic {absent[0]} is missing; run `groundswell topics create`"
        raise TopicError(message)
    counts = partitions(client, [spec.name for spec in specs])
    for spec in specs:
        check_partitions(spec, counts[spec.name])


def partitions(client: KafkaAdminClient, names: list[str]) -> dict[str, int]:
    """Return the number of partitions of each of these existing topics."""
    described = client.describe_topics(names) if names else []
    return {topic["name"]: len(topic["partitions"]) for topic in described}


def ids(client: KafkaAdminClient, names: list[str]) -> dict[str, str]:
    """Return the id of each of these existing topics; empty if Kafka has none (before 2.8)."""
    described = client.describe_topics(names) if names else []
    return {topic["name"]: id_text(UUID(str(topic.get("topic_id") or UUID(int=0))).bytes) for topic in described}


def check_partitions(spec: TopicSpec, partitions: int) -> None:
    """Compare the number of partitions of a topic with the one that it must have.

    Raises:
        TopicError: the numbers differ.
    """
    if not spec.fixed or partitions == spec.partitions:
        return
    message = f"topic {spec.name} has {partitions} partitions where {spec.partitions} are needed; "
    if spec.sharded:
        message += f"set GROUNDSWELL_SHARDS={partitions}, for which the topics were created, or move to "
        message += f"{spec.partitions} with `groundswell state reshard --to {spec.partitions}`"
    else:
        message += "it has only the artifact in use: stop all workers, delete it, start them, and run "
        message += "`groundswell model use` again"
    raise TopicError(message)


def _no_reshard(client: KafkaAdminClient, specs: list[TopicSpec]) -> None:
    existing = set(client.list_topics())
    unfinished = next((spec.name + RESHARD for spec in specs if spec.name + RESHARD in existing), None)
    if unfinished is not None:
        message = (
            f"a reshard was begun and is not finished (topic {unfinished}): run the same `groundswell state reshard "
        )
        raise TopicError(message + "--to N` again, and start workers when it is done")


def missing(client: KafkaAdminClient, specs: list[TopicSpec]) -> list[str]:
    """Return the names of the topics that do not exist.

    Raises:
        NotAllowed: the user may not describe a topic.
    """
    return rights.absent(client, [spec.name for spec in specs])


@dataclass(frozen=True)
class PartitionState:
    """One partition.

    Attributes:
        partition: its number.
        leader: the broker that leads it.
        start: the first offset.
        end: the offset after the last.
        committed: the offset that the group committed; None if it committed none.
        lag_records: records between `committed` and `end`; None without a commit.
    """

    partition: int
    leader: int
    start: int
    end: int
    committed: int | None
    lag_records: int | None


def describe(client: KafkaAdminClient, specs: list[TopicSpec], group: str) -> dict[str, list[PartitionState]]:
    """Return the partitions of the topics that exist, by topic.

    Args:
        client: an admin client.
        specs: the topics.
        group: the consumer group whose commits are read.
    """
    absent = set(missing(client, specs))
    names = [spec.name for spec in specs if spec.name not in absent]
    if not names:
        return {}
    leaders = {
        TopicPartition(topic["name"], partition["partition_index"]): partition["leader_id"]
        for topic in client.describe_topics(names)
        for partition in topic["partitions"]
    }
    offsets = ranges(client, leaders)
    commits = committed(client, group)
    states: dict[str, list[PartitionState]] = {name: [] for name in names}
    for key in sorted(leaders):
        offset, (begin, end) = commits[key].offset if key in commits else None, offsets[key]
        lag = None if offset is None else max(0, end - offset)
        state = PartitionState(key.partition, leaders[key], begin, end, offset, lag)
        states[key.topic].append(state)
    return states


def ranges(client: KafkaAdminClient, keys: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
    """Return the first offset and the offset after the last of each of these partitions."""
    begins = client.list_partition_offsets(dict.fromkeys(keys, OffsetSpec.EARLIEST))
    ends = client.list_partition_offsets(dict.fromkeys(begins, OffsetSpec.LATEST))
    return {key: (begin.offset, ends[key].offset) for key, begin in begins.items()}


def committed(client: KafkaAdminClient, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
    """Return the commits of a consumer group, by partition."""
    try:
        commits = with_coordinator(lambda: client.list_group_offsets({group: None})).get(group, {})
    except GroupAuthorizationFailedError as error:
        raise NotAllowed([Right("describe", group, group=True)]) from error
    return {part: commit for part, commit in commits.items() if commit.offset >= 0}


def with_coordinator(request: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """Return the result of a request about a consumer group.

    Retries while the error is retriable: a Kafka that has just started has no group coordinator yet.

    Args:
        request: sends the request.
        timeout_s: seconds after which the error is raised.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return request()
        except KafkaError as error:
            if not error.retriable or time.monotonic() > deadline:
                raise
        time.sleep(0.1)
