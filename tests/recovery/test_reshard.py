"""Another number of shards: the same graph and scores as if there had only ever been one, and no alert twice."""

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
from tests.support.workers import WorkerProcess, environment, producer, read_all, wait_for, wait_quiet

SEED = 11
PORTION = 1_500
QUIET_S, STILL_S = 60.0, 1.0
ROOT = Path(__file__).parent.parent.parent


class Crash(BaseException):
    """The end of a command, from inside."""


def silent(_what: str, _done: int, _total: int) -> None:
    """Nobody watches."""


class Life:
    """One worker after the other, each with as many shards as there are then."""

    def __init__(self, settings: Settings, events: list[dict[str, Any]]) -> None:
        self.settings = settings
        self.topics = Topics(settings)
        self.events = events
        self.fed = 0
        with admin(settings) as client:
            create(client, self.topics.all())

    def move(self, shards: int) -> Report:
        """Move to so many; the next worker has them."""
        report = reshard(self.settings, shards, silent)
        self.settings = self.settings.model_copy(update={"shards": shards})
        return report

    @contextmanager
    def worker(self) -> Iterator[None]:
        """A worker that has taken all that there is, and is stopped at the end."""
        process = WorkerProcess(self.settings)
        process.start()
        try:
            process.wait_ready()
            self.settle()
            # The commits of the input topics are of the log that there is now.
            page = process.get("/metrics")[1].decode()
            counts = [line for line in page.splitlines() if line.startswith("groundswell_input_restarts_total")]
            assert counts
            assert all(line.endswith(" 0.0") for line in counts), counts
            yield
            assert process.stop() == 0
        finally:
            process.kill()

    def settle(self) -> None:
        """Wait until everything is committed."""
        wait_quiet(self.settings, QUIET_S, STILL_S)

    def feed(self) -> None:
        """Let the worker take the next portion of the events."""
        some = self.events[self.fed : self.fed + PORTION]
        self.fed += len(some)
        feed(self.settings, some, random.Random(self.fed))
        self.settle()

    def run(self) -> None:
        """A worker that takes the next portion of the events."""
        with self.worker():
            self.feed()

    def forget_commits(self) -> None:
        """Let ingest be half way through one partition of each input, as after a crash."""
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
        """How many messages each user has on the score topic."""
        return Counter(record.key for record in read_all(self.settings, [self.topics.score.name]))


def crashed(settings: Settings, shards: int, stage: str) -> None:
    """The command, ended from inside as soon as it comes to a stage."""

    def crash(what: str, _done: int, _total: int) -> None:
        if what == stage:
            raise Crash

    with pytest.raises(Crash):
        reshard(settings, shards, crash)


def killed(settings: Settings, shards: int, stage: str) -> None:
    """The command as a process, killed as soon as it says that it has come to a stage."""
    command = [sys.executable, "-m", "streams.cli", "state", "reshard", "--to", str(shards)]
    with subprocess.Popen(
        command, env=environment(settings), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=ROOT
    ) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith(stage):
                process.kill()
        assert said[-1].startswith(stage), said
    assert process.returncode != 0


def last_words(settings: Settings) -> str:
    """What a worker with these settings ends with."""
    process = WorkerProcess(settings)
    process.start()
    try:
        assert process.ended(60) == 1
    finally:
        process.kill()
    return process.log.read_text().splitlines()[-1]


def test_shards_come_and_go(settings: Settings, tmp_path: Path, record_property: pytest.RecordProperty) -> None:
    """One shard, three, then two, interrupted at every stage: as one shard all along, and no alert is repeated."""
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
    said = last_words(settings)
    assert "has 3 partitions where 1 are needed" in said
    assert "GROUNDSWELL_SHARDS=3" in said
    assert "groundswell state reshard --to 1" in said
    before = life.scores()
    life.run()
    record_property("scores published after the first move", (life.scores() - before).total())
    alerted = Counter(alert["user"] for alert in life.alerts())
    # The window of the rule is as long as the history.
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
        published = life.scores() - before
        # Halos, which come a moment later, move some of them again.
        assert 100 < len(published) <= published.total() <= 3 * len(published) < before.total()
        assert life.alerts() == alerts
        life.feed()
    check_same(life.settings, [tmp_path / "other"], undisturbed(settings, life.events, tmp_path / "undisturbed"))


@contextmanager
def member(settings: Settings) -> Iterator[None]:
    """Somebody is in the group."""
    name = Topics(settings).follow.name
    consumer = KafkaConsumer(name, **kafka_arguments(settings), group_id=settings.consumer_group)
    try:
        wait_for(lambda: bool(consumer.poll(100) or consumer.assignment()), 30, "the group")
        yield
    finally:
        consumer.close()


def test_what_cannot_be_moved_is_left_alone(settings: Settings) -> None:
    """Workers that run, a log that was cut, no log at all: one line each, and nothing is changed."""
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
        # What was begun is taken back by moving to the number that there is.
        assert topics.mutations.name + RESHARD in client.list_topics()
        assert reshard(settings, 1, silent).done
        assert topics.mutations.name + RESHARD not in client.list_topics()
        create(client, topics.all())


def test_a_checkpoint_of_another_log_is_gone(settings: Settings, tmp_path: Path) -> None:
    """Back to an earlier number of shards: what was kept then is of another log, and is not kept any more."""
    settings = settings.model_copy(update={"checkpoints": f"file://{tmp_path / 'kept'}"})
    with admin(settings) as client:
        create(client, Topics(settings).all())
    for shards in (2, 1, 2):
        report = reshard(settings, shards, silent)
        assert repository(settings.model_copy(update={"shards": shards}), 0).ids() == [report.checkpoints[0]]
