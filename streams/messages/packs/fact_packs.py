"""Facts that a shard derives for other shards, as packs of the mutations topic."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from graphstate.types import Mutation
from streams.messages.packs.mutation_packs import Packer, Record

FACTS = 4_096
"""Facts under one offset in a pack; a record with more facts takes several offsets."""
_PARTS = 1 << 16
_FACT_BYTES = 64


class OutboundFacts(NamedTuple):
    """Facts for another shard that a record led to: a function of the log up to that record."""

    shard: int
    record: Record
    facts: list[Mutation]


def facts_by_shard(record: Record, outbound_facts: list[tuple[int, Mutation]]) -> list[OutboundFacts]:
    """Group the facts of a record by receiving shard; each group keeps their order."""
    facts: dict[int, list[Mutation]] = {}
    for shard, fact in outbound_facts:
        facts.setdefault(shard, []).append(fact)
    return [OutboundFacts(shard, record, shard_facts) for shard, shard_facts in facts.items()]


def fact_packs(log_name: str, partition: int, outbound_facts: Iterable[OutboundFacts]) -> dict[int, list[bytes]]:
    """Pack a shard's facts for other shards; the same records give the same packs whenever they are applied again.

    Args:
        log_name: the mutations topic.
        partition: the partition of the shard that derived the facts.
        outbound_facts: the facts, in the order of their records.

    Returns:
        The packs by receiving shard.
    """
    packers: dict[int, Packer] = {}
    for shard, record, facts in outbound_facts:
        packer = packers.setdefault(shard, Packer())
        for part, begin in enumerate(range(0, len(facts), FACTS)):
            chunk = facts[begin : begin + FACTS]
            offset = record.offset * _PARTS + part
            packer.add_message(f"{log_name}:{partition}", offset, record.accepted_ms, len(chunk) * _FACT_BYTES, chunk)
    return {shard: packer.finish() for shard, packer in packers.items()}
