"""What the analyst publishes: types of the centrality, community and seeds topics, and their messages."""

from __future__ import annotations

import msgspec

from streams.messages.headers import CloudEvents, rfc3339
from streams.messages.outputs import Message

_encode = msgspec.json.Encoder().encode


class Centrality(msgspec.Struct, omit_defaults=True, gc=False):
    """Value of the centrality topic.

    Attributes:
        user: user id.
        pagerank: PageRank of follows; all live users together have 1.
        core: the largest k for which the user is in the k-core of follows, direction aside.
        followers, following: live follows.
        as_of: event time (RFC 3339).
        error_bound: the largest sum of absolute errors of `pagerank` over all users.
        interaction_pagerank: PageRank of interactions, sharer → creator.
        closeness: harmonic closeness, estimated from sampled sources; None if not computed yet.
        betweenness: betweenness, estimated; None if its interval is not known.
    """

    user: str
    pagerank: float
    core: int
    followers: int
    following: int
    as_of: str
    error_bound: float
    interaction_pagerank: float | None = None
    closeness: float | None = None
    betweenness: float | None = None


class Community(msgspec.Struct, gc=False):
    """Value of the community topic.

    Attributes:
        user: user id.
        community: id of the community, kept while it stays mostly itself.
        bridge: participation, 0 (all neighbours in the same community) to 1 (evenly over many).
        as_of: event time (RFC 3339).
    """

    user: str
    community: str
    bridge: float
    as_of: str


class Seeds(msgspec.Struct, omit_defaults=True, gc=False):
    """Value of the seeds topic.

    Attributes:
        list: name of the list.
        seeds: user ids, the one who adds most first.
        expected_reach: distinct people that they reach together.
        as_of: event time (RFC 3339).
        guarantee: lower bound of reach over the best possible, of lists with one.
        theta: number of sampled sets, of lists from samples.
    """

    list: str
    seeds: tuple[str, ...]
    expected_reach: float
    as_of: str
    guarantee: float | None = None
    theta: int | None = None


Value = Centrality | Community | Seeds
decode_centrality = msgspec.json.Decoder(Centrality).decode
decode_community = msgspec.json.Decoder(Community).decode
decode_seeds = msgspec.json.Decoder(Seeds).decode


def to_message(key: str, value: Value | None, origin: str, as_of: int, events: CloudEvents) -> Message:
    """Return the message of a value, or the tombstone of a key.

    Args:
        key: user id or name of the list.
        value: None for a tombstone.
        origin: the analyst's pass, the prefix of event ids.
        as_of: event time of the pass (µs).
        events: headers of the topic.
    """
    name, time = key.encode(), rfc3339(max(as_of, 0)).encode()
    headers = events.headers(f"{origin}/".encode() + name, time, empty=value is None)
    return Message(name, None if value is None else _encode(value), headers)
