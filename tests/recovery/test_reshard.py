"""Resharding: the same graph and scores as with one shard from the beginning, and no alert twice."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata

from streams.errors import StateError, TopicError, WorkerError
from streams.kafka.topics import RESHARD, Topics, admin, create, describe
from streams.operations.reshard import Report, reshard
from streams.settings.connection import kafka_arguments
from streams.settings.settings import Settings
from streams.worker.checkpoints import repository
from tests.recovery.test_kill import feed
from tests.support.histories import history
from tests.support.shards import check_same, undisturbed
from tests.support.workers import WorkerProcess, environment, producer, read_all, refusal, wait_for, wait_quiet

SEED = 11
PORTION = 1_500
QUIET_S, STILL_S = 60.0, 1.0
ROOT = Path(__file__).parent.parent.parent


class Crash(BaseException):
    """A simulated crash of the command."""


def silent(_what: str, _done: int, _total: int) -> None:
    """Report no progress."""


class Life:
    """A sequence of workers, each with the current number of shards."""

    def __init__(self, settings: Settings, events: list[dict[str, Any]]) -> None:
        self.settings = settings
        self.topics = Topics(settings)
        self.events = events
        self.fed = 0
        with admin(settings) as client:
            create(client, self.topics.all())

    def move(self, shards: int) -> Report:
        """Reshard; the next worker has this number of shards."""
        report = reshard(self.settings, shards, silent)
        self.settings = self.settings.model_copy(update={"shards": shards})
        return report

    @contextmanager
    def worker(self) -> Iterator[None]:
        """A worker that has processed everything, stopped at the end."""
        process = WorkerProcess(self.settings)
        process.start()
        try:
            process.wait_ready()
            self.wait_committed()
            # The commits of the input topics refer to the current log.
            page = process.get("/metrics")[1].decode()
            counts = [line for line in page.splitlines() if line.startswith("groundswell_input_restarts_total")]
            assert counts
            assert all(line.endswith(" 0.0") for line in counts), counts
            yield
            assert process.stop() == 0
        finally:
            process.kill()

    def wait_committed(self) -> None:
        """Wait until everything is committed."""
        wait_quiet(self.settings, QUIET_S, STILL_S)

    def feed(self) -> None:
        """Send the next portion of the events and wait until it is processed."""
        some = self.events[self.fed : self.fed + PORTION]
        self.fed += len(some)
        feed(self.settings, some, random.Random(self.fed))
        self.wait_committed()

    def run(self) -> None:
        """Run a worker for the next portion of the events."""
        with self.worker():
            self.feed()

    def forget_commits(self) -> None:
        """Set the commits of one partition of each input to its middle, as after a crash."""
        names = {spec.name for spec in self.topics.inputs.values()}
        group = self.settings.consumer_group
        with admin(self.settings) as client:
            held = client.list_group_offsets({group: None})[group]
            back = {part: OffsetAndMetadata(mark.offset // 2, "", -1) for part, mark in held.items()}
            back = {part: mark for part, mark in back.items() if part.topic in names and part.partition == 1}
            assert len(back) == 3
            client.alter_group_offsets(group, back)

    def alerts(self) -> list[dict[str, Any]]:
        """Every alert on its topic."""
        return [json.loads(record.value) for record in read_all(self.settings, [self.topics.alert.name])]

    def scores(self) -> Counter[bytes]:
        """Number of messages on the score topic per user."""
        return Counter(record.key for record in read_all(self.settings, [self.topics.score.name]))


def crashed(settings: Settings, shards: int, stage: str) -> None:
    """Run the command, with an exception raised at a stage."""

    def crash(what: str, _done: int, _total: int) -> None:
        if what == stage:
            raise Crash

    with pytest.raises(Crash):
        reshard(settings, shards, crash)


def killed(settings: Settings, shards: int, stage: str) -> None:
    """Run the command as a process, killed as soon as it reports a stage."""
    command = [sys.executable, "-m", "streams.cli", "state", "reshard", "--to", str(shards)]
    with subprocess.Popen(
        command, env=environment(settings), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=ROOT
    ) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith(stage):
                process.kill()
        assert lines[-1].startswith(stage), lines
    assert process.returncode != 0


def test_reshards_keep_graph_scores_and_alerts(
    settings: Settings, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    """One shard, three, then two, interrupted at every stage: equal to one shard, and no alert is repeated."""
    changes = {"retention_s": 0, "checkpoints": f"file://{tmp_path / 'kept'}"}
    settings = settings.model_copy(update=changes)
    life = Life(settings, list(history(random.Random(SEED), 3 * PORTION, links=True)))
    life.run()
    assert life.alerts()
    life.forget_commits()
    report = life.move(3)
    record_property("seconds for the first move", report.seconds)
    assert (report.old, report.new, report.events, report.continued) == (1, 3, PORTION, "")
    assert report.moved == [f"{settings.datadir / 'shard-0'}.before-reshard"]
    assert len(report.states) == len(report.checkpoints) == 3
    line = refusal(settings)
    assert "has 3 partitions where 1 are needed" in line
    assert "GROUNDSWELL_SHARDS=3" in line
    assert "groundswell state reshard --to 1" in line
    before = life.scores()
    life.run()
    record_property("scores published after the first move", (life.scores() - before).total())
    alerted = Counter(alert["user"] for alert in life.alerts())
    # The window of the rule spans the whole history.
    assert alerted.most_common(1)[0][1] == 1
    for stage in ("building the new log", "replacing the old log", "putting the states in place"):
        crashed(life.settings, 2, stage)
        with admin(life.settings) as client, pytest.raises(TopicError, match="groundswell state reshard"):
            create(client, life.topics.all())
        if stage.startswith("replacing"):
            killed(life.settings, 2, "copying the new log")
            with pytest.raises(TopicError, match="--to 2"):
                reshard(life.settings, 5, silent)
    assert life.move(2).continued == "settle"
    assert (life.move(2).events, life.move(2).old) == (0, 2)
    # On another machine, from the new log alone.
    life.settings = life.settings.model_copy(update={"datadir": tmp_path / "other", "checkpoints": ""})
    before, alerts = life.scores(), life.alerts()
    with life.worker():
        # All offsets are committed, so that nothing shows that the worker still reads the log.
        wait_for(lambda: len(life.scores() - before) > 100, QUIET_S, "the scores of the new log")
        life.wait_committed()
        published = life.scores() - before
        # Halos arrive a moment later and change some scores again.
        assert 100 < len(published) <= published.total() <= 3 * len(published) < before.total()
        assert life.alerts() == alerts
        life.feed()
    check_same(life.settings, [tmp_path / "other"], undisturbed(settings, life.events, tmp_path / "undisturbed"))


@contextmanager
def member(settings: Settings) -> Iterator[None]:
    """A member in the group."""
    name = Topics(settings).follow.name
    consumer = KafkaConsumer(name, **kafka_arguments(settings), group_id=settings.consumer_group)
    try:
        wait_for(lambda: bool(consumer.poll(100) or consumer.assignment()), 30, "the group")
        yield
    finally:
        consumer.close()


def test_a_refused_reshard_changes_nothing(settings: Settings) -> None:
    """Running workers, a truncated log, no log: one error line each, and nothing is changed."""
    settings = settings.model_copy(update={"session_timeout_s": 1.0})
    with pytest.raises(TopicError, match="nothing to move"):
        reshard(settings, 2, silent)
    topics = Topics(settings)
    with admin(settings) as client:
        create(client, topics.all())
        with member(settings), pytest.raises(WorkerError, match=r"has 1 member.*stop all workers"):
            reshard(settings, 2, silent)
        assert not reshard(settings, 2, silent, dry_run=True).done
        with producer(settings) as sender:
            sender.send(topics.mutations.name, b"no pack", partition=0)
        with pytest.raises(StateError, match="no pack"):
            reshard(settings, 2, silent)
        client.delete_records({TopicPartition(topics.mutations.name, 0): 1})
        with pytest.raises(StateError, match=r"begins at offset 1.*not whole"):
            reshard(settings, 2, silent)
        (state,) = describe(client, [topics.mutations], settings.consumer_group)[topics.mutations.name]
        assert (state.start, state.end) == (1, 1)
        # An interrupted reshard is undone by a reshard to the current number.
        assert topics.mutations.name + RESHARD in client.list_topics()
        assert reshard(settings, 1, silent).done
        assert topics.mutations.name + RESHARD not in client.list_topics()
        create(client, topics.all())


def test_checkpoints_of_an_earlier_log_are_not_used(settings: Settings, tmp_path: Path) -> None:
    """Back at an earlier number of shards, checkpoints from then belong to another log: they are deleted."""
    settings = settings.model_copy(update={"checkpoints": f"file://{tmp_path / 'kept'}"})
    with admin(settings) as client:
        create(client, Topics(settings).all())
    for shards in (2, 1, 2):
        report = reshard(settings, shards, silent)
        assert repository(settings.model_copy(update={"shards": shards}), 0).ids() == [report.checkpoints[0]]
