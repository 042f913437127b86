"""Access to the parts of aiokafka's consumer that have no public interface.

`tests/contract/test_aiokafka_internals.py` checks that the installed version has them, and fails for a version that was
not checked.
"""
# ruff: noqa: SLF001 - this module is the place for it

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

CHECKED_VERSION = "0.14.0"
"""The version of aiokafka that was read for this module and for `streams/kafka/leased_client.py`."""

Send = Callable[..., Awaitable[Any]]
"""`send(node_id, request, *, group)` of aiokafka's client."""


def client(consumer: Any) -> Any:
    """Return the client of a consumer, which sends its requests."""
    return consumer._client


def wrap_send(consumer: Any, wrap: Callable[[Send], Send]) -> None:
    """Replace the client's `send` by a function that is made from it; for a consumer that has not been started."""
    consumer._client.send = wrap(consumer._client.send)


def is_closed(consumer: Any) -> bool:
    """Whether the consumer is closed or being closed."""
    return bool(consumer._closed)


def background_tasks(consumer: Any) -> dict[str, asyncio.Future[Any]]:
    """Return the background tasks of a started consumer, by name."""
    return {
        "group": consumer._coordinator._coordination_task,
        "fetch": consumer._fetcher._fetch_task,
        "metadata": consumer._client._sync_task,
    }


# The consumer group


def generation(consumer: Any) -> int:
    """Return the group's generation of the present assignment."""
    return int(consumer._coordinator.generation)


def request_rejoin(consumer: Any) -> None:
    """Rejoin the group, which reassigns all partitions."""
    consumer._coordinator.request_rejoin()


def on_group_error(consumer: Any, handle: Callable[[BaseException], Awaitable[None]]) -> None:
    """Pass errors of the group to a function, instead of to the next call of `getmany`; for a started consumer."""
    consumer._coordinator._push_error_to_user = handle


async def wait_until_closing(consumer: Any, timeout_s: float | None = None) -> None:
    """Wait until the consumer leaves the group, at most for a timeout."""
    await asyncio.wait([consumer._coordinator._closing], timeout=timeout_s)


async def committed_offsets(consumer: Any, keys: list[Any]) -> dict[Any, Any]:
    """Return the commits of the group with their metadata, which the public `committed` drops."""
    commits: dict[Any, Any] = await consumer._coordinator.fetch_committed_offsets(keys)
    return commits


# Fetching


def partition_count(consumer: Any, topic: str) -> int:
    """Return the number of partitions of a topic in the consumer's metadata."""
    return len(consumer._client.cluster.partitions_for_topic(topic) or ())


def set_prefetch_backoff(consumer: Any, seconds: float) -> None:
    """Set the maximum delay of other partitions by one whose records are not taken yet."""
    consumer._fetcher._prefetch_backoff = seconds


def positions(consumer: Any) -> Callable[[Any], int]:
    """Return a function from a partition of the present assignment to the position after its fetched records."""
    assignment = consumer._subscription.subscription.assignment

    def position(tp: Any) -> int:
        return int(assignment.state_value(tp).position)

    return position


async def close_fetches(consumer: Any) -> None:
    """Cancel the fetches and close the client, the rest of a `stop` that was cancelled."""
    fetches = list(consumer._fetcher._pending_tasks)
    for fetch in fetches:
        fetch.cancel()
    await asyncio.gather(*fetches, return_exceptions=True)
    await consumer._client.close()
