"""What Kafka answers a worker's consumer: signs of progress for `/livez`, and refusals that end the worker.

aiokafka hands an error of its group to the next call of `getmany` and stops coordinating until then. Faust never
makes that call, so such an error would leave a worker that is alive and does nothing. `ClientWatch` takes the errors
in its place: what can pass is tried again, what cannot ends the worker with one line. The same holds for a
background task of a client that ends.
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
from streams.kafka.access.group_refusals import (
    FETCH_PASSING,
    PASSING,
    REFUSED_S,
    UNREADABLE_S,
    ZSTD,
    fetch_refusal,
    group_refusal,
    group_silence,
    named,
    refusal,
)
from streams.settings.settings import Settings
from streams.telemetry.liveness import GROUP, POLLS

log = logging.getLogger(__name__)

AGAIN_S = 1.0
"""Pause after a refusal that may pass."""
_GROUP = (HeartbeatRequest, JoinGroupRequest, SyncGroupRequest)


class ClientWatch:
    """Watches one consumer of a group, on the consumer's own event loop.

    Args:
        consumer: one that has not been started.
        settings: whose group it is.
        fail: ends the worker with an error; called on the consumer's thread.
        sign: takes a sign of progress by its name.
        clock: seconds that only rise.
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
        self._refused_s: float | None = None
        self._code = 0
        self._withheld: dict[tuple[str, int], float] = {}
        self._send = consumer._client.send  # noqa: SLF001 - aiokafka has no hook for any of this
        consumer._client.send = self.send  # noqa: SLF001

    def started(self) -> None:
        """Take over the errors of the group; call it once the consumer is started and before it subscribes."""
        coordinator, client = self._consumer._coordinator, self._consumer._client  # noqa: SLF001
        coordinator._push_error_to_user = self.pushed  # noqa: SLF001
        tasks = {
            "group": coordinator._coordination_task,  # noqa: SLF001
            "fetch": self._consumer._fetcher._fetch_task,  # noqa: SLF001
            "metadata": client._sync_task,  # noqa: SLF001
        }
        for name, task in tasks.items():
            watch_task(task, f"the {name} task of the consumer", self._ending, self._fail)
        self._sign(GROUP)
        self._sign(POLLS)

    def _ending(self) -> bool:
        return bool(self._consumer._closed)  # noqa: SLF001

    async def send(self, node_id: Any, request: Any, *, group: Any = ConnectionGroup.DEFAULT) -> Any:
        """As the client's, with a look at the answer."""
        try:
            response = await self._send(node_id, request, group=group)
        except KafkaError:
            # The client goes on trying while Kafka is away, which is all that it can do.
            self._sign(GROUP)
            self._sign(POLLS)
            raise
        if isinstance(request, _GROUP):
            self._answered(request, response.error_code)
        elif isinstance(request, FetchRequest):
            self._fetched(request, response)
        return response

    def _answered(self, request: Any, code: int) -> None:
        self._sign(GROUP)
        if code == 0:
            if not isinstance(request, JoinGroupRequest):
                self._refused_s = None
            if not isinstance(request, HeartbeatRequest):
                self._sign(POLLS)
        elif code not in PASSING:
            self._code = code
            error = group_refusal(self._settings, code)
            if error is not None:
                self._fail(error)
            else:
                self._refused(named(WorkerError(), code))

    def _refused(self, what: str) -> None:
        """Note a refusal that may pass; too long in a row ends the worker."""
        now_s = self._clock()
        if self._refused_s is None:
            self._refused_s = now_s
        elif now_s - self._refused_s > REFUSED_S:
            self._fail(group_silence(self._settings, what))

    def _fetched(self, request: Any, response: Any) -> None:
        for topic, partitions in response.topics:
            for partition, code, *_ in partitions:
                if code in FETCH_PASSING:
                    self._withheld.pop((topic, partition), None)
                    continue
                now_s = self._clock()
                since_s = self._withheld.setdefault((topic, partition), now_s)
                if code == ZSTD or now_s - since_s > UNREADABLE_S:
                    self._fail(fetch_refusal(topic, partition, _offset(request, topic, partition), code))

    async def pushed(self, error: BaseException) -> None:
        """In the place of aiokafka's wait for a call that takes the error: end the worker, or try again."""
        coordinator = self._consumer._coordinator  # noqa: SLF001
        last: GroundswellError | None = refusal(self._settings, error)
        if last is None and not isinstance(error, KafkaError):
            last = _ended("the heartbeat task of the consumer", error)
        if last is not None:
            self._fail(last)
            await asyncio.wait([coordinator._closing])  # noqa: SLF001
            return
        what = named(error, self._code)
        log.warning("group_request_failed", extra={"group": self._settings.consumer_group, "why": what})
        self._refused(what)
        await asyncio.wait([coordinator._closing], timeout=AGAIN_S)  # noqa: SLF001
        # A heartbeat task that ended is started by the next join only.
        coordinator.request_rejoin()


def _offset(request: Any, topic: str, partition: int) -> int:
    """The offset that a fetch asked for."""
    found = [offset for name, parts in request.topics if name == topic for at, offset, _ in parts if at == partition]
    return int(found[0]) if found else -1


def _ended(what: str, error: BaseException | None) -> WorkerError:
    # aiokafka wraps what it did not expect.
    cause = error.__cause__ or error if error is not None else None
    why = "without an error" if cause is None else f"{type(cause).__name__}: {one_line(cause)}"
    return WorkerError(f"{what} ended ({why}), so that nothing could be read any more; start the worker again")


def watch_task(
    task: asyncio.Future[Any], what: str, ending: Callable[[], bool], fail: Callable[[GroundswellError], None]
) -> None:
    """End the worker when a background task of a client ends before the client is closed.

    Args:
        task: the task.
        what: its name in the error.
        ending: whether the client is being closed.
        fail: ends the worker.
    """

    def done(ended: asyncio.Future[Any]) -> None:
        if not ending() and not ended.cancelled():
            fail(_ended(what, ended.exception()))

    task.add_done_callback(done)
