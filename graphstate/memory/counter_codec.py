"""Counters as they are stored: nearly all of a user's are zero, so a value says which words are not, and those.

20 bytes: bit k says that word k is not zero. Then these words, in their order, 4 bytes each, little endian. The words
are 12 counts of two each, 5 ring tops, 128 ring slots.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graphstate.errors import DamagedError
from graphstate.memory.node_tables import COUNTS, RING_SLOTS, RINGS, Users
from graphstate.types import Int32s, Int64s

COUNT_WORDS, TOP_WORDS = 2 * COUNTS, len(RINGS)
WORDS = COUNT_WORDS + TOP_WORDS + RING_SLOTS
_MASK = (WORDS + 31) // 32
"""Words of 32 bits that say which of the others are there."""
_CHUNK = 8_192

UInt32s = NDArray[np.uint32]


@njit(cache=True, nogil=True)
def _packed(words: UInt32s, out: UInt32s, at: int) -> int:
    end = at + _MASK
    out[at:end] = 0
    for k in range(WORDS):
        if words[k]:
            out[at + k // 32] |= np.uint32(1) << np.uint32(k % 32)
            out[end] = words[k]
            end += 1
    return end


@njit(cache=True, nogil=True)
def _pack(rows: Int64s, counts: UInt32s, tops: UInt32s, rings: UInt32s, out: UInt32s, ends: Int64s) -> None:
    words = np.empty(WORDS, np.uint32)
    at = 0
    for i in range(len(rows)):
        row = rows[i]
        words[:COUNT_WORDS] = counts[row]
        words[COUNT_WORDS : COUNT_WORDS + TOP_WORDS] = tops[row]
        words[COUNT_WORDS + TOP_WORDS :] = rings[row]
        at = _packed(words, out, at)
        ends[i] = at


@njit(cache=True, nogil=True)
def _unpack(stored: UInt32s, ends: Int64s, words: UInt32s) -> int:
    """Rows that are whole; fewer than asked for if the next is not."""
    at = 0
    for i in range(len(ends)):
        value, end = at + _MASK, ends[i]
        if end < value:
            return i
        for k in range(WORDS):
            if stored[at + k // 32] >> np.uint32(k % 32) & np.uint32(1):
                if value == end:
                    return i
                words[i, k] = stored[value]
                value += 1
            else:
                words[i, k] = 0
        if value != end:
            return i
        at = end
    return len(ends)


def pack(users: Users, rows: Int64s) -> list[bytes]:
    """The `counters` values of some users."""
    out, ends = np.empty(len(rows) * (_MASK + WORDS), np.uint32), np.empty(len(rows), np.int64)
    _pack(rows, users.counts.view(np.uint32), users.tops.view(np.uint32), users.rings.view(np.uint32), out, ends)
    stops = (4 * ends).tolist()
    data = out[: ends[-1] if len(ends) else 0].tobytes()
    return [data[begin:end] for begin, end in zip([0, *stops], stops, strict=False)]


def unpack(values: list[bytes]) -> tuple[Int64s, Int32s, Int32s]:
    """Counts `[n, 12]`, ring tops `[n, 5]` and rings `[n, 128]` of some `counters` values.

    Raises:
        DamagedError: one is not what `pack` makes.
    """
    sizes = np.fromiter(map(len, values), np.int64, len(values))
    words = np.empty((len(values), WORDS), np.uint32)
    whole = 0 if np.any(sizes % 4) else _unpack(np.frombuffer(b"".join(values), "<u4"), sizes.cumsum() // 4, words)
    if whole != len(values):
        raise DamagedError("counters of a user cannot be read: restore or remove the state")
    counts, tops, rings = np.split(words, [COUNT_WORDS, COUNT_WORDS + TOP_WORDS], axis=1)
    return np.ascontiguousarray(counts).view(np.int64), tops.view(np.int32), rings.view(np.int32)


def restore(users: Users, stored: Iterable[tuple[int, bytes]]) -> Iterator[int]:
    """Take the `counters` values of users by row; gives how many it has taken, now and then."""
    stored, done = iter(stored), 0
    while some := list(islice(stored, _CHUNK)):
        rows, values = zip(*some, strict=True)
        at = np.array(rows)
        users.counts[at], users.tops[at], users.rings[at] = unpack(list(values))
        done += len(some)
        yield done
