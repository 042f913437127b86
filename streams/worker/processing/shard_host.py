"""The open shards of a worker; all their work runs one after the other, on a thread beside the event loop.

The kernels of a step release the interpreter lock, so the event loop continues meanwhile. One thread means that a read
never sees half of a step. The way to the thread and back takes longer than a step of a few events, so such a step runs
on the event loop while the thread has nothing to do. A shard whose step was not committed is closed and opened again
before it is used again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from model.evaluation.calibration import CalibrationMap
from streams.errors import StaleStep
from streams.messages.halos import Halo
from streams.messages.packs.mutation_packs import Record
from streams.messages.packs.topic_identity import TopicState
from streams.shard.shard import Outcome, Shard
from streams.telemetry.stage_timer import StageTimer
from streams.worker.processing.one_by_one import OneByOne
from streams.worker.processing.score_topic import ScoreTopicChange, note_score_topic
from streams.worker.processing.takeovers import TakeOvers

T = TypeVar("T")
FEW = 64
"""Mutations up to which a step may run on the event loop."""


@dataclass
class _Ahead:
    """A step that is in memory and not on the disk.

    Attributes:
        outcome: its outputs and costs.
        publish: whether its outputs are published.
        position: the next offset and the marks after it; None if they are known at its commit only.
        few: whether it has few mutations, so that its commit is short, too.
        prepared: whether its WriteBatch is made, so that the next step may run.
    """

    outcome: Outcome
    publish: bool
    position: tuple[int, dict[str, int]] | None
    few: bool = False
    prepared: bool = False


class StepObserver(Protocol):
    """Observes the steps of open shards; called on the shards' thread."""

    def opened(self, shard: Shard) -> None:
        """Start without history: the shard was opened, or another process may have published its scores."""

    def stepped(self, shard: Shard, outcome: Outcome) -> None:
        """Record the outcome of a step that is not committed yet."""

    def closed(self, shard: Shard) -> None:
        """Drop the data of a shard."""


# large class: every access to a shard goes through its one thread, and so through this class
class ShardHost:
    """Opens, steps, commits and reads shards, by partition of the mutations topic.

    Args:
        open_shard: opens the shard of a partition.
        observer: called at each open, step and close.

    Attributes:
        offsets: the committed next offset in the log of each open shard.
        halo_offsets: the next offset in the halos topic of each shard that has announced itself. A shard without an
            entry needs no earlier halos: its announcement requests what it mirrors.
        takeovers: the shards that another process published last, or a process that was not closed cleanly.
    """

    def __init__(self, open_shard: Callable[[int], Shard], observer: StepObserver | None = None) -> None:
        self._open_shard = open_shard
        self._observer = observer
        self._shards: dict[int, Shard] = {}
        self._ahead: dict[int, list[_Ahead]] = {}
        self._revoked: set[int] = set()
        self.offsets: dict[int, int] = {}
        self.halo_offsets: dict[int, int] = {}
        self.takeovers = TakeOvers()
        self._work = OneByOne()
        self._run = self._work.run

    async def sync_assignment(self, published: Mapping[int, int], *, unbroken: bool = False) -> dict[int, int]:
        """Open and close shards until exactly the given ones are open, each in its last committed state.

        A shard that another process may have published last, possibly after other steps, publishes every score again,
        and treats its mirrored nodes as if it had just been opened.

        Args:
            published: partition → offset in its log below which all outputs were published.
            unbroken: no other worker can have had the shards that are open already.

        Returns:
            The next offset of each shard.
        """
        return await self._run(self._sync_assignment, published, unbroken)

    def _sync_assignment(self, published: Mapping[int, int], unbroken: bool) -> dict[int, int]:
        for partition in list(self._shards):
            if partition not in published:
                self._revoked.add(partition)
            if partition not in published or self._ahead.get(partition):
                self._close(partition)
        for partition in published:
            opened = partition not in self._shards
            broken = not unbroken and not opened
            if opened:
                self._shards[partition] = self._open_shard(partition)
                self._observe_open(self._shards[partition])
                self.offsets[partition] = self._shards[partition].next_offset
            shard = self._shards[partition]
            if broken:
                self.halo_offsets.pop(partition, None)
                shard.mirrors.suspend()
            if broken or partition in self._revoked or self.offsets[partition] < published[partition]:
                shard.publisher.request_republish()
                self._observe_open(shard)
                self.takeovers.add(partition)
            if opened:
                if shard.publisher.interrupted:
                    self.takeovers.add(partition)
                shard.publisher.mark_publishing(publishing=True)
            self._revoked.discard(partition)
        self.takeovers.keep_only(published)
        return {partition: self._shards[partition].next_offset for partition in published}

    def _observe_open(self, shard: Shard) -> None:
        if self._observer is not None:
            self._observer.opened(shard)

    def halo_offset(self, partition: int, begin: int, end: int) -> int:
        """Return the offset from which a shard reads halos; the end, for a new announcement, if it misses some.

        Args:
            partition: the shard.
            begin: the first offset that Kafka has.
            end: the offset after the last.
        """
        if self.halo_offsets.get(partition, -1) >= begin:
            return self.halo_offsets[partition]
        self.halo_offsets.pop(partition, None)
        return end

    def _close(self, partition: int) -> None:
        shard = self._shards.pop(partition)
        if self._observer is not None:
            self._observer.closed(shard)
        shard.close()
        self._ahead.pop(partition, None)
        self.halo_offsets.pop(partition, None)

    def _committed(self, partition: int) -> Shard:
        """Return an open shard in its committed state.

        Raises:
            StaleStep: the shard was closed, or its last step was not committed.
        """
        shard = self._shards.get(partition)
        if shard is None or self._ahead.get(partition):
            raise StaleStep(f"shard {partition} is not open in its last committed state")
        return shard

    def is_open(self, partition: int) -> bool:
        """Whether a shard is open; does not use the thread."""
        return partition in self._shards

    def ahead(self, partition: int) -> bool:
        """Whether the memory of a shard is ahead of its disk; does not use the thread."""
        return bool(self._ahead.get(partition))

    def position(self, partition: int) -> tuple[int, dict[str, int]]:
        """Return the committed next offset and marks of a shard, without the thread: only its own steps change them.

        Raises:
            StaleStep: the shard was closed, or its last step was not committed.
        """
        shard = self._committed(partition)
        return shard.next_offset, dict(shard.marks)

    async def step(
        self,
        partition: int,
        records: list[Record],
        halos: Sequence[Halo] = (),
        *,
        publish: bool = True,
        allowed: Callable[[], bool] = lambda: True,
        position: tuple[int, dict[str, int]] | None = None,
    ) -> Outcome:
        """Run a step in memory.

        With a position its WriteBatch is made as soon as the step before is on the disk, and one more step may run
        before it is committed. Without one the shard refuses another step until then.

        Args:
            partition: the shard.
            records: the records of its log.
            halos: the halos that it received.
            publish: whether the outputs of the step will be published.
            allowed: called right before the step. A step that was started before a seek must not change the shard
                that was synchronized for it: it would never be committed, and the next step would be refused.
            position: the next offset in the shard's log and its marks after the step.

        Raises:
            StaleStep: the shard was closed, an earlier step was not committed, or this one is no longer allowed.
        """
        few = not halos and sum(len(record.columns) for record in records) <= FEW

        def work() -> Outcome:
            ahead = self._ahead.get(partition, [])
            if len(ahead) != 1 or not ahead[0].prepared:
                self._committed(partition)  # raises if there is an earlier step
            shard = self._shards[partition]
            if not allowed():
                raise StaleStep(f"a step of shard {partition} belongs to an earlier assignment")
            # If the step fails, it stays in memory and the shard is opened again.
            step = _Ahead(Outcome(), publish, position, few)
            self._ahead[partition] = [*ahead, step]
            outcome = step.outcome = shard.process(records, halos, silent=not publish)
            if self._observer is not None:
                self._observer.stepped(shard, outcome)
            self.takeovers.add_gone(partition, [*outcome.forgotten, *outcome.topics_gone])
            if publish:
                repeated = self.takeovers.tombstones(partition).difference(outcome.forgotten, outcome.topics_gone)
                gone = [key for key in repeated if not shard.reads.published(key)]
                outcome.forgotten += sorted(key for key in gone if isinstance(key, str))
                outcome.topics_gone += sorted(key for key in gone if not isinstance(key, str))
            if not ahead:
                self._prepare(shard, step)
            return outcome

        return await self._run(work, short=few)

    def _prepare(self, shard: Shard, step: _Ahead) -> None:
        """Make the WriteBatch of a step whose position is known; the step before it is on the disk."""
        if step.position is not None:
            with StageTimer(step.outcome.seconds, "prepare"):
                shard.prepare(*step.position)
            step.prepared = True

    async def commit(
        self,
        partition: int,
        next_offset: int,
        marks: dict[str, int],
        allowed: Callable[[], bool],
        halo_offset: int | None = None,
    ) -> bool:
        """Make the earliest step in memory durable in one WriteBatch, if it is still allowed right before it.

        A seek that begins right after the check does no harm: it reads the next offset on this thread, after the
        commit.

        Args:
            partition: the shard.
            next_offset: the offset in its log after the step.
            marks: the source offsets after the step.
            allowed: whether the poll of the step is current and the lease holds.
            halo_offset: the offset in the halos topic after the step, if it received halos.

        Returns:
            Whether the step is durable.
        """

        def work() -> bool:
            ahead = self._ahead.get(partition)
            if not ahead or not allowed():
                return False
            shard, step = self._shards[partition], ahead.pop(0)
            if not step.prepared:
                step.position = next_offset, marks
                self._prepare(shard, step)
            with StageTimer(step.outcome.seconds, "commit"):
                shard.write()
            if ahead:
                self._prepare(shard, ahead[0])
            if step.publish:
                self.takeovers.tombstones_published(partition)
            self.offsets[partition] = next_offset
            if halo_offset is not None and partition in self.halo_offsets:
                # Halos from before the announcement may be processed after it.
                self.halo_offsets[partition] = max(self.halo_offsets[partition], halo_offset)
            return True

        ahead = self._ahead.get(partition, [])
        return await self._run(work, short=bool(ahead) and ahead[0].few)

    async def request_republish(self, partition: int, takeover: int | None = None) -> None:
        """Let an open shard publish every score again.

        Args:
            partition: the shard; nothing happens if it is not open.
            takeover: the take-over that ends by this, as no late request of the former owner can arrive any more.
        """

        def work() -> None:
            if partition in self._shards:
                shard = self._shards[partition]
                if takeover is not None:
                    self.takeovers.finish(partition, takeover)
                shard.publisher.request_republish()
                shard.publisher.republish_pending |= bool(self.takeovers.tombstones(partition))

        await self._run(work)

    async def note_score_topic(self, topic: TopicState, *, by_topic: bool = False) -> dict[int, ScoreTopicChange]:
        """Record the score topic, or that of scores by topic, in every shard whose last step is committed."""

        def work() -> dict[int, ScoreTopicChange]:
            return {
                partition: note_score_topic(shard.publisher.by_topic if by_topic else shard.publisher, topic)
                for partition, shard in self._shards.items()
                if not self._ahead.get(partition)
            }

        return await self._run(work)

    def republish_pending(self, partition: int) -> bool:
        """Whether a step without new records must publish scores of a shard; does not use the thread.

        Raises:
            StaleStep: as for `position`.
        """
        return self._committed(partition).publisher.republish_pending

    def hub_readers_waiting(self, partition: int) -> bool:
        """Whether readers of a hub wait in a shard for a step that updates them; does not use the thread.

        Raises:
            StaleStep: as for `position`.
        """
        return bool(self._committed(partition).staleness.hub_queue.waiting)

    async def announce(self, partition: int, fencing_token: int) -> list[tuple[int, Halo]]:
        """Let a shard send halos from now on.

        Args:
            partition: the shard.
            fencing_token: higher than that of every earlier owner.

        Returns:
            The halos to send first, with their receiving shards.

        Raises:
            StaleStep: as for `position`.
        """

        def work() -> list[tuple[int, Halo]]:
            halos = self._committed(partition).mirrors.announce(fencing_token)
            self.halo_offsets[partition] = fencing_token + 1
            return halos

        return await self._run(work)

    async def suspend(self, partition: int) -> None:
        """Let a shard send no halos until it is announced again."""

        def work() -> None:
            self.halo_offsets.pop(partition, None)
            if partition in self._shards:
                self._shards[partition].mirrors.suspend()

        await self._run(work)

    async def read(self, query: Callable[[Shard], T]) -> list[T]:
        """Return the result of a query for every open shard, between two steps."""
        return await self._run(lambda: [query(shard) for shard in self._shards.values()])

    async def run_on_any(self, choose: Callable[[list[Shard]], Shard | None], work: Callable[[Shard], T]) -> T | None:
        """Run work on one of the shards whose memory is committed and has no stale embedding.

        Args:
            choose: selects one of these shards.
            work: receives it, between two steps.

        Returns:
            The result of the work; None if there is no such shard or none was chosen.
        """

        def run() -> T | None:
            committed = [shard for partition, shard in self._shards.items() if not self._ahead.get(partition)]
            ready = [shard for shard in committed if shard.staleness.embeddings_current]
            chosen = choose(ready) if ready else None
            return None if chosen is None else work(chosen)

        return await self._run(run)

    async def run_on_shard(self, partition: int, work: Callable[[Shard], T]) -> T:
        """Return the result of work on one shard between two steps, after the commit of the last.

        Raises:
            StaleStep: as for `position`.
        """
        return await self._run(lambda: work(self._committed(partition)))

    async def run_with_shard(self, shard: Shard, work: Callable[[], T]) -> T:
        """Return the result of work that needs the memory of an open shard, whether its last step is committed or not.

        Raises:
            StaleStep: the shard was closed.
        """

        def run() -> T:
            if shard not in self._shards.values():
                raise StaleStep(f"shard {shard.shard_id} was closed")
            return work()

        return await self._run(run)

    def versions(self) -> dict[int, str]:
        """Return the artifact version that each open shard serves; does not use the thread."""
        return {partition: shard.artifact.version for partition, shard in list(self._shards.items())}

    def calibrations(self) -> dict[int, CalibrationMap]:
        """Return the map from scores to persons that each open shard uses; does not use the thread."""
        return {partition: shard.publisher.calibration for partition, shard in list(self._shards.items())}

    async def put_aside(self, partition: int, folder: Path, aside: Path) -> bool:
        """Rename the folder of a shard, unless the shard is open; returns whether it was renamed."""

        def work() -> bool:
            if partition in self._shards:
                return False
            folder.rename(aside)
            self.offsets.pop(partition, None)
            return True

        return await self._run(work)

    async def top(self, n: int) -> list[dict[str, Any]]:
        """Return the n users with the largest reach over all open shards."""
        rows = [row for top in await self.read(lambda shard: shard.reads.top(n)) for row in top]
        return sorted(rows, key=lambda row: -float(row["reach"]))[:n]

    async def user(self, user_id: str) -> dict[str, Any] | None:
        """Return a user's score and features; None if no open shard has the user."""
        return next((row for row in await self.read(lambda shard: shard.reads.user(user_id)) if row), None)

    async def close(self, *, cleanly: bool = False) -> None:
        """Close every shard after the work in progress.

        Args:
            cleanly: Kafka has acknowledged everything that was published.
        """

        def work() -> None:
            for partition, shard in list(self._shards.items()):
                pending = self.takeovers.is_open(partition) or self._ahead.get(partition)
                if cleanly and not pending and not shard.publisher.republish_pending:
                    shard.publisher.mark_publishing(publishing=False)
                self._close(partition)

        await self._run(work)
        self._work.shutdown()
