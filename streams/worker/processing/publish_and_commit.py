"""The order in which the results of a poll become durable: outputs, then state, then Kafka offsets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Protocol

from faust.types import TP

from streams.errors import StaleStep
from streams.kafka.batches import gather_all
from streams.kafka.consumer.poll_queue import Poll


class Step(Protocol):
    """A part of a poll that was computed in memory and is neither published nor durable yet."""

    async def publish(self) -> None:
        """Send every output; return when Kafka has acknowledged all of them."""
        ...

    async def commit(self) -> bool:
        """Make the state durable; False if the poll is stale, and then nothing is written."""
        ...


class PollPositions(Protocol):
    """The methods of the consumer that are used here."""

    def is_current(self, poll: Poll) -> bool:
        """Whether no seek or revocation came after the fetch of the poll, and the lease holds."""
        ...

    def complete_poll(self, poll: Poll) -> None:
        """Let the positions of the poll be committed."""
        ...

    async def unread(self, partitions: Iterable[TP]) -> set[TP]:
        """Return which of these partitions, of this worker or others, have records that no complete poll has."""
        ...


async def publish_and_commit(
    consumer: PollPositions, poll: Poll, partitions: Iterable[AsyncGenerator[Step | None, None]]
) -> bool:
    """Publish and commit all steps of a poll, then let Kafka commit its offsets. All steps of a worker go through here.

    In each partition, one step after the other:

    1. Kafka has acknowledged every output of the step: scores, alerts, facts, halos, packs, dead letters.
    2. One WriteBatch of RocksDB makes the state durable, with its next offset and its marks.

    When the last step of every partition is durable:

    3. The offsets after the poll may be committed to the consumer group, which Faust does periodically.

    While a step is in 1 or 2, the next one is computed in memory, and waits: nothing of it is sent before the state of
    the step before is durable. Its WriteBatch has only its own rows, made when the one before was written. A generator
    yields None where its next step must not run ahead: it goes on when all earlier ones are durable.

    A crash before 1 or within 1 repeats the step: its outputs are sent again, with the same keys and alert ids. A crash
    between 1 and 2 does the same. A crash between 2 and 3 reads records again that the state has, and skips them by
    its next offset. What was computed ahead is lost with the memory, and was not sent. So the state is an exact prefix
    of its log after any crash, and the outputs of one micro-batch are repeated at most.

    No stale poll gets through: the producer checks the lease at the socket (1), the shard's thread checks it right
    before the WriteBatch (2), and no await lies between the check of the poll and its completion (3).

    Args:
        consumer: the consumer of the poll.
        poll: the poll; one without partitions has no offsets to commit.
        partitions: computes the steps of each partition; partitions run concurrently.

    Returns:
        Whether everything is durable; False if the poll became stale.

    Raises:
        StaleStep: a shard refused a step of a poll that is not stale.
    """

    async def run(steps: AsyncGenerator[Step | None, None]) -> bool:
        try:
            return await _run(steps)
        except StaleStep:
            if consumer.is_current(poll):
                raise
            return False

    durable = all(await gather_all(*map(run, partitions)))
    if not durable or not consumer.is_current(poll):
        return False
    if poll.parts:
        consumer.complete_poll(poll)  # 3
    return True


async def _run(steps: AsyncGenerator[Step | None, None]) -> bool:
    """Make the steps of one partition durable, each while the next one is computed; False if one is stale."""
    before: asyncio.Task[bool] | None = None
    try:
        async with aclosing(steps):
            async for step in steps:
                if before is not None and not await before:
                    return False
                before = None if step is None else asyncio.create_task(_finish(step))
        return before is None or await before
    finally:
        # After an error of the next step nothing may be in flight when this returns.
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)


async def _finish(step: Step) -> bool:
    await step.publish()  # 1
    return await step.commit()  # 2
