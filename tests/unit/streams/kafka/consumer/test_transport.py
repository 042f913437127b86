"""The main loop's side of the consumer, with a thread that answers from dictionaries."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from aiokafka.errors import KafkaError
from faust.types import TP

from streams.kafka.consumer.transport import Consumer
from streams.messages.packs.topic_identity import Committed

OWN, READ = TP("t", 0), TP("t", 1)
FOREIGN, BEHIND, NEW, CUT = (TP("t", number) for number in range(2, 6))
EVERY = {OWN, READ, FOREIGN, BEHIND, NEW, CUT}


def unread(ends: dict[TP, int] | None) -> set[TP]:
    """Return the partitions with unread records; ends: of each partition, None if Kafka does not answer."""
    committed = {FOREIGN: 7, BEHIND: 6, NEW: -1, CUT: 3}

    async def highwaters(*_tps: TP) -> dict[TP, int]:
        if ends is None:
            raise KafkaError
        return ends

    async def earliest_offsets(*tps: TP) -> dict[TP, int]:
        return {tp: 7 if tp == CUT else 0 for tp in tps}

    async def committed_offsets(tps: list[TP]) -> dict[TP, Committed]:
        return {tp: Committed(committed[tp]) for tp in tps}

    async def call_thread(method: Any, *arguments: Any) -> Any:
        return await method(*arguments)

    consumer: Any = SimpleNamespace(
        positions={OWN: 6, READ: 7},
        highwaters=highwaters,
        earliest_offsets=earliest_offsets,
        _thread=SimpleNamespace(call_thread=call_thread, committed_offsets=committed_offsets),
    )
    return asyncio.run(Consumer.unread(consumer, EVERY))


def test_unread_partitions_of_all_workers() -> None:
    """Own partitions count from the last complete poll, others from the group's commit or where the log begins."""
    assert unread(dict.fromkeys(EVERY, 7)) == {OWN, BEHIND, NEW}
    assert unread(dict.fromkeys(EVERY, 0)) == set()
    assert unread(None) == EVERY
