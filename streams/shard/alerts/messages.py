"""The messages by which the shards of a graph judge a boundary together; they travel in the log as facts.

passed      all events before a boundary are read, and all that follows from them is sent
counts      how many authors have how many shares, so that every shard computes the same thresholds
candidates  the best candidates of the shard, so that every shard picks the same users
sharers     figures of the shard's users among the new sharers of the picked users, so that the alert names those
            with the largest reach
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from msgspec import Struct

from graphstate.types import Fact, Mutation

PASSED, COUNTS, CANDIDATES, SHARERS = "passed", "counts", "candidates", "sharers"
OF_RULE = "@"
"""Between the stage of a message and what identifies the rule of its sender."""
SHIPPED, COUNTER = "shipped", "counter"
"""Rules that are judged: the shipped one, and a plain decayed counter with the same budget, which publishes nothing."""


class ShardCounts(Struct, array_like=True):
    """Number of authors of a shard by shares.

    Attributes:
        levels: Number of known authors by shares before the window.
        recents: Number of authors by shares within the window, without 0.
        idle_until: First boundary (µs) at which the shard may have something to judge if it has no share in a window.
    """

    levels: dict[int, int]
    recents: dict[int, int]
    idle_until: int


class Candidate(NamedTuple):
    """A user that a rule may pick, in the order of preference.

    Attributes:
        velocity: Decayed shares, in units of 1/256; the largest first.
        level: Shares before the window; the fewest first.
        hash: Hash of the user's id.
        row: Row of the user in its shard.
        new_sharers: Number of users who shared the user for the first time within the window.
        sharers: Hashes of the earliest of them, for the shipped rule.
        scope: Number of the scope whose budget it may use; one user may be a candidate of several.
    """

    velocity: int
    level: int
    hash: int
    row: int
    new_sharers: int
    sharers: tuple[int, ...] = ()
    scope: int = 0

    def order(self) -> tuple[int, int, int]:
        """Return the sort key: the best candidate first."""
        return -self.velocity, self.level, self.hash


ShardCandidates = dict[str, list[Candidate]]
"""Best candidates of a shard by rule; of each scope as many as all budgets up to its own, because later scopes leave
out users that an earlier one picks."""


class SharerFigures(NamedTuple):
    """Figures of a new sharer, from its owner.

    Attributes:
        hash: Hash of the user's id.
        received: Shares received before the boundary.
        posts: Contents created before the boundary.
    """

    hash: int
    received: int
    posts: int


_encode = msgspec.json.Encoder().encode
_decode_counts = msgspec.json.Decoder(ShardCounts).decode
_decode_sharers = msgspec.json.Decoder(list[SharerFigures]).decode
_decode_candidates = msgspec.json.Decoder(ShardCandidates).decode


def passed(boundary: int, shard: int) -> Mutation:
    """Return the message that a shard has passed a boundary (µs)."""
    return Mutation(Fact.JUDGEMENT, boundary, "", PASSED, None, shard)


def counts(boundary: int, shard: int, rule: str, value: ShardCounts) -> Mutation:
    """Return the message of a shard's counts at a boundary (µs)."""
    return Mutation(Fact.JUDGEMENT, boundary, "", COUNTS + OF_RULE + rule, _encode(value).decode(), shard)


def candidates(boundary: int, shard: int, rule: str, value: ShardCandidates) -> Mutation:
    """Return the message of a shard's candidates at a boundary (µs)."""
    return Mutation(Fact.JUDGEMENT, boundary, "", CANDIDATES + OF_RULE + rule, _encode(value).decode(), shard)


def sharers(boundary: int, shard: int, rule: str, value: list[SharerFigures]) -> Mutation:
    """Return the message of a shard's figures of new sharers at a boundary (µs)."""
    return Mutation(Fact.JUDGEMENT, boundary, "", SHARERS + OF_RULE + rule, _encode(value).decode(), shard)


def read_counts(text: str | None) -> ShardCounts:
    """Decode the content of a message of counts."""
    return _decode_counts(text or "")


def read_candidates(text: str | None) -> ShardCandidates:
    """Decode the content of a message of candidates."""
    return _decode_candidates(text or "")


def read_sharers(text: str | None) -> list[SharerFigures]:
    """Decode the content of a message of sharers."""
    return _decode_sharers(text or "")
