"""A worker whose Kafka client fails after the worker is ready: `python -m tests.recovery.failing CASE`.

group: group requests get no answer. polls: polls do not return. ended, fetching: a background task of the client
raises an error. refused: fetches are answered with error 76, which brokers before 4.0 do. old-fetch: fetch requests
below version 10. none: no failure, short time limits.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import HeartbeatRequest

from streams import cli
from streams.telemetry import liveness
from streams.worker import worker

BOUND_S = 3.0
CASES = ("group", "polls", "ended", "fetching", "refused", "old-fetch", "none")


async def _never(*_: Any, **__: Any) -> None:
    await asyncio.Event().wait()


def _raise(*_: Any, **__: Any) -> None:
    raise RuntimeError("a defect")


def fail(case: str, consumer: Any) -> None:
    """Break a worker's client; called on the consumer's thread."""
    send = consumer._client.send

    async def silent(node_id: Any, request: Any, **named: Any) -> Any:
        await (_never() if isinstance(request, HeartbeatRequest) else asyncio.sleep(0))
        return await send(node_id, request, **named)

    watch = consumer._client.send.__self__
    answer = watch._send

    async def refused(node_id: Any, request: Any, **named: Any) -> Any:
        response = await answer(node_id, request, **named)
        if isinstance(request, FetchRequest):
            response.topics = [(name, [(part[0], 76, *part[2:]) for part in parts]) for name, parts in response.topics]
        return response

    match case:
        case "refused":
            watch._send = refused
        case "group":
            consumer._client.send = silent
        case "polls":
            consumer._fetcher.fetched_records = _never
        case "ended":
            consumer._coordinator.ensure_coordinator_known = _raise
            consumer._coordinator.request_rejoin()
        case "fetching":
            consumer._fetcher._get_actions_per_node = _raise


class Failing(worker.Worker):
    """A worker that fails as soon as it has partitions."""

    def on_sought(self, tps: list[Any]) -> None:
        """Start to fail."""
        super().on_sought(tps)
        thread = self.consumer._thread
        self.consumer.thread_loop.call_soon_threadsafe(fail, sys.argv[1], thread._consumer)


if __name__ == "__main__":
    if sys.argv[1] not in CASES:
        sys.exit(f"give one of {', '.join(CASES)}")
    if sys.argv[1] == "old-fetch":
        FetchRequest._CLASSES = tuple(one for one in FetchRequest._CLASSES if one.API_VERSION < 10)
    liveness.GROUP_S = liveness.POLLS_S = BOUND_S
    worker.Worker = Failing  # type: ignore[misc]
    sys.exit(cli.run(["worker"]))
