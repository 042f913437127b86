"""A worker with a fault: it refuses valid events, like an old release behind newer producers.

python -m tests.support.faulty          instead of: groundswell worker
"""

from __future__ import annotations

import zlib

from msgspec import DecodeError

from graphstate.types import Mutation
from streams.errors import BadEvent
from streams.messages import events

REASON = "schema"
_right = events.mutations


def refuses(user: str) -> bool:
    """Whether the user is in a fixed third of the users."""
    return zlib.crc32(user.encode()) % 3 == 0


def mutations(value: bytes | None, topic: events.TopicKind, timestamp_ms: int) -> list[Mutation]:
    """Decode like the real function, but refuse the events of some users; other events of an array stay valid."""
    found = _right(value, topic, timestamp_ms)
    good = [mutation for mutation in found if not refuses(mutation.user)]
    if len(good) < len(found):
        raise BadEvent(REASON, "a fault of this release", good)
    return found


if __name__ == "__main__":
    from streams.cli import run
    from streams.messages import column_decoder

    def refuse(_value: bytes) -> None:
        """Let every message be decoded one by one."""
        raise DecodeError

    column_decoder.mutations = mutations
    column_decoder.DECODE = dict.fromkeys(events.DECODE, refuse)

    raise SystemExit(run(["worker"]))
