"""Streams for runs under load: one that never ends and needs no memory, one of a bounded number of ids.

`load`, `crowd`: events whose number is all there is to know of them, so that sender and judge make the same
ones apart. Ids are bounded, so state is, and times go on by a millisecond each, so nothing expires.
`live`: the society of the demo; contents come and go, so what retention evicts makes room.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from model.simulation.stream import Simulation
from streams.messages.events import TOPIC_OF, TopicKind

USERS, CONTENTS, COMMUNITIES = 10_000, 30_000, 100
BEGIN_S = 1_700_000_000.0
STEP_S = 0.001
BLOCK = 1_000
"""Events made from one seed: any block can be made without those before it."""
TYPES = ("share",) * 50 + ("unshare",) * 5 + ("create",) * 20 + ("follow",) * 15 + ("unfollow",) * 5 + ("join",) * 5
_OTHER = {
    "share": ("content", "c", CONTENTS),
    "unshare": ("content", "c", CONTENTS),
    "create": ("content", "c", CONTENTS),
    "follow": ("target", "u", USERS),
    "unfollow": ("target", "u", USERS),
    "join": ("community", "k", COMMUNITIES),
}


class Sent(NamedTuple):
    """One event as it is sent."""

    kind: TopicKind
    key: bytes
    value: bytes


def load(seed: int, first: int = 0, users: int = USERS) -> Iterator[Sent]:
    """Events from number `first` on, for ever."""
    block = first // BLOCK
    yield from islice(_block(seed, block, users), first % BLOCK, None)
    while True:
        block += 1
        yield from _block(seed, block, users)


def crowd(seed: int, first: int = 0) -> Iterator[Sent]:
    """The same with ten times as many users."""
    return load(seed, first, 10 * USERS)


def _block(seed: int, block: int, users: int) -> Iterator[Sent]:
    rng = random.Random(f"{seed} {block}")
    for number in range(block * BLOCK, (block + 1) * BLOCK):
        type_ = rng.choice(TYPES)
        field, letter, ids = _OTHER[type_]
        user = f"u{int(users * rng.random() ** 2)}"
        time = BEGIN_S + number * STEP_S
        number_of = users if field == "target" else ids
        value = f'{{"type":"{type_}","time":{time:.3f},"user":"{user}","{field}":"{letter}{rng.randrange(number_of)}"}}'
        yield Sent(TOPIC_OF[type_], user.encode(), value.encode())


def live(seed: int, first: int = 0) -> Iterator[Sent]:
    """The demo's society from its first day, without its first events, for ever."""
    simulation = Simulation.demo(seed)
    for number, row in enumerate(simulation.events()):
        if number >= first:
            yield Sent(TOPIC_OF[row["type"]], str(row["user"]).encode(), json.dumps(row).encode())


STREAMS = {"load": load, "crowd": crowd, "live": live}
