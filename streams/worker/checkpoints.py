"""A worker's checkpoints: made every so often while it works, brought back where its state is missing.

    due ──► flush (RocksDB's threads) ──► take (shard thread: files are linked) ──► upload (a thread of its own)

One shard at a time, one of these per tick: what was flushed a tick before need not be waited for.
Whatever fails is logged and counted, and tried again later: a checkpoint shortens a recovery, the log is
the truth.
"""

from __future__ import annotations

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
from graphstate.storage import checkpoint, migrations
from graphstate.storage.checkpoint import Interrupted, Manifest, Repository, Saved
from graphstate.storage.store import Store
from graphstate.types import GraphSpec, Progress
from streams.errors import SettingsError, StateError, one_line
from streams.kafka.topics import Topics
from streams.settings.settings import Settings
from streams.telemetry.metrics import Metrics
from streams.worker.log_mark import log_of, other_log

log = logging.getLogger(__name__)

AGAIN_S = 60.0
"""At most so long after a failure the next attempt is made."""
STOP_S = 1.0
SHARD_FOLDER = "shard"
"""How the folder of a shard's state begins, under DATADIR."""
TAKEN = ".checkpoint-"
_LEFT_OVER = (TAKEN, checkpoint.RESTORING, checkpoint.REPLACED)


class _Graph(Protocol):
    store: Store


class _Shard(Protocol):
    """What of a shard is needed here."""

    shard_id: int
    graph: _Graph


@dataclass(frozen=True)
class Taken:
    """A checkpoint in a folder beside the state, still to be uploaded."""

    partition: int
    folder: Path
    about: Manifest
    begin_s: float


def open_address(address: str) -> tuple[AbstractFileSystem, str]:
    """The filesystem and the path of an fsspec address.

    Raises:
        SettingsError: nobody knows it, or its plugin is not installed.
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
            f"GROUNDSWELL_CHECKPOINTS: {one_line(error)}; use an address that fsspec knows, as file:///backup"
        ) from error
    return fs, str(root)


def repository_root(root: str, log_name: str, shard: int, shards: int) -> str:
    """The folder of a shard's checkpoints: another log or another number of shards is another place."""
    return f"{root.rstrip('/')}/{log_name}/shard-{shard}-of-{shards}"


def repository(settings: Settings, shard: int) -> Repository:
    """A shard's checkpoints, for commands.

    Raises:
        SettingsError: there is no address, or it cannot be used.
    """
    if not settings.checkpoints:
        raise SettingsError("GROUNDSWELL_CHECKPOINTS is empty: set it to where checkpoints are kept")
    fs, root = open_address(settings.checkpoints)
    return Repository(fs, repository_root(root, Topics(settings).mutations.name, shard, settings.shards))


def keep(settings: Settings, kept: Repository, state: Path, shard: int) -> Saved:
    """Keep a checkpoint of a state that nobody has open, at once.

    Raises:
        GraphError: it is open, cannot be read, or could not be kept.
    """
    folder = settings.datadir / f"{TAKEN}{shard}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        store = Store(state)
        try:
            meta = checkpoint.take(store, folder)
        finally:
            store.close()
        log_name = Topics(settings).mutations.name
        about = checkpoint.describe(meta, log=log_name, shard=shard, shards=settings.shards, created_s=time.time())
        return kept.save(folder, about, settings.checkpoint_keep)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def bring_back(
    settings: Settings, shard: int, folder: Path, *, at: str, force: bool, progress: Progress
) -> tuple[str, Manifest]:
    """Restore a checkpoint by hand: the one named, or the newest that is whole. Returns its id and manifest.

    Raises:
        StateError: there is a state already and no force, or there is no checkpoint.
        LockedError: a worker has the state open.
        GraphError: what was named is damaged or cannot be had.
    """
    kept = repository(settings, shard)
    if folder.exists():
        if not force:
            raise StateError(f"{folder} exists: move it away, or replace it with --force")
        with suppress(DamagedError):
            Store(folder).close()
    if at:
        return at, kept.restore(at, folder, progress, replace=force)
    found = kept.restore_newest(folder, progress, misfit=unreadable, replace=force)
    if found is None:
        raise StateError(f"there is no checkpoint of shard {shard} in {kept.root}; is GROUNDSWELL_CHECKPOINTS right?")
    return found


def unreadable(manifest: Manifest) -> str:
    """Return why this version cannot read the format of a checkpoint; empty if it can."""
    if migrations.OLDEST <= manifest.format <= FORMAT:
        return ""
    return f"it has format {manifest.format}, this version reads formats {migrations.OLDEST} to {FORMAT}"


def misfit(manifest: Manifest, spec: GraphSpec, begin: int, end: int, log_id: str = "") -> str:
    """Why a checkpoint is of no use to a state of this spec with a log from begin up to end; empty if it is."""
    if why := unreadable(manifest):
        return why
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


class Checkpoints:
    """The checkpoints of all shards of one worker.

    Args:
        fs, root: where they are kept; a filesystem of None: there are none, and nothing here does anything.
        log_name: the mutations topic.
        shards: its partitions.
        datadir: the worker's folder.
        every_s, keep: how often, and how many of each shard.
        metrics: where their age, size, seconds and failures are told.
        clock: seconds that only rise.
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
    def of(cls, settings: Settings, metrics: Metrics) -> Checkpoints:
        """As the settings say."""
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
        )

    def _repository(self, partition: int) -> Repository:
        if partition not in self._repositories:
            assert self._fs is not None  # noqa: S101 - for mypy: nobody asks where there is none
            root = repository_root(self._root, self._log_name, partition, self._shards)
            self._repositories[partition] = Repository(
                self._fs, root, stopped=self._stopped.is_set, sleep=self._stopped.wait
            )
        return self._repositories[partition]

    def own(self, logs: Mapping[int, tuple[int, int]], log_id: str = "") -> None:
        """From now on these partitions are ours; the values are where their logs begin and end; log_id: the topic's."""
        now = self._clock()
        self._log_id = log_id
        for partition in self._logs.keys() - logs.keys():
            self._metrics.forget_checkpoint(partition)
        for partition in logs.keys() - self._logs.keys():
            self._last_s[partition], self._due_s[partition] = now, now + self._every_s
        self._logs = dict(logs)

    # Making them

    def due(self, now: float) -> int | None:
        """The partition whose turn it is, if any."""
        if self._fs is None or (self._thread is not None and self._thread.is_alive()):
            return None
        waiting = [(self._due_s[partition], partition) for partition in self._logs]
        due_s, partition = min(waiting, default=(float("inf"), -1))
        return partition if due_s <= now else None

    async def tick(self, read: Callable[[Callable[[Any], Taken | None]], Awaitable[list[Taken | None]]]) -> None:
        """Take the next step towards the checkpoint that is due; called every second or so.

        Args:
            read: asks every open shard, on the shard thread, between two steps.
        """
        now = self._clock()
        for partition in self._logs if self._fs is not None else ():
            self._metrics.checkpoint_age.labels(str(partition)).set(now - self._last_s[partition])
        due = self.due(now)
        if due is None:
            return
        try:
            if due not in self._flushed:
                self._flushed.add(due)
                await read(lambda shard: shard.graph.store.flush() if shard.shard_id == due else None)
                return
            self._flushed.discard(due)
            self._due_s[due] = now + min(self._every_s, AGAIN_S)
            found = await read(lambda shard: self.take(shard) if shard.shard_id == due else None)
        except Exception as error:  # noqa: BLE001 - the worker goes on without
            self._fail(due, error)
            return
        for taken in filter(None, found):
            # Not a thread of a pool: those are waited for at the end of the process.
            self._thread = Thread(target=self.upload, args=(taken,), name="checkpoint", daemon=True)
            self._thread.start()

    def take(self, shard: _Shard) -> Taken | None:
        """RocksDB's part, on the shard thread: None if it failed, or if the state is still empty."""
        partition, begin_s = shard.shard_id, self._clock()
        folder = self._datadir / f"{TAKEN}{partition}"
        try:
            shutil.rmtree(folder, ignore_errors=True)
            meta = checkpoint.take(shard.graph.store, folder)
            if b"next" not in meta:
                shutil.rmtree(folder, ignore_errors=True)
                self._last_s[partition] = begin_s  # nothing is missing
                return None
            about = checkpoint.describe(
                meta, log=self._log_name, shard=partition, shards=self._shards, created_s=time.time()
            )
        except Exception as error:  # noqa: BLE001 - rocksdict raises bare exceptions
            self._fail(partition, error)
            return None
        return Taken(partition, folder, about, begin_s)

    def upload(self, taken: Taken) -> None:
        """Everything else, on a thread of its own; never raises."""
        partition, metrics = taken.partition, self._metrics
        taken_s = self._clock() - taken.begin_s
        try:
            saved = self._repository(partition).save(
                taken.folder, taken.about, self._keep, lambda: partition in self._logs
            )
        except Interrupted as error:
            log.info("a checkpoint was given up", extra={"shard": partition, "because": str(error)})
            return
        except Exception as error:  # noqa: BLE001 - every filesystem has errors of its own
            self._fail(partition, error)
            return
        finally:
            shutil.rmtree(taken.folder, ignore_errors=True)
        seconds = self._clock() - taken.begin_s
        self._last_s[partition] = taken.begin_s
        self._due_s[partition] = taken.begin_s + self._every_s
        metrics.checkpoint_uploaded.inc(saved.uploaded_bytes)
        if partition in self._logs:
            metrics.checkpoint_bytes.labels(str(partition)).set(saved.manifest.size)
            metrics.checkpoint_seconds.labels(str(partition)).set(seconds)
        about: dict[str, Any] = {"shard": partition, "checkpoint": saved.id, "bytes": saved.manifest.size}
        about |= {"uploaded": saved.uploaded_bytes, "seconds": round(seconds, 3), "taken_s": round(taken_s, 3)}
        log.info("checkpoint", extra=about)

    def _fail(self, partition: int, error: BaseException) -> None:
        self._metrics.checkpoint_failures.inc()
        log.error("no checkpoint", extra={"shard": partition, "because": one_line(error)})

    def stop(self) -> None:
        """Give up what is being uploaded."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(STOP_S)

    # Bringing them back

    def tidy(self) -> None:
        """Remove what a process that was killed left half done; before anything else."""
        migrations.recover_all(self._datadir)
        for folder in self._datadir.glob(".*"):
            if folder.name.startswith(_LEFT_OVER):
                shutil.rmtree(folder, ignore_errors=True)

    def restore_if_missing(self, partition: int, folder: Path, spec: GraphSpec, progress: Progress) -> str | None:
        """Bring the newest checkpoint back if there is no state, or one that ends before its log begins.

        Returns the checkpoint's id; None if nothing was to be done or nothing could be, and the log has it all.

        Raises:
            StateError: nothing could be brought back, and the log alone does not suffice; or the state that is there is
                of another log.
        """
        its_id = log_of(folder)
        if its_id and self._log_id and its_id != self._log_id:
            raise other_log(str(folder), self._log_name, its_id, self._log_id)
        if self._fs is None:
            return None
        (begin, end), held = self._logs[partition], _held(folder)
        if held is not None and held >= begin:
            return None
        begin_s, source = self._clock(), self._repository(partition)
        try:
            found = source.restore_newest(
                folder, progress, misfit=lambda about: misfit(about, spec, begin, end, self._log_id), replace=True
            )
        except Interrupted:
            raise
        except (GraphError, OSError) as error:
            self._metrics.checkpoint_failures.inc()
            if begin > (held or 0):
                raise StateError(f"shard {partition}: {one_line(error)}; {too_short(self._log_name, begin)}") from error
            log.warning("rebuilding from the log alone", extra={"shard": partition, "because": one_line(error)})
            return None
        if found is None:
            return None
        name, manifest = found
        seconds = round(self._clock() - begin_s, 3)
        about = {"shard": partition, "checkpoint": name, "next_offset": manifest.next_offset, "bytes": manifest.size}
        log.info("restored", extra={**about, "seconds": seconds})
        return name


def too_short(log_name: str, begin: int) -> str:
    """What to do about a log that does not reach back to where a state ends."""
    return (
        f"{log_name} begins at offset {begin}, so only a checkpoint that reaches it can help: `groundswell state "
        "checkpoints` lists those in GROUNDSWELL_CHECKPOINTS, `groundswell state restore` brings one back"
    )


def left(datadir: Path) -> dict[int, int]:
    """The shards whose states are in a worker's folder, by where each ends in the log."""
    found = {}
    for folder in datadir.glob(f"{SHARD_FOLDER}-*"):
        number = folder.name.removeprefix(f"{SHARD_FOLDER}-")
        with suppress(DamagedError):
            offset = _held(folder) if number.isdecimal() else None
            if offset is not None:
                found[int(number)] = offset
    return found


def _held(folder: Path) -> int | None:
    """Where the state in a folder ends; None if there is none, or nothing in it."""
    try:
        return int(checkpoint.read_meta(folder)[b"next"])
    except KeyError:
        return None
    except DamagedError:
        if not (folder / "CURRENT").exists():
            return None
        raise
