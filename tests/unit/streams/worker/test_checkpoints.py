"""A worker's checkpoints: when they are saved and restored, and that a failure never stops the worker."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from graphstate.errors import DamagedError
from graphstate.storage.checkpoints.repository import Repository
from graphstate.types import GraphSpec, Kind, Mutation
from streams.errors import SettingsError, StateError
from streams.settings.settings import Settings
from streams.telemetry.metrics import Metrics
from streams.worker.checkpoints import Checkpoints, LocalCheckpoint, incompatibility, open_address, repository_root
from tests.support.graphs import FollowShard

SPEC = GraphSpec()
EVERY_S = 600.0
DAY_US = 86_400_000_000
LOG = "groundswell.mutations"


class Worker:
    """Checkpoints of open shards, with a clock set by the test."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.now = 1_000.0
        self.datadir = folder / "data"
        self.kept = folder / "kept"
        self.metrics = Metrics()
        named: dict[str, Any] = {"log_name": LOG, "shards": 2, "datadir": self.datadir, "every_s": EVERY_S, "keep": 2}
        fs = changes.pop("fs", LocalFileSystem())
        self.checkpoints = Checkpoints(
            fs,
            str(self.kept),
            metrics=self.metrics,
            read=self._read,
            clock=lambda: self.now,
            **{**named, **changes},
        )
        self.shards: dict[int, FollowShard] = {}

    async def _read(self, question: Callable[[Any], LocalCheckpoint | None]) -> list[LocalCheckpoint | None]:
        return [question(shard) for shard in self.shards.values()]

    def folder(self, number: int) -> Path:
        """Return the folder of a shard's state."""
        return self.datadir / f"shard-{number}"

    def open(self, *numbers: int, begin: int = 0, end: int = 1_000) -> None:
        """Assign these partitions and open their states."""
        self.datadir.mkdir(exist_ok=True)
        self.checkpoints.assign(dict.fromkeys(numbers, (begin, end)))
        for number in numbers:
            self.checkpoints.restore_if_missing(number, self.folder(number), SPEC, lambda *_: None)
            self.shards[number] = FollowShard(self.folder(number), number)

    def tick(self) -> None:
        """Tick twice, as the first tick only flushes, and wait for the upload."""
        asyncio.run(self.checkpoints.tick())
        asyncio.run(self.checkpoints.tick())
        if self.checkpoints._thread is not None:
            self.checkpoints._thread.join()

    def ids(self, number: int = 0) -> list[str]:
        """Return the ids of a shard's checkpoints."""
        return Repository(LocalFileSystem(), repository_root(str(self.kept), LOG, number, 2)).ids()

    def value(self, name: str, **labels: str) -> float | None:
        """Return the value of a checkpoint metric."""
        return self.metrics.registry.get_sample_value(f"groundswell_checkpoint_{name}", labels)

    def close(self) -> None:
        """Close the shards."""
        for shard in self.shards.values():
            shard.close()
        self.shards.clear()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """Return a worker without partitions."""
    opened = Worker(tmp_path)
    yield opened
    opened.close()


def test_one_checkpoint_per_interval(worker: Worker) -> None:
    """Every shard gets one checkpoint per interval, one shard per tick; the metrics show it."""
    worker.open(0, 1)
    for shard in worker.shards.values():
        shard.work()
    worker.tick()
    assert worker.ids() == []
    assert worker.value("age_seconds", shard="0") == 0
    worker.now += EVERY_S
    worker.tick()
    assert (worker.ids(0), worker.ids(1)) == (["00000001-20"], [])
    worker.tick()
    assert (worker.ids(0), worker.ids(1)) == (["00000001-20"], ["00000001-20"])
    worker.now += EVERY_S / 2
    worker.tick()
    assert len(worker.ids(0)) == 1
    assert worker.value("age_seconds", shard="0") == EVERY_S / 2
    assert (worker.value("bytes", shard="0") or 0) > 1_000
    assert worker.value("seconds", shard="0") is not None
    assert (worker.value("uploaded_bytes_total") or 0) > 1_000
    assert worker.value("failures_total") == 0
    for _ in range(3):
        worker.now += EVERY_S
        worker.tick()
        worker.tick()
    assert worker.ids(0) == ["00000004-20", "00000003-20"]
    assert sorted(path.name for path in worker.datadir.iterdir()) == ["shard-0", "shard-1"]


def test_without_an_address(tmp_path: Path) -> None:
    """Without an address no checkpoint is due and none is restored."""
    worker = Worker(tmp_path, fs=None)
    worker.open(0)
    worker.shards[0].work()
    worker.now += 10 * EVERY_S
    assert worker.checkpoints.due(worker.now) is None
    worker.tick()
    assert not worker.kept.exists()
    assert worker.value("age_seconds", shard="0") is None
    worker.close()


def test_an_empty_state_is_no_failure(worker: Worker) -> None:
    """A shard without a commit needs no checkpoint."""
    worker.open(0)
    worker.now += EVERY_S
    worker.tick()
    assert worker.ids() == []
    assert worker.value("failures_total") == 0


def test_failures_are_counted_and_retried(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure to link or to upload does not stop the worker; the next attempt follows a minute later."""
    worker.open(0)
    worker.shards[0].work()
    worker.now += EVERY_S
    with monkeypatch.context() as patch:
        patch.setattr("streams.worker.checkpoints.create_checkpoint", lambda *_: 1 / 0)
        worker.tick()
    assert worker.value("failures_total") == 1
    worker.tick()
    assert worker.value("failures_total") == 1
    worker.now += 60
    with monkeypatch.context() as patch:
        patch.setattr(Repository, "save", lambda *_: 1 / 0)
        worker.tick()
    assert worker.value("failures_total") == 2
    assert list(worker.datadir.glob(".*")) == []
    worker.now += 60
    worker.tick()
    assert worker.ids() == ["00000001-20"]
    assert worker.value("age_seconds", shard="0") == EVERY_S + 120


def test_a_checkpoint_holds_committed_steps_only(worker: Worker) -> None:
    """A checkpoint between step and commit holds the state of the commit before."""
    worker.open(0)
    shard = worker.shards[0]
    shard.work()
    shard.graph.apply([Mutation(Kind.FOLLOW, 2 * DAY_US, "late", "late2")])
    worker.now += EVERY_S
    worker.tick()
    worker.close()
    shutil.rmtree(worker.folder(0))
    worker.open(0)
    assert worker.shards[0].next == 20
    assert "late" not in worker.shards[0].graph.users.index


def test_uploads_run_one_at_a_time_beside_the_steps(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """During an upload no other checkpoint is due, and the shard takes steps."""
    go, save = threading.Event(), Repository.save

    def slow(*arguments: Any, **named: Any) -> Any:
        assert go.wait(10)
        return save(*arguments, **named)

    monkeypatch.setattr(Repository, "save", slow)
    worker.open(0, 1)
    for shard in worker.shards.values():
        shard.work()
    worker.now += EVERY_S
    local = worker.checkpoints.link(worker.shards[0])
    assert local is not None
    worker.checkpoints._thread = threading.Thread(target=worker.checkpoints.upload, args=(local,))
    worker.checkpoints._thread.start()
    assert worker.checkpoints.due(worker.now) is None
    worker.shards[0].work()
    go.set()
    worker.checkpoints._thread.join()
    assert worker.checkpoints.due(worker.now) == 1
    assert worker.ids() == ["00000001-20"]


def test_a_shard_revoked_during_the_upload(worker: Worker) -> None:
    """It leaves no checkpoint and no metrics, and does not count as a failure."""
    worker.open(0)
    worker.shards[0].work()
    worker.now += EVERY_S
    worker.tick()
    assert worker.value("bytes", shard="0") is not None
    local = worker.checkpoints.link(worker.shards[0])
    assert local is not None
    worker.checkpoints.assign({})
    worker.checkpoints.upload(local)
    assert len(worker.ids()) == 1
    assert worker.value("failures_total") == 0
    assert worker.value("bytes", shard="0") is None
    assert worker.checkpoints.due(worker.now + 9 * EVERY_S) is None


def test_a_stop_cancels_the_upload(worker: Worker) -> None:
    """A stop cancels an upload at its next chunk."""
    worker.open(0)
    worker.shards[0].work()
    local = worker.checkpoints.link(worker.shards[0])
    assert local is not None
    asyncio.run(worker.checkpoints.close())
    worker.checkpoints.upload(local)
    assert worker.ids() == []
    assert worker.value("failures_total") == 0


def kept_at_20(worker: Worker, number: int = 0) -> None:
    """Save a checkpoint at offset 20, advance the state to 40 and close it."""
    worker.open(number)
    worker.shards[number].work()
    worker.now += EVERY_S
    worker.tick()
    worker.shards[number].work()
    worker.close()


def test_a_lost_state_is_restored(worker: Worker) -> None:
    """Without a folder the newest checkpoint is restored; a state that reaches the log stays."""
    kept_at_20(worker)
    worker.open(0, begin=20)
    assert worker.shards[0].next == 40
    worker.close()
    shutil.rmtree(worker.folder(0))
    worker.open(0, begin=20)
    assert worker.shards[0].next == 20
    assert worker.value("failures_total") == 0


def test_an_empty_folder_is_no_state(worker: Worker) -> None:
    """A folder without a commit, as a kill may leave it, is replaced."""
    kept_at_20(worker)
    shutil.rmtree(worker.folder(0))
    FollowShard(worker.folder(0)).close()
    worker.open(0)
    assert worker.shards[0].next == 20


def test_a_state_that_ends_before_the_log(tmp_path: Path) -> None:
    """It is replaced by a checkpoint from which the log can be read."""
    first, second = Worker(tmp_path), Worker(tmp_path)
    kept_at_20(first)
    old = FollowShard(tmp_path / "old")
    old.work(5)
    old.close()
    shutil.rmtree(first.folder(0))
    shutil.move(tmp_path / "old", first.folder(0))
    second.open(0, begin=5)
    assert second.shards[0].next == 5
    second.close()
    second.open(0, begin=6)
    assert second.shards[0].next == 20
    second.close()


def test_a_log_that_is_too_short_for_all(worker: Worker) -> None:
    """No checkpoint reaches the log: the state stays, and the worker's check of the log reports it."""
    kept_at_20(worker)
    worker.open(0, begin=30)
    assert worker.shards[0].next == 40
    worker.close()
    worker.open(0, begin=50)
    assert worker.shards[0].next == 40


def test_a_checkpoint_of_a_log_that_is_gone(worker: Worker) -> None:
    """If the topics were created again with fewer messages, the state is rebuilt from the log."""
    kept_at_20(worker)
    shutil.rmtree(worker.folder(0))
    worker.open(0, end=19)
    assert worker.shards[0].next == 0
    worker.close()
    worker.open(0, end=20)
    assert worker.shards[0].next == 20


def test_all_damaged_with_a_whole_log(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    """The worker rebuilds from the log and logs the error."""
    kept_at_20(worker)
    for blob in worker.kept.rglob("blobs/*"):
        blob.write_bytes(b"?")
    shutil.rmtree(worker.folder(0))
    worker.open(0)
    assert worker.shards[0].next == 0
    assert worker.value("failures_total") == 1
    assert "checkpoint_unusable_rebuilding" in caplog.text


def test_all_damaged_with_a_short_log(worker: Worker) -> None:
    """The state cannot be restored: an error states what to do."""
    kept_at_20(worker)
    for blob in worker.kept.rglob("blobs/*"):
        blob.write_bytes(b"?")
    shutil.rmtree(worker.folder(0))
    with pytest.raises(StateError, match=r"all checkpoints in .* are damaged.*groundswell state restore"):
        worker.open(0, begin=3)


def test_a_damaged_state_is_not_replaced_by_itself(worker: Worker) -> None:
    """A folder that cannot be read may hold data worth saving: an operator must remove it."""
    kept_at_20(worker)
    next(worker.folder(0).glob("MANIFEST-*")).unlink()
    with pytest.raises(DamagedError, match="restore or remove"):
        worker.open(0)


def test_incompatible_checkpoints(worker: Worker) -> None:
    """Checkpoints of another spec or a newer format, or that end outside the log, are not restored."""
    kept_at_20(worker)
    kept = Repository(LocalFileSystem(), repository_root(str(worker.kept), LOG, 0, 2))
    manifest = kept.load(kept.ids()[0])
    assert incompatibility(manifest, SPEC, 20, 20) == ""
    assert "begins at 21" in incompatibility(manifest, SPEC, 21, 99)
    assert "the log at 19" in incompatibility(manifest, SPEC, 0, 19)
    assert "another retention_s, window" in incompatibility(manifest, replace(SPEC, window=4, retention_s=1), 0, 99)
    manifest = replace_format(kept, 99)
    assert "format 99" in incompatibility(manifest, SPEC, 0, 99)
    shutil.rmtree(worker.folder(0))
    worker.open(0)
    assert worker.shards[0].next == 0


def replace_format(kept: Repository, version: int) -> Any:
    """Change the format of the newest manifest in place and return the manifest."""
    path = f"{kept.root}/manifests/{kept.ids()[0]}.json"
    value = json.loads(kept.fs.cat_file(path))
    kept.fs.pipe_file(path, json.dumps({**value, "format": version}).encode())
    return kept.load(kept.ids()[0])


def test_leftovers(worker: Worker) -> None:
    """Incomplete folders of a killed process are removed, and nothing else."""
    worker.datadir.mkdir()
    for name in (".checkpoint-0", ".restoring-shard-0", ".replaced-shard-0", ".mine", "shard-0"):
        (worker.datadir / name).mkdir()
        (worker.datadir / name / "file").touch()
    worker.checkpoints.remove_leftovers()
    assert sorted(path.name for path in worker.datadir.iterdir()) == [".mine", "shard-0"]


@pytest.mark.parametrize(
    ("address", "message"),
    [("s3://bucket/x", "s3:// needs a plugin that is not installed.*s3fs"), ("nonsense://x", "an address that fsspec")],
)
def test_unusable_addresses(address: str, message: str) -> None:
    """A missing plugin and an unknown protocol are reported in one line."""
    with pytest.raises(SettingsError, match=message) as caught:
        open_address(address)
    assert "\n" not in str(caught.value)


def test_no_password_in_an_address() -> None:
    """An address is shown in `config` and in errors, so it must hold no secret."""
    with pytest.raises(SettingsError, match="GROUNDSWELL_CHECKPOINTS: must hold no password") as caught:
        Settings.load(checkpoints="sftp://me:secret@host/x")
    assert "secret" not in str(caught.value)
    assert Settings.load(checkpoints="sftp://me@host/x").checkpoints
