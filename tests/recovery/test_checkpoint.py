"""A lost disk: restored from a checkpoint and the rest of the log, or from the log alone, never with data missing."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import TopicPartition

from graphstate.storage.checkpoints.repository import Repository
from streams.kafka.topics import Topics, admin, create, describe
from streams.settings.settings import Settings
from streams.shard.shard import Shard
from streams.worker.checkpoints import repository
from tests.recovery.test_kill import check_equal, feed, open_shard, undisturbed
from tests.support.histories import history
from tests.support.workers import WorkerProcess, lag, wait_for

EVENTS = 6_000
SEED = 4
EVERY_S = 1.0
KEEP = 100


class Disaster:
    """A worker that loses its disk repeatedly, and the state expected after each recovery."""

    def __init__(self, settings: Settings, expected: Shard) -> None:
        self.settings = settings
        self.topics = Topics(settings)
        self.expected = expected
        self.process = WorkerProcess(settings)

    @property
    def kept(self) -> Repository:
        """The checkpoints of the only shard."""
        return repository(self.settings, 0)

    def log(self) -> tuple[int, int]:
        """First offset and end offset of the mutations log."""
        mutations = self.topics.mutations
        with admin(self.settings) as client:
            (state,) = describe(client, [mutations], self.settings.consumer_group)[mutations.name]
        return state.start, state.end

    def keep_only(self, checkpoint: str) -> None:
        """Delete all other checkpoints."""
        for name in self.kept.ids():
            if name != checkpoint:
                self.kept.fs.rm_file(f"{self.kept.root}/manifests/{name}.json")

    def cut(self, begin: int) -> None:
        """Delete the log's records before this offset."""
        with admin(self.settings) as client:
            client.delete_records({TopicPartition(self.topics.mutations.name, 0): begin})
        assert self.log()[0] == begin

    def lose(self, *, checkpoints: bool) -> None:
        """Start the worker without its disk, with or without checkpoints."""
        shutil.rmtree(self.settings.datadir)
        changes = {} if checkpoints else {"checkpoints": ""}
        self.process = WorkerProcess(self.settings.model_copy(update=changes))
        self.process.log.unlink()
        self.process.start()

    def back(self) -> None:
        """Wait until the worker has processed the log, stop it, and compare."""
        self.process.wait_ready()
        self.wait_committed()
        assert self.process.stop() == 0
        after = open_shard(self.settings.datadir / "shard-0")
        try:
            check_equal(after, self.expected)
        finally:
            after.close()

    def wait_committed(self) -> None:
        """Wait until all sent events are committed and counted by the worker."""
        names = [spec.name for spec in self.topics.inputs.values()]
        pattern = re.compile(rb'groundswell_lag_records\{partition="0",topic="\S*groundswell.mutations"\} 0\.0')
        wait_for(lambda: lag(self.settings, [*names, self.topics.mutations.name]) == 0, 60, "everything committed")
        wait_for(lambda: bool(pattern.search(self.process.get("/metrics")[1])), 60, "the log to be read")


@pytest.fixture
def disaster(settings: Settings, tmp_path: Path) -> Iterator[Disaster]:
    """A worker that processed all events and was killed while it wrote checkpoints."""
    changes = {"instance": "w0", "retention_s": 0, "checkpoints": f"file://{tmp_path / 'kept'}"}
    changes |= {"checkpoint_every_s": EVERY_S, "checkpoint_keep": KEEP}
    settings = settings.model_copy(update=changes)
    events = list(history(random.Random(SEED), EVENTS, links=True))
    expected = undisturbed(events, tmp_path / "undisturbed")
    found = Disaster(settings, expected)
    with admin(settings) as client:
        create(client, found.topics.all())
    found.process.start()
    try:
        found.process.wait_ready()
        # The oldest checkpoint covers only a part of the log, however fast the worker is.
        rng, half = random.Random(SEED), EVENTS // 2
        feed(settings, events[:half], rng)
        wait_for(lambda: bool(found.kept.ids()), 30, "a checkpoint")
        feed(settings, events[half:], rng)
        found.wait_committed()
        wait_for(lambda: len(found.kept.ids()) > 2, 30, "checkpoints")
        found.process.kill()
        yield found
    finally:
        found.process.kill()
        expected.close()


def test_recovery_from_a_lost_disk(disaster: Disaster, record_property: pytest.RecordProperty) -> None:
    """From the whole log, and from a checkpoint with the rest of the log, graph and scores are the same. With neither
    a whole log nor a checkpoint that reaches it the worker exits with an error that names the remedy.
    """
    _, end = disaster.log()
    oldest = disaster.kept.ids()[-1]
    next_offset = disaster.kept.load(oldest).next_offset
    assert 0 < next_offset < end, "no checkpoint was made under load"
    disaster.keep_only(oldest)
    record_property("packs", end)
    record_property("packs in the tail", end - next_offset)

    disaster.lose(checkpoints=False)
    disaster.back()
    assert '"event": "checkpoint_restored"' not in disaster.process.log.read_text()

    disaster.cut(next_offset)
    disaster.lose(checkpoints=True)
    disaster.back()
    text = disaster.process.log.read_text()
    assert '"event": "checkpoint_restored"' in text
    assert f'"checkpoint": "{oldest}"' in text

    disaster.lose(checkpoints=False)
    assert disaster.process.ended(60) == 1
    line = disaster.process.log.read_text().splitlines()[-1]
    assert line.startswith("groundswell: the state of shard 0 ends at offset 0, but ")
    assert f"begins at offset {next_offset}: `groundswell state checkpoints` lists" in line
    assert "`groundswell state restore`" in line
