"""A hash index over the int64 keys of records, compiled: open addressing with linear probing.

An index is an int32 array whose length is a power of two; a slot holds 0 (empty) or the number of a record plus one.
The keys lie in an array of the caller, by record. The caller keeps at least half of the slots empty.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

MISSING = -1
_MIX = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)


@njit(cache=True, nogil=True)
def pair_key(first: int, second: int) -> int:
    """Return the key of a pair of row numbers."""
    return int((np.int64(first) << 32) | np.int64(second))


@njit(cache=True, nogil=True)
def _slot(key: int, mask: int) -> int:
    mixed = np.uint64(key) * _MIX
    return int(np.int64((mixed ^ (mixed >> _SHIFT)) >> np.uint64(8)) & mask)


@njit(cache=True, nogil=True)
def find(index: NDArray[Any], keys: NDArray[Any], key: int) -> int:
    """Return the record of a key, or `MISSING`."""
    mask = len(index) - 1
    slot = _slot(key, mask)
    while index[slot]:
        if keys[index[slot] - 1] == key:
            return int(index[slot] - 1)
        slot = (slot + 1) & mask
    return MISSING


@njit(cache=True, nogil=True)
def enter(index: NDArray[Any], keys: NDArray[Any], record: int) -> None:
    """Add a record whose key is not in the index."""
    mask = len(index) - 1
    slot = _slot(keys[record], mask)
    while index[slot]:
        slot = (slot + 1) & mask
    index[slot] = record + 1


@njit(cache=True, nogil=True)
def erase(index: NDArray[Any], keys: NDArray[Any], record: int) -> None:
    """Remove a record, and close the gap so that no probe ends too early."""
    mask = len(index) - 1
    gap = _slot(keys[record], mask)
    while index[gap] != record + 1:
        gap = (gap + 1) & mask
    slot = gap
    while True:
        slot = (slot + 1) & mask
        if index[slot] == 0:
            break
        home = _slot(keys[index[slot] - 1], mask)
        # A record may move into the gap unless its home lies between the gap and its slot.
        if ((slot - home) & mask) >= ((slot - gap) & mask):
            index[gap] = index[slot]
            gap = slot
    index[gap] = 0


@njit(cache=True, nogil=True)
def rebuild(index: NDArray[Any], keys: NDArray[Any], records: int) -> None:
    """Add the first records to an empty index; a negative key marks a record that is not used."""
    for record in range(records):
        if keys[record] >= 0:
            enter(index, keys, record)
