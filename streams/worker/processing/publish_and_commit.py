"""The order in which the results of a poll become durable: outputs, then state, then Kafka offsets."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Protocol

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


async def publish_and_commit(
    consumer: PollPositions, poll: Poll, partitions: Iterable[AsyncGenerator[Step, None]]
) -> bool:
    """Publish and commit all steps of a poll, then let Kafka commit its offsets. All steps of a worker go through here.

    In each partition, one step after the other (the next one is computed after the commit of the one before):

    1. Kafka has acknowledged every output of the step: scores, alerts, facts, halos, packs, dead letters.
    2. One WriteBatch of RocksDB makes the state durable, with its next offset and its marks.

    When the last step of every partition is durable:

    3. The offsets after the poll may be committed to the consumer group, which Faust does periodically.

    A crash before 1 or within 1 repeats the step: its outputs are sent again, with the same keys and alert ids. A crash
    between 1 and 2 does the same. A crash between 2 and 3 reads records again that the state has, and skips them by
    its next offset. So the state is an exact prefix of its log after any crash.

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

    async def run(steps: AsyncGenerator[Step, None]) -> bool:
        try:
            async with aclosing(steps):
                async for step in steps:
                    await step.publish()  # 1
                    if not await step.commit():  # 2
                        return False
        except StaleStep:
            if consumer.is_current(poll):
                raise
            return False
        return True

    durable = all(await gather_all(*map(run, partitions)))
    if not durable or not consumer.is_current(poll):
        return False
    if poll.parts:
        consumer.complete_poll(poll)  # 3
    return True
