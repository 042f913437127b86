"""`state reshard`: rebuild everything for another number of shards, in stages that can be resumed.

    begin   create <mutations>.reshard: no worker starts while it exists
    build   read the old log, write the new log to <mutations>.reshard and build the shards' states beside it
    swap    delete and create mutations and halos, copy the new log: the same bytes at the same offsets
    settle  commit the new log as published, move old states away and new ones in place, write checkpoints
    end     delete <mutations>.reshard

Until the journal records that the new log is complete, the old log is unchanged and a second attempt starts from the
beginning. From then on the new log exists in `<mutations>.reshard`, and after the swap in both topics.

The group's offsets of the input topics are kept. An input message below them is in every partition that it concerns, so
a new shard skips it if ingest sends it again. A message above them may be in some partitions only and is sent again; a
repeated event changes nothing. The new log is committed to its end, because all of it was published before: a worker
publishes nothing while it rebuilds its state, and then one score per user.
"""

from __future__ import annotations

import json
import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import NoError
from kafka.structs import OffsetAndMetadata

from graphstate.storage.options import RocksDbBudget
from graphstate.types import Progress
from model.artifact import Artifact
from streams.errors import BrokerError, StateError, TopicError, WorkerError
from streams.kafka import topics
from streams.kafka.access import rights, rights_table
from streams.kafka.log_io import reader, writer
from streams.messages.packs.topic_identity import Identity, read_note
from streams.operations.reshard_journal import BUILD, PLACE, SETTLE, SWAP, Journal, ReshardTopics
from streams.operations.resharded_log import NewLog, OldPartition, least_progress, merge_by_clock
from streams.settings.settings import Settings
from streams.shard.alerts.alert_rule import alert_rule
from streams.shard.graph_view import graph_spec
from streams.shard.shard import Shard
from streams.worker import checkpoints
from streams.worker.data_dir import lock_data_dir, shard_folders, state_folder
from streams.worker.log_mark import record_log_id
from streams.worker.rollout.models_topic import artifact_in_use, read_models_topic

MOVED_SUFFIX = ".before-reshard"
"""Suffix of the folder of a state that was replaced."""
BUILD_PREFIX = ".reshard-"
"""Prefix of the folder in DATADIR that holds the new states until they are put in place."""
SOURCE_PREFIX = "reshard-"
"""Prefix of the source of moved events in the packs of the new log."""
RIGHTS_TIMEOUT_S = 30.0
POLL_S = 0.1
_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass
class Report:
    """Result of a reshard, or its plan if `done` is False.

    Attributes:
        old: Number of shards before.
        new: Number of shards after.
        done: Whether the move is complete.
        continued: Stage from which an interrupted move went on; empty for a new one.
        records: Number of records in the old log.
        events: Number of events in the new log.
        facts: Number of facts in the new log.
        expired: Number of events that a new shard refused as too late.
        bytes: Size of the new log.
        seconds: Duration of this run.
        moved: Folders of the replaced states.
        states: Folders of the new states.
        checkpoints: Id of the new checkpoint by shard; empty for a shard without a state here.
    """

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
    """Move to another number of shards, or resume a move to it that was interrupted.

    Args:
        settings: Settings of the workers; retention and lateness decide which facts the new shards derive. `shards` is
            ignored: the topics hold the old number.
        new: The new number of shards.
        progress: Receives the current stage, and what is done of how much.
        dry_run: Change nothing.

    Raises:
        WorkerError: the group has members.
        StateError: the log is incomplete, or grew during the move.
        TopicError: there is no log, or a move to another number was begun.
    """
    begin = time.monotonic()
    with lock_data_dir(settings.datadir), topics.admin(settings) as client:
        needed = rights_table.describe(settings) if dry_run else rights_table.reshard(settings)
        rights.require(client, needed, RIGHTS_TIMEOUT_S, existing_too=True)
        resharding = Resharding(settings, client, new, progress)
        resharding.wait_for_empty_group()
        report = resharding.run(dry_run=dry_run)
        report.seconds = round(time.monotonic() - begin, 3)
        return report


class Resharding:
    """One run of `state reshard`."""

    def __init__(self, settings: Settings, client: KafkaAdminClient, new: int, progress: Progress) -> None:
        self.settings = settings.model_copy(update={"shards": new})
        self.client = client
        self.new = new
        self.progress = progress
        self.topics = ReshardTopics(self.settings, client, new)
        self.log = self.topics.log.name
        self.staging = self.topics.staging.name

    # Stages

    def run(self, *, dry_run: bool) -> Report:
        """Start a move, or resume one."""
        journal = self.topics.read_journal()
        continued = "" if journal is None else journal.stage
        if journal is None or journal.stage == BUILD:
            old = self.topics.partitions(self.log)
            if old is None:
                raise TopicError(f"topic {self.log} is missing, so there is nothing to move; is the prefix right?")
            if old == self.new:
                if not dry_run:
                    self.topics.delete([self.staging])
                return Report(old, self.new, done=True)
            if dry_run:
                records = sum(self.topics.complete_log_ends())
                return Report(old, self.new, done=False, continued=continued, records=records)
            journal = self._build(old)
        elif journal.new_shards != self.new:
            raise TopicError(
                f"a move to {journal.new_shards} shards was begun and its new log is whole: finish it with "
                f"`groundswell state reshard --to {journal.new_shards}`, then move on"
            )
        report = Report(journal.old_shards, journal.new_shards, not dry_run, continued, sum(journal.old_ends))
        report.events, report.facts = journal.events, journal.facts
        report.expired, report.bytes = journal.expired, journal.bytes
        if not dry_run:
            self._swap(journal)
            self._settle(journal, report)
        return report

    def _build(self, old: int) -> Journal:
        """Write the new log to the staging topic."""
        artifact = artifact_in_use(self.settings, read_models_topic(self.settings))
        old_ends = self.topics.complete_log_ends()
        self.topics.delete([self.staging])
        for folder in self.settings.datadir.glob(f"{BUILD_PREFIX}*"):
            shutil.rmtree(folder)
        journal = Journal(BUILD, str(time.time_ns() // 1_000_000), old, self.new, old_ends)
        self.topics.create([self.topics.staging])
        self.topics.append_journal(journal)
        self.wait_for_empty_group()
        partitions = [OldPartition(self.log, partition, old) for partition in range(old)]
        with ExitStack() as stack:
            staging = stack.enter_context(writer(self.settings, self.staging))
            memory = RocksDbBudget(self.settings.memory_mb << 20)
            shards = [self._open(stack, journal, shard, memory, artifact) for shard in range(self.new)]
            source = f"{SOURCE_PREFIX}{journal.run_id}"
            new_log = NewLog(shards, self.log, source, staging.send, lambda: least_progress(partitions))
            events_by_partition = [
                old_partition.events(stack.enter_context(reader(self.settings, self.log, old_partition.partition, end)))
                for old_partition, end in zip(partitions, old_ends, strict=True)
            ]
            for number, event in enumerate(merge_by_clock(events_by_partition)):
                new_log.add(event)
                if number % 10_000 == 0:
                    records = sum(old_partition.records for old_partition in partitions)
                    self.progress("building the new log", records, sum(old_ends))
            new_log.finish(max(old_partition.clock for old_partition in partitions), self._input_positions())
            new_log.set_published(self._published_alerts())
            staging.flush()
        journal.stage, journal.new_ends, journal.bytes = SWAP, new_log.ends, new_log.bytes
        journal.events, journal.facts, journal.expired = new_log.events, new_log.facts, new_log.expired
        self._check_unchanged(journal)
        self.topics.append_journal(journal)
        return journal

    def _open(self, stack: ExitStack, journal: Journal, shard: int, memory: RocksDbBudget, artifact: Artifact) -> Shard:
        settings = self.settings
        spec = graph_spec(artifact.config, retention_s=settings.retention_s, lateness_s=settings.lateness_s)
        folder = state_folder(settings.datadir / f"{BUILD_PREFIX}{journal.run_id}", shard)
        folder.parent.mkdir(exist_ok=True)
        rule = alert_rule(settings, artifact.config.horizon_s)
        opened = Shard.open(folder, artifact, replace(spec, shards=self.new, shard=shard), rule=rule, memory=memory)
        stack.callback(opened.close)
        return opened

    def _swap(self, journal: Journal) -> None:
        """Replace the old log by the new one."""
        if journal.stage != SWAP:
            return
        if self.topics.partitions(self.log) == journal.old_shards:
            self.wait_for_empty_group()
            self._check_unchanged(journal)
        self.progress("replacing the old log", 0, 0)
        self.topics.delete([self.log, self.topics.halos.name])
        self.topics.create([self.topics.log, self.topics.halos])
        done, total = 0, sum(journal.new_ends)
        with writer(self.settings, self.log) as log:
            for partition, end in enumerate(journal.new_ends):
                with reader(self.settings, self.staging, partition, end) as messages:
                    for offset, value in messages:
                        if done % 1_000 == 0:
                            self.progress("copying the new log", done, total)
                        log.send(partition, offset, value)
                        done += 1
            log.flush()
        if (ends := self.topics.ends(self.log)) != journal.new_ends:
            raise StateError(f"{self.log} ends at {ends} and not at {journal.new_ends}: run the same command again")
        journal.stage = SETTLE
        self.topics.append_journal(journal)

    def _settle(self, journal: Journal, report: Report) -> None:
        """Commit the new log, put the new states in place, write checkpoints, delete the staging topic."""
        self.progress("putting the states in place", 0, 0)
        self._commit(journal)
        datadir = self.settings.datadir
        if journal.stage == SETTLE:
            report.moved = [str(_move_away(folder)) for folder in shard_folders(datadir).values()]
            journal.stage = PLACE
            self.topics.append_journal(journal)
        build_folder = datadir / f"{BUILD_PREFIX}{journal.run_id}"
        for shard in range(journal.new_shards):
            built, folder = state_folder(build_folder, shard), state_folder(datadir, shard)
            if built.exists():
                record_log_id(built, self.topics.log_id())
                built.rename(folder)
            if folder.exists():
                report.states.append(str(folder))
        shutil.rmtree(build_folder, ignore_errors=True)
        if self.settings.checkpoints:
            report.checkpoints = [self._checkpoint(shard) for shard in range(journal.new_shards)]
        self._commit(journal)
        self.topics.delete([self.staging])

    def _checkpoint(self, shard: int) -> str:
        """Write a checkpoint of a new state and remove those of an older log with as many shards; return its id."""
        self.progress("keeping checkpoints", shard, self.new)
        repository = checkpoints.repository(self.settings, shard)
        folder = state_folder(self.settings.datadir, shard)
        repository.prune(0)
        if not folder.exists():
            return ""
        return checkpoints.save_checkpoint(self.settings, repository, folder, shard).id

    def _check_unchanged(self, journal: Journal) -> None:
        """Raise StateError if the old log was written to since it was read; the move then starts again."""
        if self.topics.ends(self.log) != journal.old_ends:
            self.topics.delete([self.staging])
            raise StateError(f"{self.log} has grown meanwhile: stop all workers, then run this again")

    # The consumer group

    def wait_for_empty_group(self) -> None:
        """Wait until the group has no members, at most until Kafka must have noticed that a member was killed.

        Raises:
            WorkerError: the group still has members.
        """
        group, deadline = self.settings.consumer_group, time.monotonic() + self.settings.session_timeout_s + 4
        while True:
            description = topics.with_coordinator(lambda: self.client.describe_groups([group]))[group]
            hosts = sorted(f"{member['client_id']} on {member['client_host']}" for member in description["members"])
            error = str(description.get("error") or "")
            if not hosts and (not error or "GroupIdNotFound" in error):
                return
            if time.monotonic() > deadline:
                problem = f"has {len(hosts)} member(s) ({', '.join(hosts)})" if hosts else f"cannot be read ({error})"
                raise WorkerError(f"the group {group} {problem}: stop all workers, then run this again")
            self.progress("waiting for the group to be empty", 0, 0)
            time.sleep(POLL_S)

    def _committed(self) -> dict[TopicPartition, OffsetAndMetadata]:
        return topics.committed(self.client, self.settings.consumer_group)

    def _committed_inputs(self) -> dict[TopicPartition, OffsetAndMetadata]:
        """Return the group's commits of the input topics."""
        return {
            partition: commit
            for partition, commit in self._committed().items()
            if partition.topic in self.topics.inputs
        }

    def _input_positions(self) -> dict[str, int]:
        """Return the last offset that ingest committed of each input partition, by source."""
        return {
            (read_note(commit.metadata) or Identity()).source(partition.topic, partition.partition): commit.offset - 1
            for partition, commit in sorted(self._committed_inputs().items())
            if commit.offset > 0
        }

    def _published_alerts(self) -> dict[str, int]:
        """Return the time (µs) of each alert on the alert topic, by id."""
        name, published = self.topics.alert, dict[str, int]()
        if self.topics.partitions(name) is None:
            return published
        for partition, (begin, end) in enumerate(self.topics.bounds(name)):
            with reader(self.settings, name, partition, end, begin) as messages:
                for _, value in messages:
                    alert = json.loads(value)
                    as_of_us = (datetime.fromisoformat(alert["as_of"]) - _EPOCH) // timedelta(microseconds=1)
                    published[alert["alert"]] = as_of_us
        return published

    def _commit(self, journal: Journal) -> None:
        """Commit the end of the new log as published, and stamp its id on the commits of the input topics."""
        group, log_id = self.settings.consumer_group, self.topics.log_id()
        note = Identity(log_id).note()
        wanted = {
            TopicPartition(self.log, shard): OffsetAndMetadata(end, note, -1)
            for shard, end in enumerate(journal.new_ends)
        }
        for partition, commit in self._committed_inputs().items():
            if (identity := read_note(commit.metadata)) is not None:
                wanted[partition] = OffsetAndMetadata(commit.offset, replace(identity, log=log_id).note(), -1)
        current = {partition: (commit.offset, commit.metadata) for partition, commit in self._committed().items()}
        if all(current.get(partition) == (commit.offset, commit.metadata) for partition, commit in wanted.items()):
            return
        answers = topics.with_coordinator(lambda: self.client.alter_group_offsets(group, wanted))
        for partition, error in answers.items():
            if error is not NoError:
                raise BrokerError(
                    f"Kafka refused the offset of {partition} ({error.__name__}): run the same command again"
                )


def _move_away(folder: Path) -> Path:
    """Rename the folder of a replaced state to a name that no worker opens; return the new path."""
    number, target = 1, folder.with_name(folder.name + MOVED_SUFFIX)
    while target.exists():
        number += 1
        target = folder.with_name(f"{folder.name}{MOVED_SUFFIX}-{number}")
    return folder.rename(target)
