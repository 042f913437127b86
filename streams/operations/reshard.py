"""`state reshard`: another number of shards, in stages that are each begun again if they were interrupted.

    begin   <mutations>.reshard is made: from here on no worker starts
    build   the old log is read, the new one is written to <mutations>.reshard, with the shards' states beside it
    swap    mutations and halos are deleted and made anew, the new log is copied: the same bytes at the same offsets
    settle  the group counts it as published; old states are moved away, new ones put in place, checkpoints kept
    end     <mutations>.reshard is deleted

Until the journal says that the new log is whole, the old one is untouched and a second attempt begins anew; from then
on the new one is in two places or will be. The journal is the partition behind the last shard's of <mutations>.reshard.

The offsets that the group committed of the input topics stay. What ingest has acknowledged by them is in all partitions
that it concerns, so the new shards skip it should it come again; what lies behind may be in some partitions only, and
will be sent again: twice makes no difference. The new log is committed to its end: all of it was published, so a
worker is silent while it rebuilds, and then publishes one score for everybody.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import NoError, TopicAlreadyExistsError
from kafka.structs import OffsetAndMetadata

from graphstate.storage.options import RocksDbBudget
from graphstate.types import Progress
from model.artifact import Artifact
from streams.errors import BrokerError, StateError, TopicError, WorkerError
from streams.kafka import topics
from streams.kafka.access import rights, rights_table
from streams.kafka.log_io import reader, writer
from streams.kafka.topics import FOREVER, RESHARD, Topics, TopicSpec
from streams.messages.topic_identity import Identity, read_note
from streams.operations.resharded_log import NewLog, OldPartition, merged
from streams.settings.settings import Settings
from streams.shard.graph_view import graph_spec
from streams.shard.shard import Shard
from streams.worker import checkpoints
from streams.worker.data_dir import lock_data_dir, shard_folders, state_folder
from streams.worker.log_mark import record_log_id
from streams.worker.rollout.models_topic import artifact_in_use, read_models_topic

AWAY = ".before-reshard"
"""Behind the name of a state's folder that is of no use any more."""
BUILT = ".reshard-"
"""How the folder of new states begins, under DATADIR, until they are put in place."""
BUILD, SWAP, SETTLE, PLACE = "build", "swap", "settle", "place"
SOURCE = "reshard-"
"""How the source of moved events begins."""
EPOCH = datetime.fromtimestamp(0, UTC)
MADE_S = 30.0
AGAIN_S = 0.1


class Journal(msgspec.Struct):
    """How far a reshard is.

    read: where the old partitions ended. ends: where the new ones end. clock: µs. The rest is for the report.
    """

    stage: str
    name: str
    old: int
    new: int
    read: list[int] = []
    ends: list[int] = []
    events: int = 0
    facts: int = 0
    expired: int = 0
    size: int = 0


@dataclass
class Report:
    """What a reshard did, or would do (`done` is False then)."""

    old: int
    new: int
    done: bool
    continued: str = ""
    records: int = 0
    events: int = 0
    facts: int = 0
    expired: int = 0
    bytes: int = 0
    seconds: float = 0.0
    moved: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    checkpoints: list[str] = field(default_factory=list)


def reshard(settings: Settings, new: int, progress: Progress, *, dry_run: bool = False) -> Report:
    """Move to another number of shards, or go on with a move to it that was interrupted.

    Args:
        settings: those of the workers: what they retain decides what the new shards tell each other. SHARDS is not
            asked; the topics know it.
        new: how many shards there shall be.
        progress: told what is being done, and how far it is.
        dry_run: change nothing.

    Raises:
        WorkerError: the group has members.
        StateError: the log is not whole, or grows meanwhile.
        TopicError: there is no log, or another move was begun.
    """
    begin = time.monotonic()
    with lock_data_dir(settings.datadir), topics.admin(settings) as client:
        needed = rights_table.describe(settings) if dry_run else rights_table.reshard(settings)
        rights.require(client, needed, MADE_S, existing_too=True)
        moving = Resharding(settings, client, new, progress)
        moving.alone()
        report = moving.run(dry_run=dry_run)
        report.seconds = round(time.monotonic() - begin, 3)
        return report


class Resharding:
    """One run of the command."""

    def __init__(self, settings: Settings, client: KafkaAdminClient, new: int, progress: Progress) -> None:
        self.settings = settings.model_copy(update={"shards": new})
        self.client = client
        self.new = new
        self.progress = progress
        self.topics = Topics(self.settings)
        self.log = self.topics.mutations
        # What the journal is written to has a partition more than there are shards.
        self.beside = TopicSpec(self.log.name + RESHARD, new + 1, "the log of another number of shards", FOREVER)

    # Stages

    def run(self, *, dry_run: bool) -> Report:
        """Begin or go on."""
        journal = self._journal()
        continued = "" if journal is None else journal.stage
        if journal is None or journal.stage == BUILD:
            old = self._partitions(self.log.name)
            if old is None:
                raise TopicError(f"topic {self.log.name} is missing, so there is nothing to move; is the prefix right?")
            if old == self.new:
                if not dry_run:
                    self._delete([self.beside.name])
                return Report(old, self.new, done=True)
            if dry_run:
                return Report(old, self.new, done=False, continued=continued, records=sum(self._old_ends(old)))
            journal = self._build(old)
        elif journal.new != self.new:
            raise TopicError(
                f"a move to {journal.new} shards was begun and its new log is whole: finish it with "
                f"`groundswell state reshard --to {journal.new}`, then move on"
            )
        report = Report(journal.old, journal.new, not dry_run, continued, sum(journal.read))
        report.events, report.facts = journal.events, journal.facts
        report.expired, report.bytes = journal.expired, journal.size
        if not dry_run:
            self._swap(journal)
            self._settle(journal, report)
        return report

    def _build(self, old: int) -> Journal:
        """Write the new log beside the old one."""
        artifact = artifact_in_use(self.settings, read_models_topic(self.settings))
        reads = self._old_ends(old)
        self._delete([self.beside.name])
        for folder in self.settings.datadir.glob(f"{BUILT}*"):
            shutil.rmtree(folder)
        journal = Journal(BUILD, str(time.time_ns() // 1_000_000), old, self.new, reads)
        self._make([self.beside])
        self._note(journal)
        self.alone()
        parts = [OldPartition(self.log.name, partition, old) for partition in range(old)]
        with ExitStack() as stack:
            sending = stack.enter_context(writer(self.settings, self.beside.name))
            memory = RocksDbBudget(self.settings.memory_mb << 20)
            shards = [self._open(stack, journal, shard, memory, artifact) for shard in range(self.new)]
            new = NewLog(shards, self.log.name, f"{SOURCE}{journal.name}", sending.send)
            streams = [
                part.events(stack.enter_context(reader(self.settings, self.log.name, part.partition, end)))
                for part, end in zip(parts, reads, strict=True)
            ]
            for number, timed in enumerate(merged(streams)):
                new.add(timed)
                if number % 10_000 == 0:
                    self.progress("building the new log", sum(part.read for part in parts), sum(reads))
            new.finish(max(part.clock for part in parts), self._acknowledged())
            new.remember(self._alerted())
            sending.flush()
        journal.stage, journal.ends, journal.size = SWAP, new.ends, new.bytes
        journal.events, journal.facts, journal.expired = new.events, new.facts, new.expired
        self._unchanged(journal)
        self._note(journal)
        return journal

    def _open(self, stack: ExitStack, journal: Journal, shard: int, memory: RocksDbBudget, artifact: Artifact) -> Shard:
        settings = self.settings
        spec = graph_spec(artifact.config, retention_s=settings.retention_s, lateness_s=settings.lateness_s)
        folder = state_folder(settings.datadir / f"{BUILT}{journal.name}", shard)
        folder.parent.mkdir(exist_ok=True)
        opened = Shard.open(folder, artifact, replace(spec, shards=self.new, shard=shard), memory=memory)
        stack.callback(opened.close)
        return opened

    def _swap(self, journal: Journal) -> None:
        """Put the new log in the place of the old one."""
        if journal.stage != SWAP:
            return
        if self._partitions(self.log.name) == journal.old:
            self.alone()
            self._unchanged(journal)
        self.progress("replacing the old log", 0, 0)
        self._delete([self.log.name, self.topics.halos.name])
        self._make([self.log, self.topics.halos])
        done, total = 0, sum(journal.ends)
        with writer(self.settings, self.log.name) as sending:
            for partition, end in enumerate(journal.ends):
                with reader(self.settings, self.beside.name, partition, end) as messages:
                    for offset, value in messages:
                        if done % 1_000 == 0:
                            self.progress("copying the new log", done, total)
                        sending.send(partition, offset, value)
                        done += 1
            sending.flush()
        if (ends := self._ends(self.log.name)) != journal.ends:
            raise StateError(f"{self.log.name} ends at {ends} and not at {journal.ends}: run the same command again")
        journal.stage = SETTLE
        self._note(journal)

    def _settle(self, journal: Journal, report: Report) -> None:
        """Everything around the log."""
        self.progress("putting the states in place", 0, 0)
        self._commit(journal)
        datadir = self.settings.datadir
        if journal.stage == SETTLE:
            report.moved = [str(move_away(folder)) for folder in shard_folders(datadir).values()]
            journal.stage = PLACE
            self._note(journal)
        built = datadir / f"{BUILT}{journal.name}"
        for shard in range(journal.new):
            folder = state_folder(datadir, shard)
            if state_folder(built, shard).exists():
                record_log_id(state_folder(built, shard), self._log_id())
                state_folder(built, shard).rename(folder)
            if folder.exists():
                report.states.append(str(folder))
        shutil.rmtree(built, ignore_errors=True)
        if self.settings.checkpoints:
            report.checkpoints = [self._keep(shard) for shard in range(journal.new)]
        self._commit(journal)
        self._delete([self.beside.name])

    def _keep(self, shard: int) -> str:
        """Keep a checkpoint of a new state, and none of an older log with as many shards."""
        self.progress("keeping checkpoints", shard, self.new)
        kept, folder = checkpoints.repository(self.settings, shard), state_folder(self.settings.datadir, shard)
        kept.prune(0)
        if not folder.exists():
            return ""
        return checkpoints.save_checkpoint(self.settings, kept, folder, shard).id

    # The group

    def alone(self) -> None:
        """Wait until the group has no members, for as long as it takes to notice that one was killed.

        Raises:
            WorkerError: it has some.
        """
        group, deadline = self.settings.consumer_group, time.monotonic() + self.settings.session_timeout_s + 4
        while True:
            found = topics.with_coordinator(lambda: self.client.describe_groups([group]))[group]
            hosts = sorted(f"{member['client_id']} on {member['client_host']}" for member in found["members"])
            wrong = str(found.get("error") or "")
            if not hosts and (not wrong or "GroupIdNotFound" in wrong):
                return
            if time.monotonic() > deadline:
                who = f"has {len(hosts)} member(s) ({', '.join(hosts)})" if hosts else f"cannot be seen ({wrong})"
                raise WorkerError(f"the group {group} {who}: stop all workers, then run this again")
            self.progress("waiting for the group to be empty", 0, 0)
            time.sleep(AGAIN_S)

    def _committed(self) -> dict[TopicPartition, OffsetAndMetadata]:
        return topics.committed(self.client, self.settings.consumer_group)

    def _acknowledged(self) -> dict[str, int]:
        """The last message of each input partition that ingest is through with, by its source."""
        return {
            (read_note(held.metadata) or Identity()).source(part.topic, part.partition): held.offset - 1
            for part, held in sorted(self._inputs().items())
            if held.offset > 0
        }

    def _inputs(self) -> dict[TopicPartition, OffsetAndMetadata]:
        """What the group committed of the input topics."""
        names = {spec.name for spec in self.topics.inputs.values()}
        return {part: held for part, held in self._committed().items() if part.topic in names}

    def _alerted(self) -> dict[str, int]:
        """When each user was last alerted (µs), as far as Kafka still knows."""
        name, found = self.topics.alert.name, dict[str, int]()
        if self._partitions(name) is None:
            return found
        for partition, (begin, end) in enumerate(self._bounds(name)):
            with reader(self.settings, name, partition, end, begin) as messages:
                for _, value in messages:
                    alert = json.loads(value)
                    at = datetime.fromisoformat(alert["as_of"])
                    at_us = (at - EPOCH) // timedelta(microseconds=1)
                    found[alert["user"]] = max(found.get(alert["user"], at_us), at_us)
        return found

    def _commit(self, journal: Journal) -> None:
        """Count all of the new log as published, and what was read of the input topics as received by it."""
        group, log_id = self.settings.consumer_group, self._log_id()
        note = Identity(log_id).note()
        marks = {
            TopicPartition(self.log.name, shard): OffsetAndMetadata(end, note, -1)
            for shard, end in enumerate(journal.ends)
        }
        for part, held in self._inputs().items():
            if (identity := read_note(held.metadata)) is not None:
                marks[part] = OffsetAndMetadata(held.offset, replace(identity, log=log_id).note(), -1)
        held_now = {part: (held.offset, held.metadata) for part, held in self._committed().items()}
        if all(held_now.get(part) == (held.offset, held.metadata) for part, held in marks.items()):
            return
        for part, error in topics.with_coordinator(lambda: self.client.alter_group_offsets(group, marks)).items():
            if error is not NoError:
                raise BrokerError(f"Kafka refused the offset of {part} ({error.__name__}): run the same command again")

    # Topics

    def _partitions(self, name: str) -> int | None:
        """How many partitions a topic has; None if it is not there."""
        if rights.absent(self.client, [name]):
            return None
        (found,) = self.client.describe_topics([name])
        return len(found["partitions"])

    def _log_id(self) -> str:
        """The id of the mutations topic; empty if Kafka has none."""
        return topics.ids(self.client, [self.log.name])[self.log.name]

    def _bounds(self, name: str) -> list[tuple[int, int]]:
        spec = TopicSpec(name, 0, "")
        states = topics.describe(self.client, [spec], self.settings.consumer_group)[name]
        return [(state.start, state.end) for state in states]

    def _ends(self, name: str) -> list[int]:
        return [end for _, end in self._bounds(name)]

    def _old_ends(self, old: int) -> list[int]:
        bounds = self._bounds(self.log.name)
        cut = next((partition for partition in range(old) if bounds[partition][0]), None)
        if cut is not None:
            raise StateError(
                f"partition {cut} of {self.log.name} begins at offset {bounds[cut][0]}: the log is not whole any more, "
                "and a move to another number of shards needs all of it"
            )
        return [end for _, end in bounds]

    def _unchanged(self, journal: Journal) -> None:
        """Nobody may have written to the old log since it was read."""
        if self._ends(self.log.name) != journal.read:
            self._delete([self.beside.name])
            raise StateError(f"{self.log.name} has grown meanwhile: stop all workers, then run this again")

    def _delete(self, names: list[str]) -> None:
        there = [name for name in names if name in self.client.list_topics()]
        if there:
            self.client.delete_topics(there)
        self._until(lambda: not set(there) & set(self.client.list_topics()), f"{', '.join(there)} to be deleted")

    def _make(self, specs: list[TopicSpec]) -> None:
        def made() -> bool:
            try:
                topics.make(self.client, specs)
            except TopicAlreadyExistsError:  # Kafka is still deleting the one before it
                return False
            return True

        self._until(made, f"{specs[0].name} to be made")
        for spec in specs:
            if (found := self._partitions(spec.name)) != spec.partitions:
                raise TopicError(f"{spec.name} was made with {found} partitions by somebody else: run this again")

    @staticmethod
    def _until(condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + MADE_S
        while not condition():
            if time.monotonic() > deadline:
                raise BrokerError(f"waited {MADE_S:.0f} s for {what}; is Kafka well? Then run the same command again")
            time.sleep(AGAIN_S)

    # Messages

    def _journal(self) -> Journal | None:
        """How far it is; None if nothing was begun."""
        partitions = self._partitions(self.beside.name)
        if partitions is None:
            return None
        last = Journal(BUILD, "", 0, partitions - 1)
        with reader(self.settings, self.beside.name, partitions - 1, self._ends(self.beside.name)[-1]) as messages:
            for _, value in messages:
                last = msgspec.json.decode(value, type=Journal)
        return last

    def _note(self, journal: Journal) -> None:
        with writer(self.settings, self.beside.name) as sending:
            sending.write(self.new, msgspec.json.encode(journal))


def move_away(folder: Path) -> Path:
    """Give a state's folder a name that no worker asks for; returns the new one."""
    number, target = 1, folder.with_name(folder.name + AWAY)
    while target.exists():
        number += 1
        target = folder.with_name(f"{folder.name}{AWAY}-{number}")
    return folder.rename(target)
