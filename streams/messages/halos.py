"""Halos, the messages of the halos topic: the state of nodes that other shards mirror.

A halo carries its sender's fencing token: the log offset of the announcement with which the sender took over its shard.
Receivers ignore halos with a smaller token than they have seen, so a writer that was replaced changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from streams.errors import StateError
from streams.messages.packs.mutation_packs import Record

VERSION = 1
NODES = 1_500
"""Maximum nodes of one message; each is about 300 bytes with 64 hidden channels."""
WANTS = 10_000
"""Maximum wants of one message."""


class Node(Struct, array_like=True, gc=False):
    """The state of a node that its neighbours read.

    Attributes:
        kind: the node's type.
        node_id: the node's id.
        propagated: its propagated features, int32.
        hidden: the first layer's output, float32.
    """

    kind: int
    node_id: str
    propagated: bytes
    hidden: bytes


class Want(Struct, array_like=True, gc=False):
    """A node that the sender mirrors, and the digest of the state that the sender has of it."""

    kind: int
    node_id: str
    digest: bytes


class Halo(Struct, array_like=True, gc=False, omit_defaults=True):
    """One message of the halos topic.

    Attributes:
        version: the version of the format.
        sender: the sending shard.
        token: the sender's fencing token.
        model: the artifact that computed the hidden outputs.
        hello: the sender took over its shard and asks the others which of its nodes they mirror.
        full: `wants` begin the list of all nodes that the sender mirrors.
        drops: (type, id) of nodes that the sender no longer mirrors.
        wants: nodes that the sender mirrors, with the digests of their states.
        nodes: the states of nodes that the receiver mirrors.
        accepted_ms: Kafka's timestamp (ms) of the oldest event that led to this halo; 0 if none did.
        hops: 1 if that event changed the nodes directly (features), 2 if through another halo (first layer's outputs).
        sketch: the histogram behind percentiles.
        population: the sums of the sender's users that scores are relative to.
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
    population: bytes | None = None

    def split(self) -> Iterator[Halo]:
        """Split the halo into messages of limited size, in the order to send them."""
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
                self.population if first else None,
            )


def _parts(items: list, size: int) -> Iterator[list]:  # type: ignore[type-arg]
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Halo).decode


def decode(value: bytes) -> Halo:
    """Decode one message of the halos topic.

    Raises:
        StateError: the message is no halo, or has another version.
    """
    try:
        halo = _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateError(
            f"a message on the halos topic is no halo ({error}); only Groundswell may write to that topic"
        ) from error
    if halo.version != VERSION:
        raise StateError(
            f"a halo has version {halo.version}, this release reads {VERSION}: run the same release on all workers"
        )
    return halo


def cause(records: Sequence[Record], halos: Sequence[Halo]) -> tuple[int, int]:
    """Return the timestamp (ms) of the oldest event behind a step, and the hops of the halos that the step sends.

    There is no third hop: only the second layer reads the outputs that a second hop carries.

    Args:
        records: the records of the step.
        halos: the halos of the step.

    Returns:
        (accepted_ms, hops); accepted_ms is 0 if no event led to the step.
    """
    oldest_ms = min((record.accepted_ms for record in records if record.accepted_ms), default=0)
    if oldest_ms:
        return oldest_ms, 1
    return min((halo.accepted_ms for halo in halos if halo.accepted_ms and halo.hops == 1), default=0), 2
