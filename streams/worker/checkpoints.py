"""A worker's checkpoints: created periodically while it runs, restored where a state is missing.

    due ──► flush (RocksDB's threads) ──► link (shard thread: files are linked) ──► upload (own thread)

One shard at a time, one step per tick: linking then does not wait for the flush of the tick before. A failure is
logged, counted and retried later. Checkpoints only shorten a recovery: the log is the source of truth.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any, Protocol

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from graphstate.errors import DamagedError, GraphError
from graphstate.state import FORMAT
from graphstate.storage import migrations
from graphstate.storage.checkpoints.manifest import Manifest, create_checkpoint, describe, read_meta
from graphstate.storage.checkpoints.remote_folder import Interrupted
from graphstate.storage.checkpoints.repository import REPLACED, RESTORING, Repository, SavedCheckpoint
from graphstate.storage.store import Store
from graphstate.types import GraphSpec, Progress
from streams.errors import SettingsError, StateError, one_line
from streams.kafka.topics import Topics
from streams.settings.settings import Settings
from streams.telemetry.metrics import Metrics
from streams.worker.data_dir import shard_folders, shard_name
from streams.worker.lifecycle import WorkerPart
from streams.worker.log_mark import log_too_short, other_log, recorded_log_id

log = logging.getLogger(__name__)

AGAIN_S = 60.0
"""Maximum delay of the next attempt after a failure."""
STOP_S = 1.0
LOCAL = ".checkpoint-"
"""Name prefix of the local folder in which a checkpoint is assembled."""
_LEFTOVERS = (LOCAL, RESTORING, REPLACED)


class _Graph(Protocol):
    store: Store


class _Shard(Protocol):
    """The part of a shard that checkpoints read."""

    shard_id: int
    graph: _Graph


@dataclass(frozen=True)
class LocalCheckpoint:
    """A checkpoint in a local folder, ready to be uploaded. begin_s: when it was begun, by the checkpoints' clock."""

    partition: int
    folder: Path
    manifest: Manifest
    begin_s: float


Read = Callable[[Callable[[Any], LocalCheckpoint | None]], Awaitable[list[LocalCheckpoint | None]]]


def open_address(address: str) -> tuple[AbstractFileSystem, str]:
    """Return the filesystem and the path of an fsspec address.

    Raises:
        SettingsError: fsspec does not support the address, or its plugin is not installed.
    """
    try:
        fs, root = url_to_fs(address)
    except ImportError as error:
        protocol = address.partition("://")[0]
        raise SettingsError(
            f"GROUNDSWELL_CHECKPOINTS: {protocol}:// needs a plugin that is not installed ({one_line(error)})"
        ) from error
    except (ValueError, TypeError, OSError) as error:
        raise SettingsError(
            f"GROUNDSWELL_CHECKPOINTS: {one_line(error)}; use an address that fsspec supports, as file:///backup"
        ) from error
    return fs, str(root)


def repository_root(root: str, log_name: str, shard: int, shards: int) -> str:
    """Return the folder of a shard's checkpoints; every log and every number of shards has folders of its own."""
    return f"{root.rstrip('/')}/{log_name}/{shard_name(shard)}-of-{shards}"


def repository(settings: Settings, shard: int) -> Repository:
    """Return a shard's checkpoints, for commands.

    Raises:
        SettingsError: GROUNDSWELL_CHECKPOINTS is empty or cannot be used.
    """
    if not settings.checkpoints:
        raise SettingsError("GROUNDSWELL_CHECKPOINTS is empty: set it to where checkpoints are kept")
    fs, root = open_address(settings.checkpoints)
    return Repository(fs, repository_root(root, Topics(settings).mutations.name, shard, settings.shards))


def save_checkpoint(settings: Settings, kept: Repository, state: Path, shard: int) -> SavedCheckpoint:
    """Save a checkpoint of a state that no process has open.

    Args:
        settings: Names the data folder and the log.
        kept: Receives the checkpoint.
        state: Folder of the state.
        shard: Its number.

    Raises:
        GraphError: The state is open or cannot be read, or the checkpoint cannot be saved.
    """
    folder = settings.datadir / f"{LOCAL}{shard}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        store = Store(state)
        try:
            meta = create_checkpoint(store, folder)
        finally:
            store.close()
        log_name = Topics(settings).mutations.name
        manifest = describe(meta, log=log_name, shard=shard, shards=settings.shards, created_s=time.time())
        return kept.save(folder, manifest, settings.checkpoint_keep)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def restore_checkpoint(
    settings: Settings, shard: int, folder: Path, *, at: str, force: bool, progress: Progress
) -> tuple[str, Manifest]:
    """Restore a checkpoint on an operator's command; return its id and manifest.

    Args:
        settings: Names the checkpoints.
        shard: The shard.
        folder: Folder of its state.
        at: Id of the checkpoint; empty: the newest that is intact.
        force: Whether an existing state is replaced.
        progress: Called with the progress.

    Raises:
        StateError: There is a state and no force, or there is no checkpoint.
        LockedError: A worker has the state open.
        GraphError: The named checkpoint is damaged or cannot be read.
    """
    kept = repository(settings, shard)
    if folder.exists():
        if not force:
            raise StateError(f"{folder} exists: move it away, or replace it with --force")
        with suppress(DamagedError):
            Store(folder).close()
    if at:
        return at, kept.restore(at, folder, progress, replace=force)
    restored = kept.restore_newest(folder, progress, misfit=unreadable, replace=force)
    if restored is None:
        raise StateError(f"there is no checkpoint of shard {shard} in {kept.root}; is GROUNDSWELL_CHECKPOINTS right?")
    return restored


def unreadable(manifest: Manifest) -> str:
    """Return why this version cannot read the format of a checkpoint; empty if it can."""
    if migrations.OLDEST <= manifest.format <= FORMAT:
        return ""
    return f"it has format {manifest.format}, this version reads formats {migrations.OLDEST} to {FORMAT}"


def incompatibility(manifest: Manifest, spec: GraphSpec, begin: int, end: int, log_id: str = "") -> str:
    """Return why a checkpoint cannot be restored; empty if it can.

    Args:
        manifest: Describes the checkpoint.
        spec: The state to restore.
        begin: First offset of the log.
        end: Offset after the last of the log.
        log_id: Topic id of the log; empty if unknown.
    """
    if reason := unreadable(manifest):
        return reason
    wanted = asdict(spec)
    differing = sorted(name for name, value in manifest.spec.items() if value != wanted.get(name))
    if differing:
        return f"it was built with another {', '.join(differing)}"
    if manifest.log_id and log_id and manifest.log_id != log_id:
        return f"it is of another log, with topic id {manifest.log_id}"
    if manifest.next_offset < begin:
        return f"it ends at offset {manifest.next_offset}, and the log begins at {begin}"
    if manifest.next_offset > end:
        return f"it ends at offset {manifest.next_offset}, and the log at {end}"
    return ""


class Checkpoints(WorkerPart):
    """The checkpoints of all shards of one worker.

    Args:
        fs: Filesystem of the checkpoints; None disables them.
        root: Folder of the checkpoints in it.
        log_name: Name of the mutations topic.
        shards: Number of its partitions.
        datadir: The worker's data folder.
        every_s: Interval between two checkpoints of a shard in seconds.
        keep: Number of checkpoints kept per shard.
        metrics: Records age, size, duration and failures.
        read: Calls a function with every open shard, on the shard thread, between two steps.
        clock: Monotonic seconds.
    """

    def __init__(  # noqa: PLR0913 - settings, by keyword
        self,
        fs: AbstractFileSystem | None,
        root: str,
        *,
        log_name: str,
        shards: int,
        datadir: Path,
        every_s: float,
        keep: int,
        metrics: Metrics,
        read: Read,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fs = fs
        self._root = root
        self._log_name = log_name
        self._shards = shards
        self._datadir = datadir
        self._every_s = every_s
        self._keep = keep
        self._metrics = metrics
        self._read = read
        self._clock = clock
        self._stopped = Event()
        self._thread: Thread | None = None
        self._repositories: dict[int, Repository] = {}
        self._logs: dict[int, tuple[int, int]] = {}
        self._log_id = ""
        self._last_s: dict[int, float] = {}
        self._due_s: dict[int, float] = {}
        self._flushed: set[int] = set()

    @classmethod
    def of(cls, settings: Settings, metrics: Metrics, read: Read) -> Checkpoints:
        """Return the checkpoints that the settings configure."""
        fs, root = open_address(settings.checkpoints) if settings.checkpoints else (None, "")
        return cls(
            fs,
            root,
            log_name=Topics(settings).mutations.name,
            shards=settings.shards,
            datadir=settings.datadir,
            every_s=settings.checkpoint_every_s,
            keep=settings.checkpoint_keep,
            metrics=metrics,
            read=read,
        )

    def _repository(self, partition: int) -> Repository:
        if partition not in self._repositories:
            assert self._fs is not None  # noqa: S101 - for mypy: only called with a filesystem
            root = repository_root(self._root, self._log_name, partition, self._shards)
            self._repositories[partition] = Repository(
                self._fs, root, stopped=self._stopped.is_set, sleep=self._stopped.wait
            )
        return self._repositories[partition]

    def assign(self, logs: Mapping[int, tuple[int, int]], log_id: str = "") -> None:
        """Set the shards of this worker.

        Args:
            logs: First offset and end offset of the log, by shard.
            log_id: Topic id of the log.
        """
        now = self._clock()
        self._log_id = log_id
        for partition in self._logs.keys() - logs.keys():
            self._metrics.forget_checkpoint(partition)
        for partition in logs.keys() - self._logs.keys():
            self._last_s[partition], self._due_s[partition] = now, now + self._every_s
        self._logs = dict(logs)

    # Creation

    def due(self, now: float) -> int | None:
        """Return the shard whose checkpoint is due, None if there is none or an upload is running."""
        if self._fs is None or (self._thread is not None and self._thread.is_alive()):
            return None
        waiting = [(self._due_s[partition], partition) for partition in self._logs]
        due_s, partition = min(waiting, default=(float("inf"), -1))
        return partition if due_s <= now else None

    async def tick(self) -> None:
        """Take the next step of the checkpoint that is due."""
        now = self._clock()
        for partition in self._logs if self._fs is not None else ():
            self._metrics.checkpoint_age.labels(str(partition)).set(now - self._last_s[partition])
        due = self.due(now)
        if due is None:
            return
        try:
            if due not in self._flushed:
                self._flushed.add(due)
                await self._read(lambda shard: shard.graph.store.flush() if shard.shard_id == due else None)
                return
            self._flushed.discard(due)
            self._due_s[due] = now + min(self._every_s, AGAIN_S)
            linked = await self._read(lambda shard: self.link(shard) if shard.shard_id == due else None)
        except Exception as error:  # noqa: BLE001 - the worker runs on without a checkpoint
            self._fail(due, error)
            return
        for local in filter(None, linked):
            # Not a thread of a pool: the interpreter waits for those at its exit.
            self._thread = Thread(target=self.upload, args=(local,), name="checkpoint", daemon=True)
            self._thread.start()

    def link(self, shard: _Shard) -> LocalCheckpoint | None:
        """Link the files of a shard's RocksDB into a local folder; runs on the shard thread.

        Returns:
            The local checkpoint; None if it failed, or if the state is still empty.
        """
        partition, begin_s = shard.shard_id, self._clock()
        folder = self._datadir / f"{LOCAL}{partition}"
        try:
            shutil.rmtree(folder, ignore_errors=True)
            meta = create_checkpoint(shard.graph.store, folder)
            if b"next" not in meta:
                shutil.rmtree(folder, ignore_errors=True)
                self._last_s[partition] = begin_s  # an empty state needs no checkpoint
                return None
            manifest = describe(meta, log=self._log_name, shard=partition, shards=self._shards, created_s=time.time())
        except Exception as error:  # noqa: BLE001 - rocksdict raises bare exceptions
            self._fail(partition, error)
            return None
        return LocalCheckpoint(partition, folder, manifest, begin_s)

    def upload(self, local: LocalCheckpoint) -> None:
        """Upload a local checkpoint and remove its folder; runs on its own thread and never raises."""
        partition, metrics = local.partition, self._metrics
        linked_s = self._clock() - local.begin_s
        try:
            saved = self._repository(partition).save(
                local.folder, local.manifest, self._keep, lambda: partition in self._logs
            )
        except Interrupted as error:
            log.info("checkpoint_cancelled", extra={"shard": partition, "reason": str(error)})
            return
        except Exception as error:  # noqa: BLE001 - every filesystem has errors of its own
            self._fail(partition, error)
            return
        finally:
            shutil.rmtree(local.folder, ignore_errors=True)
        seconds = self._clock() - local.begin_s
        self._last_s[partition] = local.begin_s
        self._due_s[partition] = local.begin_s + self._every_s
        metrics.checkpoint_uploaded.inc(saved.uploaded_bytes)
        if partition in self._logs:
            metrics.checkpoint_bytes.labels(str(partition)).set(saved.manifest.size)
            metrics.checkpoint_seconds.labels(str(partition)).set(seconds)
        fields: dict[str, Any] = {"shard": partition, "checkpoint": saved.id, "bytes": saved.manifest.size}
        fields |= {"uploaded": saved.uploaded_bytes, "seconds": round(seconds, 3), "linked_s": round(linked_s, 3)}
        log.info("checkpoint_saved", extra=fields)

    def _fail(self, partition: int, error: BaseException) -> None:
        self._metrics.checkpoint_failures.inc()
        log.error("checkpoint_failed", extra={"shard": partition, "error": one_line(error)})

    async def close(self) -> None:
        """Cancel the upload that is running and wait briefly for its thread."""
        self._stopped.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, STOP_S)

    # Restoration

    def remove_leftovers(self) -> None:
        """Remove what a killed process left incomplete; call it before anything else."""
        migrations.recover_all(self._datadir)
        for folder in self._datadir.glob(".*"):
            if folder.name.startswith(_LEFTOVERS):
                shutil.rmtree(folder, ignore_errors=True)

    def restore_if_missing(self, partition: int, folder: Path, spec: GraphSpec, progress: Progress) -> str | None:
        """Restore the newest checkpoint if there is no state, or one that ends before its log begins.

        Args:
            partition: The shard.
            folder: Folder of its state.
            spec: The state to restore.
            progress: Called with the progress.

        Returns:
            The checkpoint's id; None if no checkpoint was restored and the log alone is enough.

        Raises:
            StateError: No checkpoint could be restored and the log alone is not enough, or the existing state is of
                another log.
        """
        recorded_id = recorded_log_id(folder)
        if recorded_id and self._log_id and recorded_id != self._log_id:
            raise other_log(str(folder), self._log_name, recorded_id, self._log_id)
        if self._fs is None:
            return None
        (begin, end), offset = self._logs[partition], _end_offset(folder)
        if offset is not None and offset >= begin:
            return None
        begin_s, source = self._clock(), self._repository(partition)
        try:
            restored = source.restore_newest(
                folder,
                progress,
                misfit=lambda manifest: incompatibility(manifest, spec, begin, end, self._log_id),
                replace=True,
            )
        except Interrupted:
            raise
        except (GraphError, OSError) as error:
            self._metrics.checkpoint_failures.inc()
            if begin > (offset or 0):
                reason = f"shard {partition}: {one_line(error)}; {log_too_short(self._log_name, begin)}"
                raise StateError(reason) from error
            log.warning("checkpoint_unusable_rebuilding", extra={"shard": partition, "error": one_line(error)})
            return None
        if restored is None:
            return None
        name, manifest = restored
        seconds = round(self._clock() - begin_s, 3)
        fields = {"shard": partition, "checkpoint": name, "next_offset": manifest.next_offset, "bytes": manifest.size}
        log.info("checkpoint_restored", extra={**fields, "seconds": seconds})
        return name


def saved_offsets(datadir: Path) -> dict[int, int]:
    """Return the log offset at which each state in a data folder ends, by shard."""
    offsets = {}
    for shard, folder in shard_folders(datadir).items():
        with suppress(DamagedError):
            offset = _end_offset(folder)
            if offset is not None:
                offsets[shard] = offset
    return offsets


def _end_offset(folder: Path) -> int | None:
    """Return the log offset at which a state ends; None if there is no state, or an empty one."""
    try:
        return int(read_meta(folder)[b"next"])
    except KeyError:
        return None
    except DamagedError:
        if not (folder / "CURRENT").exists():
            return None
        raise
