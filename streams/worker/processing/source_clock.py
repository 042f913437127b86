"""Event time per input partition at ingest: what packs carry to the shards, and which partitions are idle.

Idleness is a matter of the machine's clock. Ingest decides it and sends it in a pack, so that everything behind the log
is a function of the log.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from faust.types import TP

from graphstate.storage.row_layouts import NEVER
from streams.errors import LeaseLost
from streams.kafka.batches import send_packs
from streams.kafka.consumer.transport import Consumer, Producer
from streams.kafka.leased_client import EPOCH
from streams.messages.packs.mutation_packs import Packer
from streams.messages.packs.source_progress import SourceProgress
from streams.worker.lifecycle import WorkerPart

_SECOND = 1_000_000
WATCH_S = 0.25
"""Interval at which partitions are checked: alerts wait for an idle partition by at most this longer than set."""
REPEAT_S = 15.0
"""Interval at which idle partitions are sent again while other workers may end their idleness."""


def name(tp: TP) -> str:
    """Return the name of a partition in packs."""
    return f"{tp.topic}:{tp.partition}"


class SourceClock:
    """The newest event time of each input partition that this worker reads.

    Args:
        idle_s: Time without a message after which a partition that is read to its end counts as idle (s).
        delay_s: How far the sent time stays behind the newest event, for events that are not in order of time (s).
        now: Monotonic seconds.

    Attributes:
        step_us: Distance of the boundaries at which alerts are judged (µs).
        partitions: Number of partitions of each input topic, as Kafka described it at the last assignment.
    """

    def __init__(self, idle_s: float, delay_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._idle_s, self._delay_us, self._now = idle_s, int(delay_s * _SECOND), now
        self.step_us = _SECOND
        self.partitions: dict[str, int] = {}
        self._newest: dict[TP, int] = {}
        self._active_s: dict[TP, float] = {}
        self._idle: set[TP] = set()
        self._woken: set[TP] = set()
        self._foreign: set[TP] = set()
        self._crossed = False
        self._sent_s = self._now()

    def assign(self, partitions: Iterable[TP], counts: Mapping[str, int]) -> None:
        """Start with these input partitions: what this worker read of others does not count any more.

        None of them is idle at first, and every shard learns it before anything that is read from them: a partition
        that was idle may have got messages while no worker read it, and they must not be overtaken.
        """
        assigned = set(partitions)
        self.partitions = dict(counts)
        self._newest = {tp: newest for tp, newest in self._newest.items() if tp in assigned}
        self._active_s = dict.fromkeys(assigned, self._now())
        self._idle, self._woken, self._crossed = set(), assigned, True
        self._foreign = {TP(topic, number) for topic, count in counts.items() for number in range(count)} - assigned

    def observe(self, tp: TP, newest_us: int) -> None:
        """Note that messages of a partition were read, the newest event being of this time (µs), NEVER without one."""
        self._active_s[tp] = self._now()
        self._idle.discard(tp)
        before = self._newest.get(tp, NEVER)
        if newest_us > before:
            self._newest[tp] = newest_us
            step = self.step_us
            self._crossed |= (newest_us - self._delay_us) // step > (before - self._delay_us) // step

    def progress(self, partitions: Iterable[TP]) -> tuple[SourceProgress, bool]:
        """Return the progress of a poll, and whether every shard needs it.

        Args:
            partitions: Partitions of the poll.
        """
        newest = {name(tp): self._newest[tp] - self._delay_us for tp in partitions if tp in self._newest}
        crossed, self._crossed = self._crossed, False
        return SourceProgress(newest, [], self.partitions, self._take_woken()), crossed

    def _take_woken(self) -> list[str]:
        woken, self._woken = sorted(map(name, self._woken)), set()
        return woken

    @property
    def overtaking(self) -> set[TP]:
        """The partitions that may be idle, if the next progress passes a boundary: they may have earlier messages.

        Those of other workers are among them: such a worker may be slow, or dead and not replaced yet.
        """
        return self._idle | self._foreign if self._crossed else set()

    def wake(self, partitions: Iterable[TP]) -> None:
        """Note that partitions have unread messages; the next progress ends their idleness."""
        woken = (self._idle | self._foreign).intersection(partitions)
        self._active_s |= dict.fromkeys(woken & self._idle, self._now())
        self._idle -= woken
        self._woken |= woken

    def newly_idle(self, lags: Mapping[TP, int]) -> SourceProgress | None:
        """Return the progress of partitions that have become idle; None if there are none.

        Args:
            lags: Unread records of each assigned partition.
        """
        since = self._now() - self._idle_s
        idle = {tp for tp, active_s in self._active_s.items() if active_s <= since and lags.get(tp) == 0}
        new, self._idle = idle - self._idle, self._idle | idle
        if not new:
            return None
        self._sent_s = self._now()
        # Nothing more is to come, so the delay does not hold back what has come.
        newest = {name(tp): self._newest[tp] for tp in new if tp in self._newest}
        return SourceProgress(newest, sorted(map(name, new)), self.partitions, self._take_woken())

    def repeat(self) -> None:
        """Send all idle partitions again: the last message may not have arrived."""
        self._idle = set()

    @property
    def repeating(self) -> set[TP]:
        """The idle partitions, if they are due to be sent again: another worker may have ended their idleness.

        It does so with messages that are read already, too, as long as their offsets are not committed.
        """
        return set(self._idle) if self._foreign and self._now() - self._sent_s >= REPEAT_S else set()


class IdleSources(WorkerPart):
    """Sends a pack to every shard when input partitions become idle.

    Args:
        clock: Event time by partition.
        topic: The mutations topic.
        shards: Number of shards.
        consumer: Returns the transport's consumer.
        producer: Returns the transport's producer.
        epoch: Returns the present epoch of the lease.
    """

    def __init__(
        self,
        clock: SourceClock,
        topic: str,
        shards: int,
        consumer: Callable[[], Consumer],
        producer: Callable[[], Producer],
        epoch: Callable[[], int],
    ) -> None:
        self._clock, self._topic, self._shards = clock, topic, shards
        self._consumer, self._producer, self._epoch = consumer, producer, epoch
        self._assigned = False

    def on_assigned(self, partitions: Sequence[TP]) -> None:
        """Begin to watch."""
        self._assigned = bool(partitions)

    async def on_revoked(self) -> None:
        """Stop to watch until the next assignment."""
        self._assigned = False

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(WATCH_S)
            if self._assigned:
                await self._send()

    async def _send(self) -> None:
        """Send the partitions that have become idle, and now and then all that are."""
        repeating = self._clock.repeating
        if repeating:
            self._clock.wake(await self._consumer().unread(repeating))
            self._clock.repeat()
        progress = self._clock.newly_idle(self._consumer().lag())
        if progress is None:
            return
        packer = Packer()
        packer.progress = progress
        packs = dict.fromkeys(range(self._shards), packer.finish(always=True))
        EPOCH.set(self._epoch())
        try:
            await send_packs(self._producer().client, self._topic, packs)
        except LeaseLost:
            self._clock.repeat()
