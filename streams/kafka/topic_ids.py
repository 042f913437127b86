"""Ids and partition counts of topics, by a version of the metadata request that aiokafka does not implement.

Version 10 of the metadata request is the first with topic ids (KIP-516, Kafka 2.8). It is sent over the connections of
an existing client, and creates no topic.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable
from io import BytesIO
from typing import Any

from aiokafka.errors import BrokerNotAvailableError, IncompatibleBrokerVersion, KafkaError
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from streams.messages.packs.topic_identity import UNKNOWN, TopicState, id_text

ID_BYTES = 16
UNKNOWN_TOPIC = 3
RETRY_S = 0.2
"""Pause before a failed request is sent again."""


class Uuid(AbstractType[str]):
    """A UUID of 16 bytes as the text that Kafka's tools print; empty for the null UUID."""

    @classmethod
    def decode(cls, data: BytesIO) -> str:
        """Read a UUID."""
        return id_text(data.read(ID_BYTES))

    @classmethod
    def encode(cls, value: str) -> bytes:
        """Write a UUID."""
        return base64.urlsafe_b64decode(value + "==") if value else bytes(ID_BYTES)


class TopicIdsResponse(Response):
    """Version 10 of the metadata response."""

    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )

    topics: list[tuple[Any, ...]]


class TopicIdsRequestV10(RequestStruct):
    """Version 10 of the metadata request."""

    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = TopicIdsResponse
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("topic_id", Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields)),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class TopicIdsRequest(Request[TopicIdsRequestV10]):
    """Requests the metadata of topics by their names."""

    API_KEY = 3

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(names)

    def build(self, request_struct_class: type[TopicIdsRequestV10]) -> TopicIdsRequestV10:
        """Return the request in a version that the broker supports."""
        topics: list[Any] = [("", name, {}) for name in self._names]
        return request_struct_class(topics, False, False, False, {})


async def describe_topics(client: Any, names: Iterable[str], *, deadline_s: float = 30.0) -> dict[str, TopicState]:
    """Return ids and partition counts of topics; a topic that does not exist has no partitions.

    Args:
        client: an aiokafka client.
        names: the topics.
        deadline_s: seconds until which failed requests are sent again.

    Raises:
        KafkaError: no broker answered until the deadline.
    """
    wanted, clock = list(names), asyncio.get_running_loop().time
    end_s = clock() + deadline_s
    while True:
        try:
            return await _request(client, wanted)
        except KafkaError:
            if clock() > end_s:
                raise
        await asyncio.sleep(RETRY_S)


async def _request(client: Any, names: list[str]) -> dict[str, TopicState]:
    node = client.get_random_node()
    if node is None:
        raise BrokerNotAvailableError("no broker is known")
    try:
        response = await client.send(node, TopicIdsRequest(names))
    except (IncompatibleBrokerVersion, NotImplementedError):
        return await _request_without_ids(client, node, names)
    absent = {name: TopicState("", 0) for name in names}
    return absent | {
        name: TopicState(topic_id, _partitions(code, len(partitions)))
        for code, name, topic_id, _, partitions, *_ in response.topics
    }


async def _request_without_ids(client: Any, node: int, names: list[str]) -> dict[str, TopicState]:
    """Return the same from a broker without topic ids."""
    response = await client.send(node, MetadataRequest(names, allow_auto_topic_creation=False))
    absent = {name: TopicState("", 0) for name in names}
    topics = ((row[0], row[1], row[-1]) for row in response.topics)
    return absent | {name: TopicState("", _partitions(code, len(rows))) for code, name, rows in topics}


def _partitions(code: int, count: int) -> int:
    """Return a partition count; `UNKNOWN` after an error that does not mean that the topic is missing."""
    return count if count or code in {0, UNKNOWN_TOPIC} else UNKNOWN
