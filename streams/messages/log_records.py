"""Records: the messages of the mutations log as a shard takes them, and what they make it tell others."""

from __future__ import annotations

from typing import NamedTuple

from graphstate.storage.row_layouts import NEVER
from graphstate.types import Mutation


class Record(NamedTuple):
    """One message of the mutations log; clock: the event time that its sender had seen (µs), accepted_ms: the oldest
    event in it by Kafka's time, 0 if unknown.
    """

    offset: int
    mutations: list[Mutation]
    clock: int = NEVER
    accepted_ms: int = 0


class Told(NamedTuple):
    """Facts for another shard that a record led to: a function of the log up to there."""

    shard: int
    record: Record
    facts: list[Mutation]


def by_shard(record: Record, told: list[tuple[int, Mutation]]) -> list[Told]:
    """The facts of a record by receiving shard, each in the order they came up."""
    facts: dict[int, list[Mutation]] = {}
    for shard, fact in told:
        facts.setdefault(shard, []).append(fact)
    return [Told(shard, record, some) for shard, some in facts.items()]
