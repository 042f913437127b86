"""A worker of a release with a fault: it refuses events that it should accept, as one that lags behind its producers.

python -m tests.support.faulty          instead of: groundswell worker
"""

from __future__ import annotations

import zlib

from graphstate.types import Mutation
from streams.errors import BadEvent
from streams.messages import events

REASON = "schema"
_right = events.mutations


def refuses(user: str) -> bool:
    """A third of the users, always the same."""
    return zlib.crc32(user.encode()) % 3 == 0


def mutations(value: bytes | None, topic: events.TopicKind, timestamp_ms: int) -> list[Mutation]:
    """As the right one, but with some users' events for bad; the others of an array are good as ever."""
    found = _right(value, topic, timestamp_ms)
    good = [mutation for mutation in found if not refuses(mutation.user)]
    if len(good) < len(found):
        raise BadEvent(REASON, "a fault of this release", good)
    return found


if __name__ == "__main__":
    events.mutations = mutations
    # Only now: what follows imports the function by its name.
    from streams.cli import run

    raise SystemExit(run(["worker"]))
