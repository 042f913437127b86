"""Positions that Kafka no longer has: a topic was truncated, or deleted and created again, while it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiokafka.client import ConnectionGroup
from aiokafka.protocol.fetch import FetchRequest

from streams.kafka.aiokafka_internals import Send, wrap_send

_OUT_OF_RANGE = 1
"""Kafka's error OFFSET_OUT_OF_RANGE."""


def on_out_of_range(consumer: Any, callback: Callable[[str, int], None]) -> None:
    """Call a function for every partition whose fetch position Kafka does not have.

    aiokafka itself would then read from the beginning, and only log that.

    Args:
        consumer: a consumer that has not been started.
        callback: called with topic and partition, on the consumer's thread.
    """

    def wrap(send: Send) -> Send:
        async def send_and_observe(node_id: int, request: Any, *, group: Any = ConnectionGroup.DEFAULT) -> Any:
            response = await send(node_id, request, group=group)
            if isinstance(request, FetchRequest):
                for topic, partitions in response.topics:
                    for partition, code, *_ in partitions:
                        if code == _OUT_OF_RANGE:
                            callback(topic, partition)
            return response

        return send_and_observe

    wrap_send(consumer, wrap)
