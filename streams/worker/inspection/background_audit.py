"""Background audit: audits random users one after another, within a fraction of one CPU core.

shard thread     read a snapshot of a user between two steps
another thread   compare it with the reference
shard thread     on a mismatch: read again, repair, read again
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from time import perf_counter
from typing import TypeVar

import numpy as np

from graphstate.types import USER
from model.artifact import Artifact
from model.engine.dual_engine import DualEngine
from streams.errors import ModelRefused, one_line
from streams.shard.shard import Shard
from streams.telemetry.metrics import Metrics, RecentMaximum
from streams.worker.inspection.reference_process import ReferenceProcess
from streams.worker.inspection.user_audit import AuditResult, UserSnapshot, compare, read_snapshot, repair_user
from streams.worker.processing.shard_host import ShardHost

log = logging.getLogger(__name__)
A = TypeVar("A")
T = TypeVar("T")

IDLE_S = 1.0
"""Pause when there is no user to audit, or after a failure."""
START_S = 0.3
"""Audit time that must have accrued before the first audit: 30 s at a share of 1 %. The reference process takes seconds
and hundreds of megabytes to start; a worker that stops soon does not start it."""
_DRAWS = 64


def rest_s(spent_s: float, share: float) -> float:
    """Return the pause after work of this duration that keeps the work at this share of all time."""
    return spent_s * (1.0 / share - 1.0)


def draw_user(shard: Shard, random: Random) -> int | None:
    """Return the row of a random live user of a shard; None if no draw hit one."""
    rows = shard.view.rows(USER)
    if not rows:
        return None
    drawn = np.array([random.randrange(rows) for _ in range(_DRAWS)])
    live = drawn[shard.graph.live_users(drawn)]
    return int(live[0]) if len(live) else None


class Auditor:
    """Audits users of a worker's open shards until it is cancelled.

    Args:
        host: Open shards.
        metrics: Metrics of the worker.
        share: Fraction of one CPU core, above 0.
        make_reference: Makes the reference of an artifact; one is kept, and closed at the end.
        random: Source of random users.
        clock: Monotonic clock (s).
        sleep: Waits for some seconds.
    """

    def __init__(
        self,
        host: ShardHost,
        metrics: Metrics,
        share: float,
        *,
        make_reference: Callable[[Artifact], ReferenceProcess] = ReferenceProcess,
        random: Random | None = None,
        clock: Callable[[], float] = perf_counter,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._host = host
        self._metrics = metrics
        self._share = share
        self._make_reference = make_reference
        self._reference: tuple[str, ReferenceProcess] | None = None
        self._random = random or Random()
        self._clock = clock
        self._sleep = sleep
        self._largest = RecentMaximum(clock)

    async def run(self) -> None:
        """Audit and pause in turn; raises only where a repair failed halfway."""
        try:
            await self._sleep(rest_s(START_S, self._share))
            while True:
                spent_s = await self.once()
                self._metrics.audit_seconds.inc(spent_s)
                await self._sleep(rest_s(spent_s, self._share) if spent_s else IDLE_S)
        finally:
            self.close()

    def close(self) -> None:
        """End the reference process; the next audit starts another."""
        if self._reference is not None:
            process, self._reference = self._reference[1], None
            process.close()

    async def once(self) -> float:
        """Audit one user; return the seconds of work, 0 if there was no user to audit."""
        spent = [0.0]
        try:
            read = await self._host.run_on_any(self._random.choice, partial(self._timed, spent, self._read))
            if read is None:
                return 0.0
            shard, artifact, snapshot = read
            if snapshot is None:
                self._metrics.audit_nodes.labels("skipped").inc()
                return spent[0]
            reference = await self._reference_of(artifact)
            result = await asyncio.to_thread(self._timed, spent, partial(compare, snapshot), reference)
        except Exception as error:  # noqa: BLE001 - reading a shard does it no harm
            self._fail(error)
            return 0.0
        self._metrics.audit_error.set(self._largest.observe(result.error))
        if not result.mismatches:
            self._metrics.audit_nodes.labels("fine").inc()
        else:
            await self._repair(shard, snapshot, result, reference, spent)
        return spent[0]

    def _fail(self, error: Exception) -> None:
        """Count and log an audit without a result; where the reference process ended, the next audit starts another."""
        log.warning("audit_failed", extra={"because": one_line(error)})
        self._metrics.audit_nodes.labels("failed").inc()
        if isinstance(error, ModelRefused):
            self.close()

    async def _reference_of(self, artifact: Artifact) -> ReferenceProcess:
        """Return the started reference of an artifact; the last one is kept."""
        if self._reference is None or self._reference[0] != artifact.version:
            self.close()
            self._reference = artifact.version, self._make_reference(artifact)
            await asyncio.to_thread(self._reference[1].start)
        return self._reference[1]

    def _read(self, shard: Shard) -> tuple[Shard, Artifact, UserSnapshot | None] | None:
        """Read a snapshot of a random user of a shard, on its thread."""
        if isinstance(shard.engine, DualEngine):
            return None  # values that one of its two engines has not computed yet are no mismatch
        user = draw_user(shard, self._random)
        if user is None:
            return None
        return shard, shard.artifact, read_snapshot(shard, user, self._random.getrandbits(32))

    async def _repair(
        self,
        shard: Shard,
        snapshot: UserSnapshot,
        result: AuditResult,
        reference: ReferenceProcess,
        spent: list[float],
    ) -> None:
        """Repair the mismatches of an audit on the shard's thread, and log the result."""

        def repair(shard: Shard) -> tuple[AuditResult | None]:
            neighbourhood = snapshot.neighbourhood
            return (repair_user(shard, neighbourhood.user, reference, result, seed=neighbourhood.seed),)

        def choose(shards: list[Shard]) -> Shard | None:
            same_model = self._reference is not None and shard.artifact.version == self._reference[0]
            return shard if shard in shards and same_model and not isinstance(shard.engine, DualEngine) else None

        try:
            repaired = await self._host.run_on_any(choose, partial(self._timed, spent, repair))
        except ModelRefused as error:
            # The reference process ended between two repairs, each of which is complete; the next audits check them.
            self._fail(error)
            return
        if repaired is None:
            # The shard was closed, or is in the middle of a step; a later audit finds the mismatch again.
            self._metrics.audit_nodes.labels("skipped").inc()
            return
        fields = {"shard": shard.shard_id, "type": "user", "mismatches": result.mismatches, "error": result.error}
        if repaired[0] is None:
            self._metrics.audit_nodes.labels("healed").inc()
            log.warning("audit_mismatch_repaired", extra=fields)
        else:
            self._metrics.audit_nodes.labels("failed").inc()
            log.error("audit_mismatch_remains", extra={**fields, "action": "restart the worker"})

    def _timed(self, spent: list[float], work: Callable[[A], T], argument: A) -> T:
        begin = self._clock()
        try:
            return work(argument)
        finally:
            spent[0] += self._clock() - begin
