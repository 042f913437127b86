"""Input of a chaos run: a generated history as messages, reordered, repeated, with shifted timestamps and bad messages.

Everything depends only on the seed. The sent messages and the expected result come from the same list.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from graphstate.types import Mutation
from streams.errors import BadEvent
from streams.messages.events import TOPIC_OF, TopicKind, mutations
from tests.support.histories import history

USERS = 900
"""Few enough that one page of the API lists all users."""
PARTITIONS = 4
"""Partitions of each input topic, the number with which topics are created."""
REORDERED = 400
"""Distance in messages by which a message may move."""
REPEATED = 0.03
LONG_LATE = 0.01
PACKED = 0.1
BAD = 0.002
SKEWED = 0.02
SKEWS_S = (-86_400, -3_600, -60, 600, 3_000)
"""Offsets added to Kafka's own timestamp; a broker refuses timestamps more than an hour ahead."""
FAR_FUTURE_S = 4_102_444_800
NOW_MS = 1_700_000_000_000

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Message:
    """One message of an input topic. skew_s: shift of its Kafka timestamp. bad: it becomes a dead letter."""

    kind: TopicKind
    value: bytes
    partition: int
    skew_s: int = 0
    bad: bool = False


def messages(seed: int, count: int) -> list[Message]:
    """Make the messages of `count` events in sending order; some occur twice."""
    rng = random.Random(f"stream {seed}")
    placed: list[tuple[float, Message]] = []
    for place, message in enumerate(_packed(rng, history(rng, count, users=USERS, links=True))):
        late = rng.uniform(0, count / 2) if rng.random() < LONG_LATE else rng.uniform(0, REORDERED)
        placed.append((place + late, message))
        if rng.random() < REPEATED:
            again = Message(message.kind, message.value, rng.randrange(PARTITIONS), 0, message.bad)
            placed.append((place + rng.uniform(0, 10 * REORDERED), again))
    placed.sort(key=lambda pair: pair[0])
    return [message for _, message in placed]


def _packed(rng: random.Random, rows: Iterable[dict[str, Any]]) -> Iterator[Message]:
    """Pack rows into messages: some messages have several rows, some of these a bad row."""
    waiting: dict[TopicKind, list[dict[str, Any]]] = {}
    for row in rows:
        kind = TOPIC_OF[row["type"]]
        together = waiting.setdefault(kind, [])
        together.append(row)
        if rng.random() < PACKED:
            continue
        bad = rng.random() < BAD
        if bad:
            # A timestamp decades ahead must not advance the clock for other events.
            together.append({**row, "time": FAR_FUTURE_S})
        value = _encode(together[0] if len(together) == 1 else together)
        skew_s = rng.choice(SKEWS_S) if rng.random() < SKEWED else 0
        yield Message(kind, value, rng.randrange(PARTITIONS), skew_s, bad)
        waiting[kind] = []
    for kind, together in waiting.items():
        if together:
            yield Message(kind, _encode(together), rng.randrange(PARTITIONS))


def truth(sent: Iterable[Message]) -> list[Mutation]:
    """The mutations of these messages, each once, in order of time."""
    found: dict[Mutation, None] = {}
    for message in sent:
        try:
            some = mutations(message.value, message.kind, NOW_MS)
        except BadEvent as error:
            some = error.good
        found.update(dict.fromkeys(some))
    return sorted(found, key=lambda mutation: mutation.time)
