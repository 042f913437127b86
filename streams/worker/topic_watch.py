"""Whether the topics under a running worker are still those that it was assigned: asked every few seconds.

An input topic that was deleted and made again, or has more partitions, is assigned anew, which settles where to read it
from (`streams/worker/positions.py`). A mutations or halos topic that was made again ends the worker. While an input
topic is missing, or not assigned yet, the worker is not ready.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aiokafka.errors import KafkaError

from streams.errors import BrokerError, TopicError, one_line
from streams.messages.topic_identity import TopicState

if TYPE_CHECKING:
    from streams.kafka.consumer.transport import Consumer
    from streams.kafka.topics import Topics
    from streams.telemetry.readiness import Readiness
    from streams.worker.positions import Positions

log = logging.getLogger(__name__)

EVERY_S = 2.0
ANSWER_S = 5.0
ASSIGNED_S = 60.0
"""How long an assignment waits for an answer: for as long as a broker takes to come back."""
_OUT_OF_RANGE = 1


class TopicWatch:
    """Looks after the topics of one worker.

    Args:
        consumer: returns the transport's consumer, which is asked and told.
        positions: what was so at the last assignment.
        on_outputs: told how many partitions the output topics have, at every look.
        every_s: the seconds between two looks.
    """

    def __init__(
        self,
        topics: Topics,
        consumer: Callable[[], Consumer],
        positions: Positions,
        readiness: Readiness,
        on_outputs: Callable[[Mapping[str, TopicState]], Any],
        every_s: float = EVERY_S,
    ) -> None:
        self._consumer = consumer
        self._positions = positions
        self._readiness = readiness
        self._on_outputs = on_outputs
        self._every_s = every_s
        self._sharded = [topics.mutations.name, topics.halos.name]
        self._inputs = [spec.name for spec in topics.inputs.values()]
        self._read = [*self._inputs, *self._sharded]
        self._outputs = [topics.score.name, topics.alert.name]
        self._said: set[str] = set()

    async def run(self) -> None:
        """Look, until cancelled.

        Raises:
            StateError: the mutations or the halos topic was made anew.
            TopicError: one of them has another number of partitions.
        """
        while True:
            await asyncio.sleep(self._every_s)
            if not self._readiness.sought:
                continue  # an assignment is under way, and asks for itself
            try:
                await self.look()
            except TopicError:
                raise
            except BrokerError as error:
                log.debug("Kafka could not be asked about the topics", extra={"why": one_line(error)})

    async def ask(self, deadline_s: float = ASSIGNED_S) -> dict[str, TopicState]:
        """What Kafka says of the topics now.

        Raises:
            BrokerError: nobody answered until the deadline.
        """
        try:
            return await self._consumer().found([*self._read, *self._outputs], deadline_s)
        except KafkaError as error:
            message = (
                f"Kafka did not say which topics there are ({one_line(error)}); is it well? Start the worker again"
            )
            raise BrokerError(message) from error

    async def look(self) -> None:
        """Look once."""
        now = await self.ask(ANSWER_S)
        if not self._readiness.sought:
            return
        self._positions.check(now)
        anew = self._positions.inputs_anew(now)
        # The group's leader assigns the partitions that its client knows of, every producer sends to those of its own.
        shown = {name: self._consumer().shown(name) for name in self._read}
        other = [name for name in self._read if now[name].partitions > 0 and now[name].partitions != shown[name]]
        more = [name for name in self._outputs if self._positions.known[name] != now[name]]
        self._readiness.pending = self._positions.pending(now, self._read)
        self._say(now, anew, other)
        if anew or other or more:
            await self._consumer().refresh(rejoin=bool(anew))
        self._positions.known |= {name: now[name] for name in self._outputs}
        await self._on_outputs(now)

    def _say(self, now: Mapping[str, TopicState], anew: list[str], other: list[str]) -> None:
        """Log what is found, once for as long as it is so."""
        absent = [name for name in self._read if not now[name].partitions]
        lines = {f"topic {name} is missing: create it again (`groundswell topics create`)" for name in absent}
        lines |= {f"topic {name} was deleted and made again: assigning its partitions anew" for name in anew}
        lines |= {f"topic {name} has {now[name].partitions} partitions now: assigning them" for name in other}
        for line in sorted(lines - self._said):
            log.warning(line)
        self._said = lines
