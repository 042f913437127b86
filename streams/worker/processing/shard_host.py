"""The open shards of a worker, all of whose work happens on one thread beside the event loop.

The kernels of a step release the interpreter lock, so the loop goes on answering meanwhile; one
thread means that a read never sees a step half done. A shard whose step was not committed is
closed and opened again before anything else is done with it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

from streams.errors import StaleStep
from streams.messages.halos import Halo
from streams.messages.mutation_packs import Record
from streams.messages.topic_identity import TopicState
from streams.shard.shard import Outcome, Shard
from streams.worker.processing.score_topic import Aim, aim

T = TypeVar("T")


class StepObserver(Protocol):
    """Follows the steps of open shards; called on the shards' thread."""

    def opened(self, shard: Shard) -> None:
        """Start without a past: a shard was opened, or another process may have published its scores meanwhile."""

    def stepped(self, shard: Shard, outcome: Outcome) -> None:
        """Take the outcome of a step that is not committed yet."""

    def closed(self, shard: Shard) -> None:
        """Drop what is held of a shard."""


class ShardHost:
    """Opens, steps, commits and reads shards, by partition of the mutations topic.

    taken_over: shards of which others published last, or a process that did not end well, since whoever reads it
    emptied it, with a number for that debt: what they sent may come late, so everything must be said again. offsets:
    where the state of each open shard ends in the log, as committed. halo_offsets: how far the halos of those that
    have said hello were read; what one needs of halos before that, it asks for.
    """

    def __init__(self, open_shard: Callable[[int], Shard], observer: StepObserver | None = None) -> None:
        self._open_shard = open_shard
        self._observer = observer
        self._shards: dict[int, Shard] = {}
        self._dirty: set[int] = set()
        self._lost: set[int] = set()
        self._debts = 0
        self._unsaid: dict[int, int] = {}
        # Users forgotten meanwhile, whose withdrawal a late score may follow, and of those whose to repeat by now.
        self._withdrawn: dict[int, set[str]] = defaultdict(set)
        self._to_repeat: dict[int, set[str]] = defaultdict(set)
        self._loud: dict[int, bool] = {}
        self.offsets: dict[int, int] = {}
        self.halo_offsets: dict[int, int] = {}
        self.taken_over: dict[int, int] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shard")

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def settle(self, told: Mapping[int, int], *, unbroken: bool = False) -> dict[int, int]:
        """Hold exactly these partitions, each as it was last committed; returns their next offsets.

        told: up to where the outputs of each were published. unbroken: nobody else can have had the partitions that
        are held already. Where somebody else published last, who may have taken other steps, everybody is owed a score;
        and what a shard knows of halos is then as old as that of one just opened.
        """
        return await self._run(self._settle, told, unbroken)

    def _settle(self, partitions: Mapping[int, int], unbroken: bool) -> dict[int, int]:
        for partition in list(self._shards):
            if partition not in partitions:
                self._lost.add(partition)
            if partition not in partitions or partition in self._dirty:
                self._close(partition)
        for partition in partitions:
            opened = partition not in self._shards
            broken = not unbroken and not opened
            if opened:
                self._shards[partition] = self._open_shard(partition)
                self._observe_open(self._shards[partition])
                self.offsets[partition] = self._shards[partition].next_offset
            shard = self._shards[partition]
            if broken:
                self.halo_offsets.pop(partition, None)
                shard.mirrors.hush()
            if broken or partition in self._lost or self.offsets[partition] < partitions[partition]:
                shard.owe()
                self._observe_open(shard)
                self._take_over(partition)
            if opened:
                if shard.cut_short:
                    self._take_over(partition)
                shard.speak(True)
            self._lost.discard(partition)
        unsaid = self._unsaid | self.taken_over
        self._unsaid = {partition: debt for partition, debt in unsaid.items() if partition in partitions}
        for partition in (self._withdrawn.keys() | self._to_repeat.keys()) - partitions.keys():
            self._withdrawn.pop(partition, None)
            self._to_repeat.pop(partition, None)
        return {partition: self._shards[partition].next_offset for partition in partitions}

    def _observe_open(self, shard: Shard) -> None:
        if self._observer is not None:
            self._observer.opened(shard)

    def _take_over(self, partition: int) -> None:
        self._debts += 1
        self.taken_over[partition] = self._debts

    def halo_offset(self, partition: int, begin: int, end: int) -> int:
        """From where on a shard reads halos, of which Kafka has those from begin up to end: from the end, to say hello
        again, unless it has all since its hello.
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
        self._dirty.discard(partition)
        self.halo_offsets.pop(partition, None)

    def _clean(self, partition: int) -> Shard:
        shard = self._shards.get(partition)
        if shard is None or partition in self._dirty:
            raise StaleStep(f"shard {partition} is not open as it was last committed")
        return shard

    def position(self, partition: int) -> tuple[int, dict[str, int]]:
        """The next offset and the marks of a shard, as committed; at once, as only the shard's own steps change them.

        Raises:
            StaleStep: the shard was closed, or its last step was not committed.
        """
        shard = self._clean(partition)
        return shard.next_offset, dict(shard.marks)

    async def step(
        self,
        partition: int,
        records: list[Record],
        halos: Sequence[Halo] = (),
        *,
        silent: bool = False,
        allowed: Callable[[], bool] = lambda: True,
    ) -> Outcome:
        """Take a step; until it is committed the shard refuses another.

        allowed: asked right before. What was begun before a seek must not touch the shard that was settled for it:
        nobody would commit that step, and whatever comes next would be refused.

        Raises:
            StaleStep: the shard was closed, its last step was not committed, or this one is not allowed any more.
        """

        def work() -> Outcome:
            shard = self._clean(partition)
            if not allowed():
                raise StaleStep(f"a step of shard {partition} came too late")
            self._dirty.add(partition)
            outcome = shard.take(records, halos, silent=silent)
            if self._observer is not None:
                self._observer.stepped(shard, outcome)
            if partition in self._unsaid:
                self._withdrawn[partition].update(outcome.forgotten)
            if not silent:
                left = self._to_repeat[partition].difference(outcome.forgotten)
                outcome.forgotten += sorted(user for user in left if shard.user(user) is None)
            self._loud[partition] = not silent
            return outcome

        return await self._run(work)

    async def commit(
        self,
        partition: int,
        next_offset: int,
        marks: dict[str, int],
        allowed: Callable[[], bool],
        halo_offset: int | None = None,
    ) -> bool:
        """Make the step last, if it is still allowed at that very moment; returns whether it was.

        A seek that begins right after the question does no harm: it reads the next offset on this
        thread, after this commit.
        """

        def work() -> bool:
            if partition not in self._shards or not allowed():
                return False
            self._shards[partition].commit(next_offset, marks)
            self._dirty.discard(partition)
            if self._loud[partition]:
                self._to_repeat.pop(partition, None)
            self.offsets[partition] = next_offset
            if halo_offset is not None and partition in self.halo_offsets:
                # Records from before the hello may come after it.
                self.halo_offsets[partition] = max(self.halo_offsets[partition], halo_offset)
            return True

        return await self._run(work)

    async def owe(self, partition: int, debt: int | None = None) -> None:
        """Let a shard that is open owe everybody a score; debt: the take-over since which nothing comes late by now."""

        def work() -> None:
            if partition in self._shards:
                shard = self._shards[partition]
                if debt is not None and self._unsaid.get(partition) == debt:
                    del self._unsaid[partition]
                    self._to_repeat[partition] |= self._withdrawn.pop(partition, set())
                shard.owe()
                shard.owing |= bool(self._to_repeat[partition])

        await self._run(work)

    async def aim(self, topic: TopicState) -> dict[int, Aim]:
        """Let every shard whose last step is committed note which score topic is published to."""

        def work() -> dict[int, Aim]:
            return {at: aim(shard, topic) for at, shard in self._shards.items() if at not in self._dirty}

        return await self._run(work)

    def owing(self, partition: int) -> bool:
        """Whether a shard owes scores that a step must publish, without anything new; at once, too."""
        return self._clean(partition).owing

    def waiting(self, partition: int) -> bool:
        """Whether some who read a hub wait in a shard for a step that brings them up to date; at once, too."""
        return bool(self._clean(partition).spread.waiting)

    async def hello(self, partition: int, token: int) -> list[tuple[int, Halo]]:
        """Let a shard begin to tell others of its nodes, under a token; returns what to send first."""

        def work() -> list[tuple[int, Halo]]:
            halos = self._clean(partition).mirrors.hello(token)
            self.halo_offsets[partition] = token + 1
            return halos

        return await self._run(work)

    async def hush(self, partition: int) -> None:
        """Let a shard tell others nothing until its next hello."""

        def work() -> None:
            self.halo_offsets.pop(partition, None)
            if partition in self._shards:
                self._shards[partition].mirrors.hush()

        await self._run(work)

    async def read(self, question: Callable[[Shard], T]) -> list[T]:
        """The answer of every open shard, between two steps."""
        return await self._run(lambda: [question(shard) for shard in self._shards.values()])

    async def between_steps(
        self, choose: Callable[[list[Shard]], Shard | None], work: Callable[[Shard], T]
    ) -> T | None:
        """What some work says of one of the shards whose memory is what is committed, to the last embedding; None if
        there is none, or none was chosen.
        """

        def turn() -> T | None:
            settled = [shard for at, shard in self._shards.items() if at not in self._dirty and shard.settled]
            chosen = choose(settled) if settled else None
            return None if chosen is None else work(chosen)

        return await self._run(turn)

    async def turn(self, partition: int, work: Callable[[Shard], T]) -> T:
        """What some work says of one shard between two steps, the last of which is committed.

        Raises:
            StaleStep: the shard was closed, or its last step was not committed.
        """
        return await self._run(lambda: work(self._clean(partition)))

    async def beside(self, shard: Shard, work: Callable[[], T]) -> T:
        """What some work says that needs the memory of a shard, be its last step committed or not.

        Raises:
            StaleStep: the shard was closed.
        """

        def turn() -> T:
            if shard not in self._shards.values():
                raise StaleStep(f"shard {shard.shard_id} was closed")
            return work()

        return await self._run(turn)

    def versions(self) -> dict[int, str]:
        """Which artifact each open shard serves; at once."""
        return {partition: shard.artifact.version for partition, shard in list(self._shards.items())}

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
        """The n users with the largest reach, over all shards here."""
        found = [row for rows in await self.read(lambda shard: shard.top(n)) for row in rows]
        return sorted(found, key=lambda row: -float(row["reach"]))[:n]

    async def user(self, user_id: str) -> dict[str, Any] | None:
        """A user's score and features, None if no shard here has the user."""
        return next((row for row in await self.read(lambda shard: shard.user(user_id)) if row), None)

    async def close(self, *, well: bool = False) -> None:
        """Close every shard, after the work in hand. well: all that was published has arrived."""

        def work() -> None:
            for partition, shard in list(self._shards.items()):
                if well and partition not in self._unsaid.keys() | self._dirty and not shard.owing:
                    shard.speak(False)
                self._close(partition)

        await self._run(work)
        self._thread.shutdown()
