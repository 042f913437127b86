"""What a `forget` leaves in a worker's files and caches, and how it goes.

    forget ──► a state without the person, and a mark (one WriteBatch)
                └─ ERASE_WITHIN_S ──► every file of the shard written anew (a thread of its own) ──► no mark

A RocksDB goes on holding what was replaced until it happens to write that file anew; a copy of a shard that another
worker has by now hears of no forget at all. Both end here. What fails is logged, counted and tried again.
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
from graphstate.storage.repository import REPLACED
from graphstate.types import source_hash
from streams.errors import one_line
from streams.shard.shard import Shard
from streams.telemetry.metrics import Metrics
from streams.worker.data_dir import shard_folders
from streams.worker.processing.shard_host import ShardHost

log = logging.getLogger(__name__)

AGAIN_S = 60.0
"""After so long what failed is tried again."""
COPY_S = 60.0
"""The least time for which the copy of a shard stays that another worker has: partitions come and go."""
STOP_S = 1.0


@dataclass(frozen=True)
class Marked:
    """A shard whose files hold what must leave them; mark: which, 0 if nothing. size: bytes of its files."""

    shard: int
    graph: GraphState
    mark: int
    size: int


@dataclass(frozen=True)
class Written:
    """What became of one: done; or failed; or neither, as it was closed meanwhile."""

    marked: Marked
    done: bool
    failed: bool
    seconds: float


class Eraser:
    """Lets the files and caches of one worker follow what its shards forget.

    Args:
        host: the worker's open shards.
        within_s: how long after a forget the person may still be in a file.
        settled: whether it is known which shards are this worker's.
        gone: told of a shard whose folder was removed because another worker has it.
        clock: seconds that only rise.
    """

    def __init__(
        self,
        host: ShardHost,
        metrics: Metrics,
        datadir: Path,
        within_s: float,
        *,
        settled: Callable[[], bool],
        gone: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._metrics = metrics
        self._datadir = datadir
        self._within_s = within_s
        self._settled = settled
        self._gone = gone
        self._clock = clock
        self._since_s: dict[int, float] = {}
        self._due_s: dict[int, float] = {}
        self._copies_s: dict[int, float] = {}
        self._cleared_s = clock()
        self._thread: Thread | None = None
        self._written: list[Written] = []

    async def tick(self) -> None:
        """Take the next step that is due; called every second or so."""
        if self._thread is not None and not self._thread.is_alive():
            self._thread = None
            await self._settle()
        found = await self._host.read(_look)
        marked, now = [one for one in found if one.mark], self._clock()
        self._note([one.shard for one in marked], now)
        if self._thread is None and any(due <= now for due in self._due_s.values()):
            # Not a thread of a pool: those are waited for at the end of the process.
            self._thread = Thread(target=self.write, args=(marked,), name="erase", daemon=True)
            self._thread.start()
        if now - self._cleared_s >= max(self._within_s, COPY_S):
            self._clear(now)
        if self._settled():
            await self._drop_copies({one.shard for one in found}, now)

    def _note(self, shards: list[int], now: float) -> None:
        """Since when each has its mark, and when its turn is."""
        for known in (self._since_s, self._due_s):
            for shard in known.keys() - set(shards):
                del known[shard]
        for shard in shards:
            self._since_s.setdefault(shard, now)
            self._due_s.setdefault(shard, now + self._within_s)
        self._metrics.forget_waiting.set(now - min(self._since_s.values(), default=now))

    def _clear(self, now: float) -> None:
        """The cache of hashes knows ids."""
        source_hash.cache_clear()
        self._cleared_s = now

    # Files

    def write(self, marked: list[Marked]) -> None:
        """Write the files of these shards anew, on a thread of its own; never raises."""
        for one in marked:
            begin_s, done, failed = self._clock(), False, False
            try:
                done = one.graph.store.rewrite()
            except Exception as error:  # noqa: BLE001 - the worker goes on, and the mark stays
                failed = True
                log.warning("not erased", extra={"shard": one.shard, "because": one_line(error)})
            seconds = self._clock() - begin_s
            self._written.append(Written(one, done, failed, seconds))
            if done:
                log.info("erased", extra={"shard": one.shard, "bytes": one.size, "seconds": round(seconds, 3)})

    async def _settle(self) -> None:
        """What was written anew has no mark any more, unless somebody else was forgotten meanwhile."""
        written, self._written = self._written, []
        self._clear(self._clock())
        for one in written:
            marked = one.marked

            def unmark(shard: Shard, marked: Marked = marked) -> None:
                if shard.graph is marked.graph:
                    shard.graph.erased(marked.mark)

            if one.done:
                await self._host.read(unmark)
                self._metrics.erasures.inc()
                self._metrics.erase_seconds.set(one.seconds)
                # Whatever was forgotten meanwhile has a time of its own.
                self._since_s.pop(marked.shard, None)
                self._due_s.pop(marked.shard, None)
            elif one.failed:
                self._metrics.erase_failures.inc()
                self._due_s[marked.shard] = self._clock() + AGAIN_S

    # Copies

    async def _drop_copies(self, held: set[int], now: float) -> None:
        """Remove the states of shards that other workers have had for long."""
        copies = shard_folders(self._datadir)
        for shard in self._copies_s.keys() - (copies.keys() - held):
            del self._copies_s[shard]
        for shard in copies.keys() - held:
            if now - self._copies_s.setdefault(shard, now) < max(self._within_s, COPY_S):
                continue
            aside = self._datadir / f"{REPLACED}{copies[shard].name}"
            try:
                if await self._host.put_aside(shard, copies[shard], aside):
                    self._gone(shard)
                    await asyncio.to_thread(shutil.rmtree, aside)
                    log.info("removed the copy of a shard that another worker has", extra={"shard": shard})
            except OSError as error:
                self._copies_s[shard] = now
                self._metrics.erase_failures.inc()
                log.warning("not removed", extra={"shard": shard, "because": one_line(error)})

    def stop(self) -> None:
        """Wait a moment for the thread; closing the shards ends it."""
        if self._thread is not None:
            self._thread.join(STOP_S)


def _look(shard: Shard) -> Marked:
    mark = shard.graph.unerased()
    return Marked(shard.shard_id, shard.graph, mark, shard.graph.store.sizes()["sst"] if mark else 0)
