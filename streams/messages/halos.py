"""The message of the halos topic: what one shard tells another about nodes that the other mirrors.

A halo carries its sender's token, the log offset of the hello with which the sender took its shard over: the
greater wins, so what a writer that was presumed dead still sends does no harm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from streams.errors import StateError
from streams.messages.log_records import Record

VERSION = 1
NODES = 1_500
"""Nodes in one message; each is about 300 bytes at hidden 64."""
WANTS = 10_000


class Node(Struct, array_like=True, gc=False):
    """What a node's readers read: propagated features (int32) and the first layer's output (float32)."""

    kind: int
    node_id: str
    propagated: bytes
    hidden: bytes


class Want(Struct, array_like=True, gc=False):
    """A node that the sender mirrors, and the digest of what it has of it."""

    kind: int
    node_id: str
    digest: bytes


class Halo(Struct, array_like=True, gc=False, omit_defaults=True):
    """One message.

    sender, token: the shard and its fence. model: the artifact that the hidden outputs are of. hello: the sender
    took its shard over and asks what is mirrored of it. full: wants begin the list of all that the sender mirrors.
    drops: (type, id) that it mirrors no more. accepted_ms: Kafka's time of the oldest event that led to this, 0 if
    none; hops: 1 where it led here at once (features), 2 through another halo (outputs of the first layer).
    sketch: the counts behind percentiles.
    """

    version: int
    sender: int
    token: int
    model: str
    hello: bool = False
    full: bool = False
    drops: list[tuple[int, str]] = []
    wants: list[Want] = []
    nodes: list[Node] = []
    accepted_ms: int = 0
    hops: int = 1
    sketch: bytes | None = None

    def split(self) -> Iterator[Halo]:
        """The same as messages of limited size, to be sent in this order."""
        nodes, wants = list(_parts(self.nodes, NODES)), list(_parts(self.wants, WANTS))
        for part in range(max(len(nodes), len(wants), 1)):
            first = part == 0
            yield Halo(
                self.version,
                self.sender,
                self.token,
                self.model,
                self.hello and first,
                self.full and first,
                self.drops if first else [],
                wants[part] if part < len(wants) else [],
                nodes[part] if part < len(nodes) else [],
                self.accepted_ms,
                self.hops,
                self.sketch if first else None,
            )


def _parts(items: list, size: int) -> Iterator[list]:  # type: ignore[type-arg]
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Halo).decode


def decode(value: bytes) -> Halo:
    """The halo of one message of the halos topic.

    Raises:
        StateError: it is none of ours, or of a later version.
    """
    try:
        halo = _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateError(
            f"a message that is no halo on the halos topic ({error}); nothing but Groundswell may write to it"
        ) from error
    if halo.version != VERSION:
        raise StateError(f"a halo of version {halo.version}, this is {VERSION}: run one release on all workers")
    return halo


def cause(records: Sequence[Record], halos: Sequence[Halo]) -> tuple[int, int]:
    """Kafka's time (ms) of the oldest event behind a step, and over how many hops it leads to others; 0 if none.

    A third hop there is not: what the second brings is read by the second layer alone.
    """
    here = min((record.accepted_ms for record in records if record.accepted_ms), default=0)
    if here:
        return here, 1
    return min((halo.accepted_ms for halo in halos if halo.accepted_ms and halo.hops == 1), default=0), 2
