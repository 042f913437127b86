"""Compiled removal of the shares of an evicted content: their registers, credits and edges."""

from __future__ import annotations

from typing import NamedTuple

from graphstate.memory.windows import REMOVE
from graphstate.storage import chains
from graphstate.storage import register_tables as registers
from graphstate.storage.pair_tables import find, kernel, pair_key, remove
from graphstate.storage.row_layouts import NEVER
from graphstate.types import SHARED, Int64s, UInt8s

RARE = -1
"""Python code must remove the shares: claims or unshares exist, or a forget covers an interaction."""
_KEPT_LATEST, _KEPT_FIRST = 3, 4


class EvictedContent(NamedTuple):
    """The content: its row, those of its create (`NEVER` and −1 if unknown), and the time up to which shares count."""

    row: int
    created_at: int
    creator: int
    until: int


class RegisterArrays(NamedTuple):
    """The arrays of the registers and of the users that the removal reads and changes."""

    shares: Int64s
    pairs: Int64s
    credits: Int64s
    credit_ends: Int64s
    sharers: Int64s
    sharer_ends: Int64s
    heads: Int64s
    used: Int64s
    forget_at: Int64s
    owned: UInt8s


class Removed(NamedTuple):
    """What the removal lists: edge changes `[n, 5]`, credits `[n, 3]` and keys of pairs `[n]` and of shares `[n]`."""

    changes: Int64s
    credits: Int64s
    pairs: Int64s
    shares: Int64s


@kernel()
def list_shares(arrays: RegisterArrays, content: EvictedContent, out: Int64s) -> int:
    """Write the time and the user of each share to `out[n, 2]`; return how many there are, or `RARE`.

    If there are more than `out` has room for, only the first are written.
    """
    entry, n = arrays.heads[content.row], 0
    kept = content.creator >= 0 and arrays.owned[content.creator] != 0
    if kept and content.created_at <= arrays.forget_at[content.creator]:
        return RARE
    while entry >= 0:
        user = arrays.sharers[entry, 0]
        place = find(arrays.shares, pair_key(user, content.row))
        if place < 0 or arrays.shares[place, 2] & (registers.MORE | registers.UNSHARED):
            return RARE
        time = arrays.shares[place, 1]
        if kept and time <= arrays.forget_at[user]:
            return RARE
        if n < len(out):
            out[n, 0], out[n, 1] = time, user
        n += 1
        entry = arrays.sharers[entry, -1]
    return n


@kernel()
def remove_shares(
    arrays: RegisterArrays, content: EvictedContent, listed: Int64s, out: Removed
) -> tuple[int, int, int]:
    """Remove the listed shares, all that the content has; return the number of changes, of credits and of pairs."""
    n, kept, tied = 0, 0, 0
    pairs = arrays.pairs
    credited = content.creator >= 0 and arrays.owned[content.creator] != 0
    for i in range(len(listed)):
        time, user = listed[i, 0], listed[i, 1]
        key = pair_key(user, content.row)
        out.shares[i] = key
        remove(arrays.shares, find(arrays.shares, key))
        if time > content.until:
            continue
        change = out.changes[n]
        change[0], change[1], change[2], change[3], change[4] = REMOVE, SHARED, user, content.row, 0
        n += 1
        if not credited:
            continue
        pair = pair_key(user, content.creator)
        out.credits[kept, 0], out.credits[kept, 1], out.credits[kept, 2] = pair, time, content.row << 1
        kept += 1
        place = find(pairs, pair)
        if place < 0:
            continue
        out.pairs[tied] = pair
        tied += 1
        head = pairs[place, registers.HEAD]
        pairs[place, registers.HEAD] = chains.unlink(arrays.credits, arrays.credit_ends, head, time, content.row)
        pairs[place, _KEPT_LATEST] = max(pairs[place, _KEPT_LATEST], time)
        first = pairs[place, _KEPT_FIRST]
        pairs[place, _KEPT_FIRST] = time if first == NEVER else min(first, time)
    arrays.used[registers.SHARES] -= len(listed)
    chains.free_all(arrays.sharers, arrays.sharer_ends, arrays.heads[content.row])
    arrays.heads[content.row] = -1
    return n, kept, tied
