"""Detection of topic changes while a worker runs: topics that were deleted, created again or got partitions.

An input topic that was created again or has more partitions is assigned again; `streams/worker/group/positions.py` then
decides where to read it from. A mutations or halos topic that was created again stops the worker. While an input topic
is missing or not assigned yet, the worker is not ready.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from streams.errors import BrokerError, TopicError, one_line
from streams.messages.packs.topic_identity import TopicState

if TYPE_CHECKING:
    from streams.kafka.consumer.transport import Consumer
    from streams.kafka.topics import Topics
    from streams.telemetry.readiness import Readiness
    from streams.worker.group.positions import Positions

log = logging.getLogger(__name__)

EVERY_S = 2.0
REQUEST_S = 5.0
ASSIGNED_S = 60.0
"""Deadline of the request at an assignment: long enough for a broker to restart."""


class TopicWatch:
    """Compares the topics of one worker with those of its last assignment.

    Args:
        topics: All topics.
        consumer: Returns the transport's consumer.
        positions: Holds the topics of the last assignment.
        readiness: Reports the topic that is missing or not assigned yet.
        on_topics: Called with the topics after every check.
        every_s: Seconds between two checks.
    """

    def __init__(
        self,
        topics: Topics,
        consumer: Callable[[], Consumer],
        positions: Positions,
        readiness: Readiness,
        on_topics: Callable[[Mapping[str, TopicState]], Awaitable[None]],
        every_s: float = EVERY_S,
    ) -> None:
        self._consumer = consumer
        self._positions = positions
        self._readiness = readiness
        self._on_topics = on_topics
        self._every_s = every_s
        self._sharded = [topics.mutations.name, topics.halos.name]
        self._inputs = [spec.name for spec in topics.inputs.values()]
        self._read = [*self._inputs, *self._sharded]
        self._outputs = [topics.score.name, topics.topic.name, topics.alert.name]
        self._logged: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Check the topics periodically until cancelled.

        Raises:
            StateError: The mutations or the halos topic was created again.
            TopicError: One of them has another number of partitions.
        """
        while True:
            await asyncio.sleep(self._every_s)
            if not self._readiness.sought:
                continue  # an assignment is in progress and requests the topics itself
            try:
                await self.check()
            except TopicError:
                raise
            except BrokerError as error:
                log.debug("topic_request_failed", extra={"error": one_line(error)})

    async def fetch_topics(self, deadline_s: float = ASSIGNED_S) -> dict[str, TopicState]:
        """Return Kafka's id and number of partitions of each topic now.

        Raises:
            BrokerError: No broker answered within the deadline.
        """
        try:
            return await self._consumer().describe_topics([*self._read, *self._outputs], deadline_s)
        except KafkaError as error:
            message = (
                f"Kafka did not answer which topics there are ({one_line(error)}); is it well? Start the worker again"
            )
            raise BrokerError(message) from error

    async def check(self) -> None:
        """Check the topics once."""
        now = await self.fetch_topics(REQUEST_S)
        if not self._readiness.sought:
            return
        self._positions.check(now)
        changed = self._positions.changed_inputs(now)
        # The group's leader assigns, and every producer sends to, the partitions in its own client's metadata.
        in_metadata = {name: self._consumer().partition_count(name) for name in self._read}
        outdated = [
            name for name in self._read if now[name].partitions > 0 and now[name].partitions != in_metadata[name]
        ]
        outputs = [name for name in self._outputs if self._positions.topics[name] != now[name]]
        self._readiness.pending = self._positions.pending(now, self._read)
        self._log(now, changed, outdated)
        if changed or outdated or outputs:
            await self._consumer().refresh_metadata(rejoin=bool(changed))
        self._positions.topics |= {name: now[name] for name in self._outputs}
        await self._on_topics(now)

    def _log(self, now: Mapping[str, TopicState], changed: list[str], outdated: list[str]) -> None:
        """Log every finding once for as long as it lasts."""
        findings = {("topic_missing", name) for name in self._read if not now[name].partitions}
        findings |= {("topic_recreated_reassigning", name) for name in changed}
        findings |= {("topic_partitions_changed_reassigning", name) for name in outdated}
        for event, name in sorted(findings - self._logged):
            log.warning(event, extra={"topic": name, "partitions": now[name].partitions})
        self._logged = findings
