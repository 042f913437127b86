"""Erasure of forgotten users from a worker's files and caches.

    forget ──► a state without the user, and a mark (one WriteBatch)
                └─ ERASE_WITHIN_S ──► the journal is cleaned (between steps, part by part)
                                       └─► all files of the shard are rewritten (own thread) ──► the mark is removed

The journal keeps removed rows until their segment is rewritten, RocksDB replaced values until it compacts the file that
holds them, and the copy of a shard that another worker has taken over receives no forgets. This module rewrites the
former two and removes the latter. A failure is logged, counted and retried.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from graphstate.state import GraphState
from graphstate.storage.checkpoints.repository import REPLACED
from graphstate.types import source_hash
from streams.errors import one_line
from streams.shard.shard import Shard
from streams.telemetry.metrics import Metrics
from streams.worker.data_dir import shard_folders
from streams.worker.lifecycle import WorkerPart
from streams.worker.processing.shard_host import ShardHost

log = logging.getLogger(__name__)

AGAIN_S = 60.0
"""Delay of the next attempt after a failure."""
COPY_S = 60.0
"""Minimum age of the copy of a shard that another worker has before it is removed: a partition may come back soon."""
STOP_S = 1.0
CLEAN_BYTES = 8 << 20
"""Bytes of a shard's journal that are read at once on its thread, some tens of milliseconds."""


@dataclass(frozen=True)
class MarkedShard:
    """A shard whose files may hold forgotten users.

    Attributes:
        shard: Number of the shard.
        graph: Its graph.
        mark: The newest mark; 0 if its files hold no forgotten user.
        size: Size of its files in bytes.
    """

    shard: int
    graph: GraphState
    mark: int
    size: int


@dataclass(frozen=True)
class Rewrite:
    """The result of one rewrite: done, failed, or neither, if the shard was closed meanwhile."""

    marked: MarkedShard
    done: bool
    failed: bool
    seconds: float


class DataErasure(WorkerPart):
    """Rewrites the files of shards that forgot users, and removes copies of shards that other workers have.

    Args:
        host: The open shards.
        metrics: Records erasures and failures.
        datadir: The worker's data folder.
        within_s: Maximum time from a forget until the files no longer hold the user, in seconds.
        assignment_known: Whether the group has assigned shards to this worker.
        on_removed: Called with the number of a shard whose copy was removed.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        host: ShardHost,
        metrics: Metrics,
        datadir: Path,
        within_s: float,
        *,
        assignment_known: Callable[[], bool],
        on_removed: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._metrics = metrics
        self._datadir = datadir
        self._within_s = within_s
        self._assignment_known = assignment_known
        self._on_removed = on_removed
        self._clock = clock
        self._since_s: dict[int, float] = {}
        self._due_s: dict[int, float] = {}
        self._copies_s: dict[int, float] = {}
        self._cleared_s = clock()
        self._thread: Thread | None = None
        self._rewrites: list[Rewrite] = []

    async def tick(self) -> None:
        """Take the next step that is due."""
        if self._thread is not None and not self._thread.is_alive():
            self._thread = None
            await self._finish()
        shards = await self._host.read(_marked_shard)
        marked, now = [shard for shard in shards if shard.mark], self._clock()
        self._schedule([shard.shard for shard in marked], now)
        due = self._thread is None and any(due <= now for due in self._due_s.values())
        if due and all(await self._host.read(_cleaned)):
            # Not a thread of a pool: the interpreter waits for those at its exit.
            self._thread = Thread(target=self.rewrite, args=(marked,), name="erase", daemon=True)
            self._thread.start()
        if now - self._cleared_s >= max(self._within_s, COPY_S):
            self._clear_caches(now)
        if self._assignment_known():
            await self._remove_copies({shard.shard for shard in shards}, now)

    def _schedule(self, shards: list[int], now: float) -> None:
        """Record since when each shard has a mark and when its rewrite is due."""
        for times_s in (self._since_s, self._due_s):
            for shard in times_s.keys() - set(shards):
                del times_s[shard]
        for shard in shards:
            self._since_s.setdefault(shard, now)
            self._due_s.setdefault(shard, now + self._within_s)
        self._metrics.forget_waiting.set(now - min(self._since_s.values(), default=now))

    def _clear_caches(self, now: float) -> None:
        """Clear the cache of hashes: its keys are user ids."""
        source_hash.cache_clear()
        self._cleared_s = now

    # Files

    def rewrite(self, marked: list[MarkedShard]) -> None:
        """Rewrite the files of these shards; runs on its own thread and never raises."""
        for shard in marked:
            begin_s, done, failed = self._clock(), False, False
            try:
                done = shard.graph.store.rewrite()
            except Exception as error:  # noqa: BLE001 - the worker runs on, and the mark stays
                failed = True
                log.warning("erasure_failed", extra={"shard": shard.shard, "error": one_line(error)})
            seconds = self._clock() - begin_s
            self._rewrites.append(Rewrite(shard, done, failed, seconds))
            if done:
                log.info(
                    "shard_erased", extra={"shard": shard.shard, "bytes": shard.size, "seconds": round(seconds, 3)}
                )

    async def _finish(self) -> None:
        """Remove the marks of rewritten shards, unless they forgot more users meanwhile; reschedule failures."""
        rewrites, self._rewrites = self._rewrites, []
        self._clear_caches(self._clock())
        for rewrite in rewrites:
            marked = rewrite.marked

            def unmark(shard: Shard, marked: MarkedShard = marked) -> None:
                if shard.graph is marked.graph:
                    shard.graph.erased(marked.mark)

            if rewrite.done:
                await self._host.read(unmark)
                self._metrics.erasures.inc()
                self._metrics.erase_seconds.set(rewrite.seconds)
                # A forget during the rewrite gets a due time of its own.
                self._since_s.pop(marked.shard, None)
                self._due_s.pop(marked.shard, None)
            elif rewrite.failed:
                self._metrics.erase_failures.inc()
                self._due_s[marked.shard] = self._clock() + AGAIN_S

    # Copies

    async def _remove_copies(self, held: set[int], now: float) -> None:
        """Remove the states of shards that were not open here for the minimum age."""
        copies = shard_folders(self._datadir)
        for shard in self._copies_s.keys() - (copies.keys() - held):
            del self._copies_s[shard]
        for shard in copies.keys() - held:
            if now - self._copies_s.setdefault(shard, now) < max(self._within_s, COPY_S):
                continue
            aside = self._datadir / f"{REPLACED}{copies[shard].name}"
            try:
                if await self._host.put_aside(shard, copies[shard], aside):
                    self._on_removed(shard)
                    await asyncio.to_thread(shutil.rmtree, aside)
                    log.info("shard_copy_removed", extra={"shard": shard})
            except OSError as error:
                self._copies_s[shard] = now
                self._metrics.erase_failures.inc()
                log.warning("shard_copy_removal_failed", extra={"shard": shard, "error": one_line(error)})

    async def close(self) -> None:
        """Wait briefly for the rewrite; closing the shards ends it."""
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, STOP_S)


def _cleaned(shard: Shard) -> bool:
    """Drop removed rows from a part of the journal of a marked shard; return whether none of them is left."""
    return not shard.graph.unerased() or shard.graph.clean(CLEAN_BYTES)


def _marked_shard(shard: Shard) -> MarkedShard:
    mark = shard.graph.unerased()
    return MarkedShard(shard.shard_id, shard.graph, mark, shard.graph.store.sizes()["sst"] if mark else 0)
