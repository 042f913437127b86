"""The arrays that the compiled apply reads and writes, as nested NamedTuples.

A call that passes all of them takes longer than most functions here, so short functions are inlined.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphstate.storage.pair_tables import kernel
from graphstate.types import Int32s, Int64s, UInt8s

UInt64s = NDArray[np.uint64]

CHANGES, ROWS, FACTS, NOTES, OBSERVED, COUNTED, CONTENTS, COMMUNITIES = range(8)
"""Lists of `Output`, as indices of `ends`."""
NEW = 8
"""The number of new nodes of each type, three places of `ends`."""
APPLIED, EXPIRED, SHARES_EXPIRED, SHARES_BEYOND, CLOCK = range(11, 16)
"""Counts and the clock, as places of `ends`."""
ACTIVITY = 16
"""The list of credits in `Output`, as a place of `ends`."""
FACTS_APPLIED = 17
"""The number of facts of other shards that were applied, as a place of `ends`."""
ENDS = 18

SHARDS, SHARD, RETENTION, HORIZON, KEPT, BOUNDARY, NOTED_UNTIL, WATCHED = range(8)
"""Places of `Core.limits`; KEPT is 0 if no event expires. WATCHED: shares and creates are for Python."""
LIMITS = 8

ROW_WIDTH = 4
"""Numbers of a changed row: the section of the journal and its key; of a credit, also time and content."""
CLAIM_ROW, REPLIES_ROW, CREATED_ROW = 8, 9, 10
"""Rows of `edges` instead of sections: a claim (user and content, time, via), a reply (parent, child or shard), the
edge from another shard's content to its creator (content, creator, time)."""
LABEL_ROWS = 3
"""The place of the rows of labels in `EventArrays.rows`, after the types of nodes."""
FACT_WIDTH = 7
"""Numbers of a fact: receiving shard, kind, time, row of the user, row of the other node, row of the third, number."""


class UserArrays(NamedTuple):
    """Columns of `Users`."""

    last_event_at: Int64s
    last_share_at: Int64s
    forget_at: Int64s
    owned: UInt8s
    named: UInt8s
    hash: UInt64s
    counts: Int64s
    tops: Int32s
    rings: Int32s


class ContentArrays(NamedTuple):
    """Columns of `Contents`."""

    created_at: Int64s
    deleted_at: Int64s
    last_event_at: Int64s
    creator: Int32s
    reply: Int32s
    sharers: Int32s
    reach: Int32s
    reference_count: Int32s
    labels: Int32s
    owned: UInt8s
    hash: UInt64s


class CommunityArrays(NamedTuple):
    """Columns of `Communities`."""

    members: Int32s
    owned: UInt8s
    hash: UInt64s


class TableArrays(NamedTuple):
    """The arrays of `RegisterTables`."""

    follows: Int64s
    members: Int64s
    shares: Int64s
    pairs: Int64s
    used: Int64s
    credits: Int64s
    credit_ends: Int64s
    sharers: Int64s
    sharer_ends: Int64s
    heads: Int64s


class EventArrays(NamedTuple):
    """The events; `rows` holds the row of each id as user, content, community and labels, −1 if it has none yet."""

    kind: UInt8s
    time: Int64s
    user: Int32s
    other: Int32s
    extra: Int32s
    at: Int64s
    rows: Int32s
    hashes: UInt64s


class Output(NamedTuple):
    """What a call adds, list by list; `ends` holds the length of each.

    Attributes:
        ends: See `CHANGES` … `CLOCK`.
        changes: Edge changes for the windows, `[m, 5]`.
        rows: Changed rows, `[m, ROW_WIDTH]`.
        facts: Facts for other shards, `[m, FACT_WIDTH]`.
        notes: Contents named at a time before `NOTED_UNTIL`: (time, row).
        touched: Rows of observed users, counted users, contents, communities, `[4, m]`.
        stamps: For each of these and each row, the call that listed it last.
        stamp: The number of the call, `[1]`.
        spare: Rows for new nodes, `[3, m]`.
        fresh: Ids of new nodes, `[3, m]`.
        credits: Contents and credited shares of this shard's authors, as operations of `counter_kernels`, `[m, 8]`.
    """

    ends: Int64s
    changes: Int64s
    rows: Int64s
    facts: Int64s
    notes: Int64s
    touched: Int64s
    stamps: Int32s
    stamp: Int32s
    spare: Int64s
    fresh: Int64s
    credits: Int64s


class Core(NamedTuple):
    """All arrays of a call."""

    users: UserArrays
    contents: ContentArrays
    communities: CommunityArrays
    tables: TableArrays
    events: EventArrays
    out: Output
    limits: Int64s
    lq: Int64s
    label_uses: Int32s


@kernel(inline="always")
def touch(out: Output, which: int, row: int) -> None:
    """List a row once per call; `which` is OBSERVED, COUNTED, CONTENTS or COMMUNITIES."""
    place = which - OBSERVED
    if out.stamps[place, row] != out.stamp[0]:
        out.stamps[place, row] = out.stamp[0]
        out.touched[place, out.ends[which]] = row
        out.ends[which] += 1


@kernel(inline="always")
def change(out: Output, operation: int, relation: int, source: int, target: int, time: int) -> None:
    """List an edge change."""
    row = out.changes[out.ends[CHANGES]]
    row[0], row[1], row[2], row[3], row[4] = operation, relation, source, target, time
    out.ends[CHANGES] += 1


@kernel(inline="always")
def activity(out: Output, code: int, first: int, content: int, creator: int, time: int, created_at: int) -> None:
    """List a content (AUTHORED) or a credited share (CREDIT) of an author of this shard, for alerts."""
    row = out.credits[out.ends[ACTIVITY]]
    row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7] = (
        code, first, content, creator, 0, time, created_at, 1,
    )  # fmt: skip
    out.ends[ACTIVITY] += 1


@kernel(inline="always")
def put(out: Output, section: int, key: int, first: int = 0, second: int = 0) -> None:
    """List a changed row."""
    row = out.rows[out.ends[ROWS]]
    row[0], row[1], row[2], row[3] = section, key, first, second
    out.ends[ROWS] += 1


@kernel(inline="always")
def send(
    core: Core, hashed: int, kind: int, time: int, user: int, other: int = -1, extra: int = -1, at: int = 0
) -> None:
    """List a fact for the owner of a hash; rows that it lacks are −1."""
    row = core.out.facts[core.out.ends[FACTS]]
    row[0] = np.int64(np.uint64(hashed) % np.uint64(core.limits[SHARDS]))
    row[1], row[2], row[3], row[4], row[5], row[6] = kind, time, user, other, extra, at
    core.out.ends[FACTS] += 1
