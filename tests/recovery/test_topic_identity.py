"""Topics that were recreated, truncated, or belong to another Kafka, while the worker is stopped or running: no event
that Kafka still has is dropped, or the worker exits with an error line.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.structs import OffsetAndMetadata

from streams.embedded import EmbeddedKafka
from streams.kafka.topics import Topics, TopicSpec, admin, create, make, ranges
from streams.messages.packs.topic_identity import CUT_BACK, MADE_ANEW, OTHER_LOG, UNREAD, Identity, read_note
from streams.operations.doctor import Check, examine, state
from streams.settings.settings import Settings
from tests.support.workers import WorkerProcess, producer, refusal, wait_for

TIME = 1_772_366_400
SCORED_S = 30.0


class Rig:
    """One installation: its topics, and successive workers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topics = Topics(settings)
        self.input = self.topics.create
        with admin(settings) as client:
            create(client, self.topics.all())

    def send(self, *users: str, partition: int = 0) -> None:
        """Send one create event by each of these users."""
        with producer(self.settings) as sender:
            for user in users:
                event = {"type": "create", "time": TIME, "user": user, "content": f"by-{user}"}
                sender.send(self.input.name, json.dumps(event).encode(), partition=partition)

    def follow(self, spec: TopicSpec, *users: str) -> None:
        """Send one follow event by each of these users."""
        self._put(spec, [{"type": "follow", "time": TIME, "user": user, "target": f"of-{user}"} for user in users])

    def share(self, spec: TopicSpec, *users: str) -> None:
        """Send one share event by each of these users."""
        self._put(spec, [{"type": "share", "time": TIME, "user": user, "content": "by-old0-0"} for user in users])

    def _put(self, spec: TopicSpec, events: list[dict[str, object]]) -> None:
        with producer(self.settings) as sender:
            for event in events:
                sender.send(spec.name, json.dumps(event).encode(), partition=0)

    @contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        """An admin client."""
        with admin(self.settings) as client:
            yield client

    def delete(self, spec: TopicSpec) -> None:
        """Delete a topic and wait until it is gone."""
        with self.admin() as client:
            client.delete_topics([spec.name])
            wait_for(lambda: spec.name not in client.list_topics(), 30, "a topic to be gone")

    def make(self, *specs: TopicSpec) -> None:
        """Create topics as an operator would."""
        with self.admin() as client:
            make(client, list(specs))

    @contextmanager
    def worker(self, settings: Settings | None = None) -> Iterator[WorkerProcess]:
        """A ready worker that must exit with code 0."""
        process = WorkerProcess(settings or self.settings)
        process.start()
        try:
            process.wait_ready()
            yield process
            assert process.stop() == 0, process.log.read_text()
        finally:
            process.kill()

    def lives_with(self, *users: str) -> None:
        """Send events of these users, have a worker score them, and stop it."""
        self.send(*users)
        with self.worker() as process:
            scored(process, *users)
            # Leave time for the commit before the worker stops.
            time.sleep(0.6)

    def held(self) -> dict[tuple[str, int], OffsetAndMetadata]:
        """The commits of the group."""
        with self.admin() as client:
            found = client.list_group_offsets({self.settings.consumer_group: None})[self.settings.consumer_group]
        return {(part.topic, part.partition): mark for part, mark in found.items() if mark.offset >= 0}

    def note(self, partition: int, offset: int, note: str) -> None:
        """Commit an offset of the input for the group."""
        mark = {TopicPartition(self.input.name, partition): OffsetAndMetadata(offset, note, -1)}
        with self.admin() as client:
            client.alter_group_offsets(self.settings.consumer_group, mark)


@pytest.fixture
def rig(settings: Settings) -> Rig:
    """An installation on the session's broker."""
    return Rig(settings)


def has(process: WorkerProcess, user: str) -> bool:
    """Whether the worker has a user."""
    return process.get(f"/api/v1/users/{user}")[0] == 200


def scored(process: WorkerProcess, *users: str) -> None:
    """Wait until the worker has scored these users."""
    wait_for(lambda: all(has(process, user) for user in users), SCORED_S, f"{users} to be scored")


def restarts(process: WorkerProcess, topic: str) -> dict[str, float]:
    """Number of partitions of an input that were not continued, by reason."""
    found = {}
    for line in process.get("/metrics")[1].decode().splitlines():
        if line.startswith("groundswell_input_restarts_total") and topic in line:
            found[line.partition('reason="')[2].partition('"')[0]] = float(line.rpartition(" ")[2])
    return {reason: count for reason, count in found.items() if count}


OLD = tuple(f"old{n}" for n in range(6))
NEW = tuple(f"new{n}" for n in range(5))


def test_inputs_that_change_while_the_worker_is_stopped(rig: Rig) -> None:
    """All earlier and later events are scored; each change is logged and counted.

    Two topics are recreated, one shorter and one with more events than before; partitions of the third are truncated
    before and after the position, end before it, or have offsets of another cluster.
    """
    topics, lost = rig.topics, {"unread"}
    for partition in range(4):
        rig.send(*(f"old{partition}-{n}" for n in range(6)), partition=partition)
    rig.follow(topics.follow, "a", "b", "c")
    rig.share(topics.share, "d", "e", "f")
    old = [*(f"old{partition}-{n}" for partition in range(4) for n in range(6)), *"abcdef"]
    with rig.worker() as process:
        scored(process, *old)
        time.sleep(0.6)
    rig.delete(topics.follow)
    rig.make(topics.follow)
    rig.delete(topics.share)
    rig.make(TopicSpec(topics.share.name, 2, ""))
    rig.share(topics.share, *(f"more{n}" for n in range(9)))
    rig.send(*lost, partition=0)
    with rig.admin() as client:
        client.delete_records({TopicPartition(rig.input.name, 0): 7, TopicPartition(rig.input.name, 1): 6})
    held = {partition: rig.held()[rig.input.name, partition] for partition in range(4)}
    assert [held[partition].offset for partition in range(4)] == [6] * 4
    rig.note(2, 106, held[2].metadata)
    before = read_note(held[3].metadata)
    assert before is not None
    rig.note(3, 3, Identity("AAAAAAAAAAAAAAAAAAAAAQ", 0, before.log).note())
    with rig.worker() as process:
        assert restarts(process, rig.input.name) == {UNREAD: 1, CUT_BACK: 1, MADE_ANEW: 1}
        assert restarts(process, topics.follow.name) == restarts(process, topics.share.name) == {MADE_ANEW: 1}
        for partition in range(4):
            rig.send(*(f"new{partition}-{n}" for n in range(3)), partition=partition)
        rig.follow(topics.follow, "g")
        rig.share(topics.share, "h")
        new = [f"new{partition}-{n}" for partition in range(4) for n in range(3)]
        scored(process, *old, *new, *(f"more{n}" for n in range(9)), "g", "h")
        assert not has(process, "unread")
    with rig.worker() as process:
        assert not restarts(process, rig.input.name)
        assert has(process, "g")


def test_an_input_that_changes_while_the_worker_runs(rig: Rig) -> None:
    """While it is deleted the worker is not ready; recreated smaller, or truncated, its events are scored."""
    rig.send(*OLD)
    with rig.worker() as process:
        scored(process, *OLD)
        rig.delete(rig.input)
        wait_for(lambda: process.get("/readyz")[0] == 503, 20, "the worker not to be ready")
        wait_for(lambda: rig.input.name in process.get("/readyz")[1].decode(), 20, "the reason")
        rig.make(TopicSpec(rig.input.name, 2, ""))
        rig.send(*NEW)
        scored(process, *NEW)
        process.wait_ready()
        # Longer than the position, between two checks.
        rig.delete(rig.input)
        rig.make(rig.input)
        rig.send(*(f"late{n}" for n in range(20)))
        scored(process, *(f"late{n}" for n in range(20)))
        with rig.admin() as client:
            client.delete_records({TopicPartition(rig.input.name, 0): 20})
        rig.send("last")
        scored(process, *OLD, "last")
        assert restarts(process, rig.input.name)[MADE_ANEW] >= 2


def test_a_commit_without_topic_id_is_adopted(rig: Rig) -> None:
    """Commits and states without topic ids belong to the current topics; then all get ids, also idle partitions."""
    rig.lives_with(*OLD)
    rig.note(0, len(OLD), "")
    rig.note(3, 0, "")
    with rig.worker() as process:
        assert not restarts(process, rig.input.name)
        rig.send(*NEW)
        scored(process, *OLD, *NEW)
    notes = {key: read_note(mark.metadata) for key, mark in rig.held().items() if key[0] == rig.input.name}
    assert len(notes) == 4
    assert len({note.topic for note in notes.values() if note}) == 1


def aside(settings: Settings) -> Settings:
    """The settings with another data folder, as after the old one was moved."""
    return settings.model_copy(update={"datadir": Path(f"{settings.datadir}-new")})


def test_the_mutations_topic_is_recreated_while_the_worker_is_stopped(rig: Rig, tmp_path: Path) -> None:
    """One error line although the offsets fit; its remedy restores everything and uses no checkpoint of the old log."""
    kept = rig.settings.model_copy(update={"checkpoints": f"file://{tmp_path / 'kept'}", "checkpoint_every_s": 1.0})
    rig.settings = kept
    rig.send(*OLD)
    with rig.worker() as process:
        scored(process, *OLD)
        wait_for(lambda: bool(list((tmp_path / "kept").rglob("manifests/*"))), 30, "a checkpoint")
    rig.delete(rig.topics.mutations)
    rig.make(rig.topics.mutations)
    with producer(kept) as sender:
        # At least as long as the old one.
        for _ in range(40):
            sender.send(rig.topics.mutations.name, b"not ours", partition=0)
    assert "is of another" in refusal(kept)
    assert "GROUNDSWELL_DATADIR aside" in refusal(kept)
    rig.delete(rig.topics.mutations)
    with rig.worker(aside(kept)) as process:
        rig.send(*NEW)
        scored(process, *OLD, *NEW)
        assert OTHER_LOG in restarts(process, rig.input.name)
        assert "checkpoint_restored" not in process.log.read_text()


def test_the_mutations_topic_is_recreated_while_the_worker_runs(rig: Rig) -> None:
    """The worker exits with one line, and so does the next, which names the same remedy as in the test before."""
    rig.send(*OLD)
    process = WorkerProcess(rig.settings)
    process.start()
    try:
        process.wait_ready()
        scored(process, *OLD)
        rig.delete(rig.topics.mutations)
        rig.make(rig.topics.mutations)
        rig.send(*NEW)
        assert rig.topics.mutations.name in process.error_line()
    finally:
        process.kill()
    assert "GROUNDSWELL_DATADIR aside" in refusal(rig.settings)


def cut(rig: Rig) -> int:
    """Delete all records of the mutations topic; return the offset at which it begins now."""
    key = TopicPartition(rig.topics.mutations.name, 0)
    with rig.admin() as client:
        begin = ranges(client, [key])[key][1]
        client.delete_records({key: begin})
    return begin


def test_read_records_of_the_mutations_topic_are_deleted(rig: Rig) -> None:
    """Records that a state has may be deleted, with the worker running or stopped: it reads on, nothing is repeated."""
    rig.send(*OLD)
    with rig.worker() as process:
        scored(process, *OLD)
        assert cut(rig) > 0
        rig.send(*NEW)
        scored(process, *NEW)
    begin = cut(rig)
    assert examine(Check("state", state), rig.settings).ok
    with rig.worker() as process:
        rig.send("last")
        scored(process, *OLD, *NEW, "last")
        assert not restarts(process, rig.input.name)
        assert cut(rig) > begin


def test_unread_records_of_the_mutations_topic_are_deleted(rig: Rig) -> None:
    """A running, a starting and an empty worker exit with one line; its remedy brings all events back."""
    name, line = rig.topics.mutations.name, ""
    rig.send(*OLD)
    process = WorkerProcess(rig.settings)
    process.start()
    try:
        process.wait_ready()
        scored(process, *OLD)
        assert process.process is not None
        process.process.send_signal(signal.SIGSTOP)
        # The broker has answered the fetch that waited.
        time.sleep(0.2)
        with producer(rig.settings) as sender:
            sender.send(name, b"not read", partition=0)
        line = f"{name} begins at offset {cut(rig)}: `groundswell state checkpoints` lists"
        process.process.send_signal(signal.SIGCONT)
        assert line in process.error_line()
    finally:
        process.kill()
    rig.send(*NEW)
    assert line in refusal(rig.settings)
    assert line in examine(Check("state", state), rig.settings).detail
    error = refusal(aside(rig.settings))
    assert "shard 0 ends at offset 0" in error
    assert f"{line} the checkpoints in" in error
    assert f"delete {name} and start again" in error
    rig.delete(rig.topics.mutations)
    with rig.worker(aside(rig.settings)) as process:
        scored(process, *OLD, *NEW)
        assert OTHER_LOG in restarts(process, rig.input.name)


def test_another_cluster_with_the_same_names(rig: Rig, tmp_path: Path) -> None:
    """A state refuses the topics of another Kafka, even of the same length; a new state reads all of them."""
    rig.lives_with(*OLD)
    with EmbeddedKafka(tmp_path / "other") as kafka:
        there = Rig(rig.settings.model_copy(update={"broker": kafka.address}))
        there.settings = aside(there.settings)
        there.lives_with(*OLD)
        line = refusal(rig.settings.model_copy(update={"broker": kafka.address}))
        assert "is of another" in line
        assert "GROUNDSWELL_BROKER" in line
    with rig.worker() as process:
        assert not restarts(process, rig.input.name)
