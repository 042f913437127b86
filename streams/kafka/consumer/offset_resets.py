"""Positions that Kafka no longer has: a topic that was cut or made again under what is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiokafka.client import ConnectionGroup
from aiokafka.protocol.fetch import FetchRequest

_OUT_OF_RANGE = 1
"""Kafka's error OFFSET_OUT_OF_RANGE."""


def notice_cuts(consumer: Any, cut: Callable[[str, int], None]) -> None:
    """Have a function told of every partition that Kafka has nothing of at the position of a fetch.

    aiokafka itself goes on at the beginning then, and logs that as information.

    Args:
        consumer: one that has not been started.
        cut: told topic and partition, on the consumer's thread.
    """
    client = consumer._client  # noqa: SLF001 - aiokafka has no hook for it
    send = client.send

    async def noticed(node_id: int, request: Any, *, group: Any = ConnectionGroup.DEFAULT) -> Any:
        response = await send(node_id, request, group=group)
        if isinstance(request, FetchRequest):
            for topic, partitions in response.topics:
                for partition, code, *_ in partitions:
                    if code == _OUT_OF_RANGE:
                        cut(topic, partition)
        return response

    client.send = noticed
