"""The `counters` value of a user: its registers, then the counters that are not zero.

The registers are three times of 8 bytes. Then comes a mask of 20 bytes, bit k is set if word k is not zero, and these
words in order, 4 bytes each, little endian. The words are 12 counts of two words each, 5 ring tops, 128 ring slots.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graphstate.errors import DamagedError
from graphstate.memory.node_tables import COUNTS, RING_SLOTS, RINGS, Users
from graphstate.storage.pair_tables import kernel
from graphstate.types import Int32s, Int64s

COUNT_WORDS, TOP_WORDS = 2 * COUNTS, len(RINGS)
WORDS = COUNT_WORDS + TOP_WORDS + RING_SLOTS
_MASK = (WORDS + 31) // 32
"""Words of the mask."""
_CHUNK = 8_192
_TIMES = 3
_HEAD = 2 * _TIMES
"""Words of the registers."""
_LOW = 0xFFFFFFFF

UInt32s = NDArray[np.uint32]


@kernel(inline="always")
def _put(word: int, k: int, out: UInt32s, begin: int, end: int) -> int:
    """Write word k if it is not zero; return where the next one goes."""
    if word:
        out[begin + k // 32] |= np.uint32(1) << np.uint32(k % 32)
        out[end] = word
        end += 1
    return end


@kernel()
def _pack(
    rows: Int64s, times: tuple[Int64s, Int64s, Int64s], counts: UInt32s, tops: UInt32s, rings: UInt32s, out: UInt32s,
    ends: Int64s,
) -> None:  # fmt: skip
    end = 0
    for i in range(len(rows)):
        row = rows[i]
        for column in times:
            out[end] = np.uint32(column[row] & _LOW)
            out[end + 1] = np.uint32(column[row] >> 32 & _LOW)
            end += 2
        begin, end = end, end + _MASK
        out[begin:end] = 0
        for k in range(COUNT_WORDS):
            end = _put(counts[row, k], k, out, begin, end)
        for k in range(TOP_WORDS):
            end = _put(tops[row, k], COUNT_WORDS + k, out, begin, end)
        for k in range(RING_SLOTS):
            end = _put(rings[row, k], COUNT_WORDS + TOP_WORDS + k, out, begin, end)
        ends[i] = end


@njit(cache=True, nogil=True)
def _unpack(stored: UInt32s, ends: Int64s, times: UInt32s, words: UInt32s) -> int:
    """Unpack values and return how many, fewer than all if one is damaged."""
    begin = 0
    for i in range(len(ends)):
        value, end = begin + _HEAD + _MASK, ends[i]
        if end < value:
            return i
        times[i] = stored[begin : begin + _HEAD]
        begin += _HEAD
        for k in range(WORDS):
            if stored[begin + k // 32] >> np.uint32(k % 32) & np.uint32(1):
                if value == end:
                    return i
                words[i, k] = stored[value]
                value += 1
            else:
                words[i, k] = 0
        if value != end:
            return i
        begin = end
    return len(ends)


def pack(users: Users, rows: Int64s) -> list[bytes]:
    """Return the `counters` values of users."""
    out, ends = np.empty(len(rows) * (_HEAD + _MASK + WORDS), np.uint32), np.empty(len(rows), np.int64)
    _pack(
        rows, (users.last_event_at, users.last_share_at, users.forget_at), users.counts.view(np.uint32),
        users.tops.view(np.uint32), users.rings.view(np.uint32), out, ends,
    )  # fmt: skip
    stops = (4 * ends).tolist()
    data = out[: ends[-1] if len(ends) else 0].tobytes()
    return [data[begin:end] for begin, end in zip([0, *stops], stops, strict=False)]


def unpack(values: list[bytes]) -> tuple[Int64s, Int64s, Int32s, Int32s]:
    """Return registers `[n, 3]`, counts `[n, 12]`, ring tops `[n, 5]` and rings `[n, 128]` of `counters` values.

    Raises:
        DamagedError: A value has another length than its mask.
    """
    sizes = np.fromiter(map(len, values), np.int64, len(values))
    times, words = np.empty((len(values), _HEAD), np.uint32), np.empty((len(values), WORDS), np.uint32)
    stored = np.frombuffer(bytearray(b"".join(values)), "<u4") if not np.any(sizes % 4) else times.reshape(-1)
    unpacked = 0 if np.any(sizes % 4) else _unpack(stored, sizes.cumsum() // 4, times, words)
    if unpacked != len(values):
        raise DamagedError("counters of a user cannot be read: restore or remove the state")
    counts, tops, rings = np.split(words, [COUNT_WORDS, COUNT_WORDS + TOP_WORDS], axis=1)
    return times.view(np.int64), np.ascontiguousarray(counts).view(np.int64), tops.view(np.int32), rings.view(np.int32)


def restore(users: Users, stored: Iterable[tuple[int, bytes]]) -> Iterator[int]:
    """Load the `counters` values of users by row; yields the number of loaded values after each chunk."""
    stored, done = iter(stored), 0
    while chunk := list(islice(stored, _CHUNK)):
        numbers, values = zip(*chunk, strict=True)
        rows = np.array(numbers)
        times, users.counts[rows], users.tops[rows], users.rings[rows] = unpack(list(values))
        users.last_event_at[rows], users.last_share_at[rows], users.forget_at[rows] = times.T
        done += len(chunk)
        yield done
