"""Runs the agents: gives each poll to its handler, in order, and drops stale polls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from streams.errors import LeaseLost, WorkerError
from streams.kafka.consumer.poll_queue import Poll
from streams.kafka.consumer.transport import Consumer
from streams.telemetry.metrics import Metrics

Handler = Callable[[Poll], Awaitable[bool]]
"""Processes a poll through `publish_and_commit`; returns whether everything is durable."""


class PollRunner:
    """Runs the handlers of all lanes.

    Args:
        consumer: the consumer that fetches the polls.
        metrics: counts stale polls.
        fail: stops the worker with an error.
    """

    def __init__(self, consumer: Consumer, metrics: Metrics, fail: Callable[[BaseException], None]) -> None:
        self._consumer = consumer
        self._metrics = metrics
        self._fail = fail
        self._last: dict[str, tuple[int, int]] = {}

    def agent(self, handle: Handler) -> Callable[[Any], Awaitable[None]]:
        """Return a Faust agent that passes its polls to a handler, one by one."""

        async def run(stream: Any) -> None:
            try:
                async for poll in stream.noack():
                    await self._run(poll, handle)
            except Exception as error:  # noqa: BLE001 - any error stops the worker
                self._fail(error)
                # If the agent returned, Faust would commit offsets past the failed poll: wait for the stop.
                await asyncio.Event().wait()

        return run

    async def _run(self, poll: Poll, handle: Handler) -> None:
        """Process a poll, unless it is stale.

        Raises:
            WorkerError: a poll of the same lane and epoch is missing before this one.
        """
        consumer = self._consumer
        if not consumer.is_current(poll):
            self._metrics.stale_polls.inc()
            return
        consumer.start_poll(poll)
        epoch, number = self._last.get(poll.lane, (-1, 0))
        if poll.first != (number + 1 if epoch == poll.epoch else 1):
            raise WorkerError(f"a poll of {poll.lane} was lost between Kafka and its agent; start the worker again")
        self._last[poll.lane] = poll.epoch, poll.last
        try:
            completed = await handle(poll)
        except LeaseLost:
            completed = False  # the poll is stale, and the group is being rejoined
        if not completed:
            self._metrics.stale_polls.inc()
            consumer.abandon_poll(poll)
