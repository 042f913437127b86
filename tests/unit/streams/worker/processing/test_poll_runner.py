"""The poll runner: order of polls, stale polls, and errors of a handler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streams.errors import LeaseLost, WorkerError
from streams.kafka.consumer.poll_queue import Poll
from streams.telemetry.metrics import Metrics
from streams.worker.processing.poll_runner import PollRunner


class Consumer:
    """Records what happens to polls; epoch 1 is the present one."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []

    def is_current(self, poll: Poll) -> bool:
        """Whether the poll is of epoch 1."""
        return poll.epoch == 1

    def start_poll(self, poll: Poll) -> None:
        """Record the start."""
        self.log.append(("start", poll.first))

    def abandon_poll(self, poll: Poll) -> None:
        """Record that a poll was dropped."""
        self.log.append(("abandon", poll.first))


class Stream:
    """A Faust stream of given polls."""

    def __init__(self, *polls: Poll) -> None:
        self._polls = polls

    async def noack(self) -> AsyncIterator[Poll]:
        """Yield the polls."""
        for poll in self._polls:
            yield poll


def run(*polls: Poll, error: Exception | None = None, durable: bool = True) -> tuple[list[Any], float, list[Exception]]:
    """Run an agent on polls; returns the consumer's log, the count of stale polls, and the errors."""
    consumer, metrics, errors = Consumer(), Metrics(), []

    async def handle(_poll: Poll) -> bool:
        if error is not None:
            raise error
        return durable

    async def run_agent() -> None:
        fake: Any = consumer
        agent = PollRunner(fake, metrics, errors.append).agent(handle)
        try:
            await asyncio.wait_for(agent(Stream(*polls)), 0.05)
        except TimeoutError:
            assert errors

    asyncio.run(run_agent())
    return consumer.log, metrics.registry.get_sample_value("groundswell_stale_polls_total") or 0.0, errors


def test_polls_are_handled_in_order() -> None:
    """Consecutive polls are started and handled; one of another epoch is dropped before its start."""
    log, stale, errors = run(Poll("t", 1, 1), Poll("t", 1, 2), Poll("t", 0, 3), Poll("u", 1, 1))
    assert (log, stale, errors) == ([("start", 1), ("start", 2), ("start", 1)], 1.0, [])


@pytest.mark.parametrize("lost", [LeaseLost("over"), None])
def test_a_poll_that_becomes_stale_is_abandoned(lost: Exception | None) -> None:
    """A handler that reports a stale poll or a lost lease stops nothing."""
    log, stale, errors = run(Poll("t", 1, 1), error=lost, durable=False)
    assert (log, stale, errors) == ([("start", 1), ("abandon", 1)], 1.0, [])


def test_a_missing_poll_stops_the_worker() -> None:
    """A gap in the numbers of a lane is an error, and no later poll is handled."""
    log, _, errors = run(Poll("t", 1, 1), Poll("t", 1, 3), Poll("t", 1, 4))
    assert log == [("start", 1), ("start", 3)]
    assert [type(error) for error in errors] == [WorkerError]


def test_an_error_of_a_handler_stops_the_worker() -> None:
    """The agent reports the error and waits, so that Faust commits nothing past the poll."""
    _, _, errors = run(Poll("t", 1, 1), Poll("t", 1, 2), error=ValueError("broken"))
    assert [str(error) for error in errors] == ["broken"]
