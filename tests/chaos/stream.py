"""The input of a chaos run: a generated history as messages, out of order, repeated, with wrong clocks and bad ones.

Everything is a function of the seed. What is sent and what the truth is made from are the same list.
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
"""Few enough for one page of the API to name them all."""
PARTITIONS = 4
"""Of each input topic, as many as they are made with."""
REORDERED = 400
"""Messages by which one may be early or late."""
REPEATED = 0.03
LONG_LATE = 0.01
PACKED = 0.1
BAD = 0.002
SKEWED = 0.02
SKEWS_S = (-86_400, -3_600, -60, 600, 3_000)
"""What is added to Kafka's own timestamp; a broker refuses more than an hour ahead."""
FAR_FUTURE_S = 4_102_444_800
NOW_MS = 1_700_000_000_000

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Message:
    """One message of an input topic. skew_s: its Kafka timestamp is off. bad: a dead letter."""

    kind: TopicKind
    value: bytes
    partition: int
    skew_s: int = 0
    bad: bool = False


def messages(seed: int, count: int) -> list[Message]:
    """The messages of `count` events in the order of sending; some are there twice."""
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
    """Rows as messages: some several to a message, some with a bad one among them."""
    waiting: dict[TopicKind, list[dict[str, Any]]] = {}
    for row in rows:
        kind = TOPIC_OF[row["type"]]
        together = waiting.setdefault(kind, [])
        together.append(row)
        if rng.random() < PACKED:
            continue
        bad = rng.random() < BAD
        if bad:
            # A clock that is decades ahead must not carry the others along.
            together.append({**row, "time": FAR_FUTURE_S})
        value = _encode(together[0] if len(together) == 1 else together)
        skew_s = rng.choice(SKEWS_S) if rng.random() < SKEWED else 0
        yield Message(kind, value, rng.randrange(PARTITIONS), skew_s, bad)
        waiting[kind] = []
    for kind, together in waiting.items():
        if together:
            yield Message(kind, _encode(together), rng.randrange(PARTITIONS))


def truth(sent: Iterable[Message]) -> list[Mutation]:
    """The mutations of the set of these messages, each once, in order of time."""
    found: dict[Mutation, None] = {}
    for message in sent:
        try:
            some = mutations(message.value, message.kind, NOW_MS)
        except BadEvent as error:
            some = error.good
        found.update(dict.fromkeys(some))
    return sorted(found, key=lambda mutation: mutation.time)
