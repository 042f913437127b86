"""The audit in the background: one random user after the other, for a small part of a core's time.

shard thread     look at a user between two steps
another thread   judge
shard thread     where something is off: look again, mend it, look again
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
from streams.worker.inspection.user_audit import Look, Verdict, heal, judge, look
from streams.worker.processing.shard_host import ShardHost

log = logging.getLogger(__name__)
A = TypeVar("A")
T = TypeVar("T")

IDLE_S = 1.0
"""How long to wait where there is nobody to audit, or after a failure."""
START_S = 0.3
"""Audit time that must have accrued before the first audit: 30 s at a share of 1 %. The reference process takes seconds
and hundreds of megabytes to start, which a worker that soon ends need not pay."""
_DRAWN = 64


def rest_s(spent_s: float, share: float) -> float:
    """How long to rest after some work so that it takes this share of all time."""
    return spent_s * (1.0 / share - 1.0)


def draw(shard: Shard, random: Random) -> int | None:
    """The row of a random live user of a shard; None if some draws found none."""
    rows = shard.view.rows(USER)
    if not rows:
        return None
    drawn = np.array([random.randrange(rows) for _ in range(_DRAWN)])
    live = drawn[shard.graph.live_users(drawn)]
    return int(live[0]) if len(live) else None


class Auditor:
    """Audits the users of a worker's open shards until it is cancelled.

    Args:
        host: the open shards.
        share: the part of a core's time that it may take, above 0.
        make_reference: makes the reference of an artifact; one is kept, and closed at the end.
        clock: seconds that only rise. sleep: waits for so many.
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
        self._judge: tuple[str, ReferenceProcess] | None = None
        self._random = random or Random()
        self._clock = clock
        self._sleep = sleep
        self._largest = RecentMaximum(clock)

    async def run(self) -> None:
        """Audit, rest, and so on; ends by an error only where a shard was left half mended."""
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
        if self._judge is not None:
            judge, self._judge = self._judge[1], None
            judge.close()

    async def once(self) -> float:
        """Audit one user; returns the seconds of work, 0 if there was nobody."""
        spent = [0.0]
        try:
            looked = await self._host.between_steps(self._random.choice, partial(self._timed, spent, self._look))
            if looked is None:
                return 0.0
            shard, artifact, seen = looked
            if seen is None:
                self._metrics.audit_nodes.labels("skipped").inc()
                return spent[0]
            reference = await self._reference(artifact)
            verdict = await asyncio.to_thread(self._timed, spent, partial(judge, seen), reference)
        except Exception as error:  # noqa: BLE001 - looking at a shard does it no harm
            self._fail(error)
            return 0.0
        self._metrics.audit_error.set(self._largest.observe(verdict.error))
        if not verdict.what:
            self._metrics.audit_nodes.labels("fine").inc()
        else:
            await self._heal(shard, seen, verdict, reference, spent)
        return spent[0]

    def _fail(self, error: Exception) -> None:
        """Count and log an audit without a result; where the reference process ended, the next audit starts another."""
        log.warning("a user could not be audited", extra={"because": one_line(error)})
        self._metrics.audit_nodes.labels("failed").inc()
        if isinstance(error, ModelRefused):
            self.close()

    async def _reference(self, artifact: Artifact) -> ReferenceProcess:
        """Return the reference of an artifact, started; the last one is kept."""
        if self._judge is None or self._judge[0] != artifact.version:
            self.close()
            self._judge = artifact.version, self._make_reference(artifact)
            await asyncio.to_thread(self._judge[1].start)
        return self._judge[1]

    def _look(self, shard: Shard) -> tuple[Shard, Artifact, Look | None] | None:
        if isinstance(shard.engine, DualEngine):
            return None  # what one of its two engines has not computed yet is not off
        user = draw(shard, self._random)
        return None if user is None else (shard, shard.artifact, look(shard, user, self._random.getrandbits(32)))

    async def _heal(
        self, shard: Shard, seen: Look, verdict: Verdict, reference: ReferenceProcess, spent: list[float]
    ) -> None:
        def mend(shard: Shard) -> tuple[Verdict | None]:
            return (heal(shard, seen.found.user, reference, verdict, seed=seen.found.seed),)

        def same(shards: list[Shard]) -> Shard | None:
            same = shard in shards and self._judge is not None and shard.artifact.version == self._judge[0]
            return shard if same and not isinstance(shard.engine, DualEngine) else None

        try:
            mended = await self._host.between_steps(same, partial(self._timed, spent, mend))
        except ModelRefused as error:
            # The reference process ended between two repairs, each of which is whole; the next audit checks them.
            self._fail(error)
            return
        if mended is None:
            # Closed meanwhile, or in the middle of a step: whatever it was, the next audit of it will tell.
            self._metrics.audit_nodes.labels("skipped").inc()
            return
        about = {"shard": shard.shard_id, "type": "user", "off": verdict.what, "error": verdict.error}
        if mended[0] is None:
            self._metrics.audit_nodes.labels("healed").inc()
            log.warning("what memory held of a user was off, and was healed", extra=about)
        else:
            self._metrics.audit_nodes.labels("failed").inc()
            log.error("what memory held of a user is off and stays so: start the worker again", extra=about)

    def _timed(self, spent: list[float], work: Callable[[A], T], argument: A) -> T:
        begin = self._clock()
        try:
            return work(argument)
        finally:
            spent[0] += self._clock() - begin
