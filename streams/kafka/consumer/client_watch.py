"""Errors of a worker's consumer: retry or stop the worker; successful responses are signs of progress for `/livez`.

aiokafka passes an error of its group to the next call of `getmany` and stops coordinating until then. Faust never
makes that call, so after such an error a worker would run and process nothing. `ClientWatch` receives the errors
instead: it retries after a transient error, and stops the worker with an error of one line after any other. It also
stops the worker when a background task of the client ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, SyncGroupRequest

from streams.errors import GroundswellError, WorkerError, one_line
from streams.kafka import aiokafka_internals
from streams.kafka.access.group_refusals import (
    FETCH_TRANSIENT,
    REFUSED_S,
    TRANSIENT,
    UNREADABLE_S,
    ZSTD,
    fetch_refusal,
    group_refusal,
    group_silence,
    refusal,
    refusal_name,
)
from streams.settings.settings import Settings
from streams.telemetry.liveness import GROUP, POLLS

log = logging.getLogger(__name__)

RETRY_S = 1.0
"""Pause before a rejoin after a transient error."""
_GROUP = (HeartbeatRequest, JoinGroupRequest, SyncGroupRequest)


class ClientWatch:
    """Observes the responses to one consumer of a group, on the consumer's own event loop.

    Args:
        consumer: a consumer that has not been started.
        settings: the settings of the worker; they name the group.
        fail: stops the worker with an error; called on the consumer's thread.
        sign: records a sign of progress from a source.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        consumer: Any,
        settings: Settings,
        fail: Callable[[GroundswellError], None],
        sign: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consumer = consumer
        self._settings = settings
        self._fail = fail
        self._sign = sign
        self._clock = clock
        self._refused_since_s: float | None = None
        self._last_code = 0
        self._failing_since_s: dict[tuple[str, int], float] = {}
        self._send: aiokafka_internals.Send
        aiokafka_internals.wrap_send(consumer, self._wrap)

    def take_over_errors(self) -> None:
        """Receive the group's errors; call it after the consumer is started and before it subscribes."""
        aiokafka_internals.on_group_error(self._consumer, self.on_error)
        for name, task in aiokafka_internals.background_tasks(self._consumer).items():
            fail_if_ended(task, f"the {name} task of the consumer", self._closing, self._fail)
        self._sign(GROUP)
        self._sign(POLLS)

    def _closing(self) -> bool:
        return aiokafka_internals.is_closed(self._consumer)

    def _wrap(self, send: aiokafka_internals.Send) -> aiokafka_internals.Send:
        self._send = send
        return self.send

    async def send(self, node_id: Any, request: Any, *, group: Any = ConnectionGroup.DEFAULT) -> Any:
        """Send a request as aiokafka's client does, and observe the response."""
        try:
            response = await self._send(node_id, request, group=group)
        except KafkaError:
            # While Kafka is unreachable the client retries by itself; a restart of the worker would not help.
            self._sign(GROUP)
            self._sign(POLLS)
            raise
        if isinstance(request, _GROUP):
            self._on_group_response(request, response.error_code)
        elif isinstance(request, FetchRequest):
            self._on_fetch_response(request, response)
        return response

    def _on_group_response(self, request: Any, code: int) -> None:
        self._sign(GROUP)
        if code == 0:
            if not isinstance(request, JoinGroupRequest):
                self._refused_since_s = None
            if not isinstance(request, HeartbeatRequest):
                self._sign(POLLS)
        elif code not in TRANSIENT:
            self._last_code = code
            error = group_refusal(self._settings, code)
            if error is not None:
                self._fail(error)
            else:
                self._count_refusal(refusal_name(WorkerError(), code))

    def _count_refusal(self, what: str) -> None:
        """Record a transient error; stop the worker when such errors last longer than `REFUSED_S`."""
        now_s = self._clock()
        if self._refused_since_s is None:
            self._refused_since_s = now_s
        elif now_s - self._refused_since_s > REFUSED_S:
            self._fail(group_silence(self._settings, what))

    def _on_fetch_response(self, request: Any, response: Any) -> None:
        for topic, partitions in response.topics:
            for partition, code, *_ in partitions:
                if code in FETCH_TRANSIENT:
                    self._failing_since_s.pop((topic, partition), None)
                    continue
                now_s = self._clock()
                since_s = self._failing_since_s.setdefault((topic, partition), now_s)
                if code == ZSTD or now_s - since_s > UNREADABLE_S:
                    self._fail(fetch_refusal(topic, partition, _offset(request, topic, partition), code))

    async def on_error(self, error: BaseException) -> None:
        """Stop the worker or rejoin the group; replaces aiokafka's wait for a call that receives the error."""
        fatal: GroundswellError | None = refusal(self._settings, error)
        if fatal is None and not isinstance(error, KafkaError):
            fatal = _task_ended("the heartbeat task of the consumer", error)
        if fatal is not None:
            self._fail(fatal)
            await aiokafka_internals.wait_until_closing(self._consumer)
            return
        what = refusal_name(error, self._last_code)
        log.warning("group_request_failed", extra={"group": self._settings.consumer_group, "error": what})
        self._count_refusal(what)
        await aiokafka_internals.wait_until_closing(self._consumer, RETRY_S)
        # Only a join starts a new heartbeat task.
        aiokafka_internals.request_rejoin(self._consumer)


def _offset(request: Any, topic: str, partition: int) -> int:
    """Return the offset that a fetch request has for a partition; -1 if it has none."""
    offsets = [
        offset
        for name, partitions in request.topics
        if name == topic
        for number, offset, _ in partitions
        if number == partition
    ]
    return int(offsets[0]) if offsets else -1


def _task_ended(what: str, error: BaseException | None) -> WorkerError:
    # aiokafka wraps an error that it did not expect.
    cause = error.__cause__ or error if error is not None else None
    why = "without an error" if cause is None else f"{type(cause).__name__}: {one_line(cause)}"
    return WorkerError(f"{what} ended ({why}), so nothing could be read from Kafka any more; start the worker again")


def fail_if_ended(
    task: asyncio.Future[Any], what: str, closing: Callable[[], bool], fail: Callable[[GroundswellError], None]
) -> None:
    """Stop the worker when a background task of a client ends before the client is closed.

    Args:
        task: the task.
        what: its name in the error.
        closing: returns whether the client is being closed.
        fail: stops the worker.
    """

    def on_done(ended: asyncio.Future[Any]) -> None:
        if not closing() and not ended.cancelled():
            fail(_task_ended(what, ended.exception()))

    task.add_done_callback(on_done)
