"""Streams for load tests: an endless one without memory, and one with a bounded number of ids.

`load`, `crowd`: an event depends only on its number, so that sender and checker generate the same events
independently. Ids are bounded, so the state is too; times advance by a millisecond per event, so nothing expires.
`live`: the simulated society of the demo; contents come and go, so eviction makes room.
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
"""Events per seed: a block can be generated without those before it."""
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
    """One event with its message."""

    kind: TopicKind
    key: bytes
    value: bytes


def load(seed: int, first: int = 0, users: int = USERS) -> Iterator[Sent]:
    """Generate events from number `first` on, without end."""
    block = first // BLOCK
    yield from islice(_block(seed, block, users), first % BLOCK, None)
    while True:
        block += 1
        yield from _block(seed, block, users)


def crowd(seed: int, first: int = 0) -> Iterator[Sent]:
    """Generate the same with ten times as many users."""
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
    """Generate the demo's society from its first day without its first events, without end."""
    simulation = Simulation.demo(seed)
    for number, row in enumerate(simulation.events()):
        if number >= first:
            yield Sent(TOPIC_OF[row["type"]], str(row["user"]).encode(), json.dumps(row).encode())


STREAMS = {"load": load, "crowd": crowd, "live": live}
