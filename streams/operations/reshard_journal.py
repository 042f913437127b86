"""Topics of a reshard, and its journal.

The new log is written to `<mutations>.reshard`: one partition per new shard, and behind them one partition with the
journal, a record per completed stage.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
from kafka import KafkaAdminClient
from kafka.errors import TopicAlreadyExistsError

from streams.errors import BrokerError, StateError, TopicError
from streams.kafka import topics
from streams.kafka.access import rights
from streams.kafka.log_io import reader, writer
from streams.kafka.topics import FOREVER, RESHARD, Topics, TopicSpec
from streams.settings.settings import Settings

BUILD, SWAP, SETTLE, PLACE = "build", "swap", "settle", "place"
"""Stages of a journal, in order: each is recorded once everything before it is done."""
TOPIC_TIMEOUT_S = 30.0
"""Deadline for Kafka to create or delete topics."""
POLL_S = 0.1

_FIELD_NAMES = {
    "run_id": "name", "old_shards": "old", "new_shards": "new", "old_ends": "read", "new_ends": "ends",
    "bytes": "size",
}  # fmt: skip


class Journal(msgspec.Struct, rename=_FIELD_NAMES):
    """Progress of a reshard.

    Attributes:
        stage: The stage that comes next: BUILD, SWAP, SETTLE or PLACE.
        run_id: Distinguishes this move from earlier ones; part of folder names and event sources.
        old_shards: Number of shards before the move.
        new_shards: Number of shards after it.
        old_ends: End offset of each partition of the old log, as it was read.
        new_ends: End offset of each partition of the new log.
        events: Number of events in the new log.
        facts: Number of facts in the new log.
        expired: Number of events that a new shard refused as too late.
        bytes: Size of the new log.
    """

    stage: str
    run_id: str
    old_shards: int
    new_shards: int
    old_ends: list[int] = []
    new_ends: list[int] = []
    events: int = 0
    facts: int = 0
    expired: int = 0
    bytes: int = 0


class ReshardTopics:
    """Reads, creates and deletes the topics of a reshard.

    Attributes:
        log: The mutations topic, with the new number of partitions.
        halos: The halos topic, with the new number of partitions.
        staging: `<mutations>.reshard`, which holds the new log and the journal.
        alert: Name of the alert topic.
        inputs: Names of the input topics.
    """

    def __init__(self, settings: Settings, client: KafkaAdminClient, new_shards: int) -> None:
        self._settings = settings
        self._client = client
        self._journal_partition = new_shards
        specs = Topics(settings)
        self.log, self.halos = specs.mutations, specs.halos
        self.alert = specs.alert.name
        self.inputs = {spec.name for spec in specs.inputs.values()}
        self.staging = TopicSpec(
            self.log.name + RESHARD, new_shards + 1, "the log of another number of shards", FOREVER
        )

    def partitions(self, name: str) -> int | None:
        """Return the number of partitions of a topic; None if Kafka does not have it."""
        if rights.absent(self._client, [name]):
            return None
        (description,) = self._client.describe_topics([name])
        return len(description["partitions"])

    def log_id(self) -> str:
        """Return the id of the mutations topic; empty if this Kafka has no topic ids."""
        return topics.ids(self._client, [self.log.name])[self.log.name]

    def bounds(self, name: str) -> list[tuple[int, int]]:
        """Return the first and the end offset of each partition of a topic."""
        spec = TopicSpec(name, 0, "")
        states = topics.describe(self._client, [spec], self._settings.consumer_group)[name]
        return [(state.start, state.end) for state in states]

    def ends(self, name: str) -> list[int]:
        """Return the end offset of each partition of a topic."""
        return [end for _, end in self.bounds(name)]

    def complete_log_ends(self) -> list[int]:
        """Return the end offset of each partition of the log.

        Raises:
            StateError: the beginning of a partition was deleted.
        """
        bounds = self.bounds(self.log.name)
        for partition, (start, _) in enumerate(bounds):
            if start:
                raise StateError(
                    f"partition {partition} of {self.log.name} begins at offset {start}: the log is not whole any "
                    "more, and a move to another number of shards needs all of it"
                )
        return [end for _, end in bounds]

    def delete(self, names: list[str]) -> None:
        """Delete the topics of these that exist, and wait until Kafka no longer lists them."""
        present = [name for name in names if name in self._client.list_topics()]
        if present:
            self._client.delete_topics(present)
        _wait_until(lambda: not set(present) & set(self._client.list_topics()), f"{', '.join(present)} to be deleted")

    def create(self, specs: list[TopicSpec]) -> None:
        """Create topics.

        Raises:
            BrokerError: Kafka did not create them in time.
            TopicError: one was created by another client with another number of partitions.
        """

        def try_create() -> bool:
            try:
                topics.make(self._client, specs)
            except TopicAlreadyExistsError:  # Kafka is still deleting the previous topic of this name
                return False
            return True

        _wait_until(try_create, f"{specs[0].name} to be created")
        for spec in specs:
            if (count := self.partitions(spec.name)) != spec.partitions:
                raise TopicError(
                    f"another client created {spec.name} with {count} partitions at the same time: run this again"
                )

    def read_journal(self) -> Journal | None:
        """Return the newest journal record; None if no move was begun."""
        name = self.staging.name
        count = self.partitions(name)
        if count is None:
            return None
        # The number of partitions of an unfinished move may differ from that of this one.
        journal = Journal(BUILD, "", 0, count - 1)
        with reader(self._settings, name, count - 1, self.ends(name)[-1]) as messages:
            for _, value in messages:
                journal = msgspec.json.decode(value, type=Journal)
        return journal

    def append_journal(self, journal: Journal) -> None:
        """Append a journal record and wait for its acknowledgement."""
        with writer(self._settings, self.staging.name) as staging:
            staging.write(self._journal_partition, msgspec.json.encode(journal))


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TOPIC_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise BrokerError(
                f"Kafka took longer than {TOPIC_TIMEOUT_S:.0f} s for {what}: check the broker, then run the same "
                "command again"
            )
        time.sleep(POLL_S)
