"""Compiled layers of the engine on the CPU: one call for a node type and a layer.

Arrays are passed by one table of their addresses: unboxing forty arrays takes longer than a step of one event. Rows are
processed in blocks, so that what one kernel of a block reads is still in the processor's cache for the next. The
kernels themselves are those of `cpu_attention` and `cpu_kernels`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from model.engine.cpu_attention import attend, attend_inputs, move, number, replace, split_changed
from model.engine.cpu_kernels import commit_moved, linear, linear64, score
from model.engine.simd import Size, pointer, size
from model.types import Float32s, Float64s, Int32s, Int64s

Kernel = Callable[..., Any]
KERNELS = 0x45C3CD99
"""Checksum of `simd.py`, `cpu_attention.py` and `cpu_kernels.py`, as `cpu_kernels.VECTOR`."""
BLOCK = 128
"""Rows that are processed together."""

# Numbers of the arrays in a table: some for the engine, some for each node type, some for each relation.
COMPUTED, PREVIOUS, NO_SLOTS, SCRATCH, ROOT_WEIGHT, ROOT_BIAS, HIDDEN2, SCORE, OWN, GAIN = range(10)
HEAD_WEIGHT, HEAD_BIAS, OUT_WEIGHT, OUT_CONSTANTS, SUMMANDS, PARTNERS, SKIP = range(10, 17)
_TYPES = 20
X, HIDDEN1, PROPAGATED, CHANGED, INPUT_ROOT_WEIGHT, INPUT_ROOT_BIAS = range(6)
_PER_TYPE = 8
_RELATIONS = _TYPES + 3 * _PER_TYPE
START, COUNTS, SOURCE = range(3)
INPUT_PROJECT, INPUT_PROJECT_BIAS, INPUT_TARGET, INPUT_TARGET_BIAS, INPUT_ATTENTION = range(3, 8)
PROJECT, PROJECT_BIAS, TARGET, TARGET_BIAS, ATTENTION, PROJECTED, BEFORE, SLOT, SUMS, USED = range(8, 18)
_PER_RELATION = 18

BASE, NEXT, REUSES, STAGED, MOVED, FAILED = range(6)
"""Places of the state: numbers of changes (see `AttentionCache`), whether sums are reused, the maximum of staged
changes, and the targets whose sums were updated, or had to be recomputed after all, so far."""


class ArrayTable:
    """Address and shape of arrays by number; it holds the arrays, so that no address is that of freed memory.

    Args:
        relations: Number of relations.
    """

    def __init__(self, relations: int) -> None:
        self.table = np.zeros((_RELATIONS + relations * _PER_RELATION, 3), np.int64)
        self._held: dict[int, NDArray[Any]] = {}

    def put(self, at: int, array: NDArray[Any], dtype: type) -> None:
        """Set an array of one or two dimensions.

        Raises:
            TypeError: The array is not contiguous or has another type than compiled code reads.
        """
        if array.dtype != dtype or not array.flags.c_contiguous:
            raise TypeError(f"array {at} of the engine is {array.dtype}, contiguous {dtype.__name__} is needed")
        self._held[at] = array
        self.table[at] = array.ctypes.data, len(array), array.shape[1] if array.ndim > 1 else 1


@njit(cache=True, nogil=True)
def of_type(kind: int, name: int) -> int:
    """Return the number of a node type's array."""
    return _TYPES + kind * _PER_TYPE + name


@njit(cache=True, nogil=True)
def of_relation(relation: int, name: int) -> int:
    """Return the number of a relation's array."""
    return _RELATIONS + relation * _PER_RELATION + name


@njit(cache=True, nogil=True)
def _int32s(table: Int64s, at: int) -> Int32s:
    return carray(pointer(table[at, 0]), (table[at, 1],), np.int32)


@njit(cache=True, nogil=True)
def _int32_rows(table: Int64s, at: int) -> Int32s:
    return carray(pointer(table[at, 0]), (table[at, 1], table[at, 2]), np.int32)


@njit(cache=True, nogil=True)
def _int64s(table: Int64s, at: int) -> Int64s:
    return carray(pointer(table[at, 0]), (table[at, 1],), np.int64)


@njit(cache=True, nogil=True)
def _floats(table: Int64s, at: int) -> Float32s:
    return carray(pointer(table[at, 0]), (table[at, 1],), np.float32)


@njit(cache=True, nogil=True)
def _float_rows(table: Int64s, at: int) -> Float32s:
    return carray(pointer(table[at, 0]), (table[at, 1], table[at, 2]), np.float32)


@njit(cache=True, nogil=True)
def _doubles(table: Int64s, at: int) -> Float64s:
    return carray(pointer(table[at, 0]), (table[at, 1],), np.float64)


@njit(cache=True, nogil=True)
def _double_rows(table: Int64s, at: int) -> Float64s:
    return carray(pointer(table[at, 0]), (table[at, 1], table[at, 2]), np.float64)


@njit(cache=True, nogil=True)
def _any(rows: Int64s, counts: Int32s) -> bool:
    """Return whether any of these windows holds an edge."""
    for row in rows:  # noqa: SIM110 - compiled code has no `any`
        if counts[row]:
            return True
    return False


@njit(cache=True, nogil=True)
def _project(wide: Size, table: Int64s, state: Int64s, kind: int, reading: Int64s, rows: Int64s) -> None:
    """Project the first-layer outputs of these rows for the relations `reading` them, and number their changes."""
    if not len(reading) or not len(rows):
        return
    changed, hidden = _int64s(table, of_type(kind, CHANGED)), _float_rows(table, of_type(kind, HIDDEN1))
    if state[NEXT] + len(rows) - state[BASE] > state[STAGED]:
        state[REUSES] = 0
    if state[REUSES]:
        first = state[NEXT]
        state[NEXT] = number(rows, changed, state[BASE], first, _int64s(table, PREVIOUS))
    else:
        # Numbers below the base: previous projections are not copied.
        first = state[NEXT] + 1
        state[BASE] = state[NEXT] = first
        for row in rows:
            changed[row] = first - 1
    for relation in reading:
        replace(
            wide, hidden, rows, _float_rows(table, of_relation(relation, PROJECT)),
            _floats(table, of_relation(relation, PROJECT_BIAS)), _float_rows(table, of_relation(relation, PROJECTED)),
            changed, state[BASE], first, _float_rows(table, of_relation(relation, BEFORE)),
        )  # fmt: skip


@njit(cache=True, nogil=True)
def invalidate(table: Int64s, rows: Int64s) -> None:
    """Mark targets whose own input or window changed: they are recomputed in full."""
    computed = _int64s(table, COMPUTED)
    for row in rows:
        computed[row] = -1


@njit(cache=True, nogil=True)
def load(table: Int64s, kind: int, rows: Int64s, scale: float) -> None:
    """Load and scale the propagated features of these rows."""
    x, propagated = _float_rows(table, of_type(kind, X)), _int32_rows(table, of_type(kind, PROPAGATED))
    for row in rows:
        for k in range(x.shape[1]):
            x[row, k] = np.float32(propagated[row, k] * scale)


@lru_cache
def project(width: int) -> Kernel:
    """Return the kernel that projects rows whose first-layer output was replaced.

    Arguments: table, state, node type, the relations that read it, rows, whether the type is that of the targets, and
    whether the outputs are first set to 0.
    """
    wide = size(width)

    @njit(cache=True, nogil=True)
    def run(table: Int64s, state: Int64s, kind: int, reading: Int64s, rows: Int64s, targets: bool, reset: bool) -> None:
        if reset:
            hidden = _float_rows(table, of_type(kind, HIDDEN1))
            for row in rows:
                hidden[row] = 0
        if targets:
            invalidate(table, rows)
        _project(wide, table, state, kind, reading, rows)

    return run


@lru_cache
def layer1(heads: int, channels: int) -> Kernel:
    """Return the kernel of the first layer of one node type.

    Arguments: table, state, node type, relations into it with the node types of their sources `[k, 2]`, the relations
    that read it, rows, whether the type is that of the targets of the second layer, tolerance, and `changed`, which
    receives the rows that moved by more than the tolerance. It returns their number.
    """
    heads_, channels_, wide, width = size(heads), size(channels), size(heads * channels), heads * channels

    @njit(cache=True, nogil=True)
    def run(
        table: Int64s, state: Int64s, kind: int, into: Int64s, reading: Int64s, rows: Int64s, targets: bool,
        tolerance: float, changed: Int64s,
    ) -> int:  # fmt: skip
        n, buffer = 0, np.empty((min(len(rows), BLOCK), width), np.float32)
        x, hidden = _float_rows(table, of_type(kind, X)), _float_rows(table, of_type(kind, HIDDEN1))
        root = _double_rows(table, of_type(kind, INPUT_ROOT_WEIGHT))
        root_bias = _doubles(table, of_type(kind, INPUT_ROOT_BIAS))
        for begin in range(0, len(rows), BLOCK):
            some = rows[begin : begin + BLOCK]
            new = buffer[: len(some)]
            linear64(wide, x, some, root, root_bias, new)
            for k in range(len(into)):
                relation, source = into[k, 0], into[k, 1]
                counts = _int32s(table, of_relation(relation, COUNTS))
                if _any(some, counts):
                    attend_inputs(
                        heads_, channels_, wide, some, _int32s(table, of_relation(relation, START)), counts,
                        _int32s(table, of_relation(relation, SOURCE)), _float_rows(table, of_type(source, X)),
                        _double_rows(table, of_relation(relation, INPUT_PROJECT)),
                        _doubles(table, of_relation(relation, INPUT_PROJECT_BIAS)), x,
                        _double_rows(table, of_relation(relation, INPUT_TARGET)),
                        _doubles(table, of_relation(relation, INPUT_TARGET_BIAS)),
                        _floats(table, of_relation(relation, INPUT_ATTENTION)), new,
                    )  # fmt: skip
            n += commit_moved(wide, some, new, hidden, np.float32(tolerance), changed[n:])
        if targets:
            invalidate(table, rows)
        _project(wide, table, state, kind, reading, changed[:n])
        return n

    return run


@lru_cache
def layer2(heads: int, channels: int) -> Kernel:
    """Return the kernel of the second layer of distinct targets.

    Arguments: table, state, node type of the targets, relations into it, rows, the number of rows from which on sums
    are updated rather than recomputed, the window, and `changed`, which receives the rows whose embedding changed. It
    returns their number.
    """
    heads_, channels_, wide, width = size(heads), size(channels), size(heads * channels), heads * channels

    @njit(cache=True, nogil=True)
    def run(
        table: Int64s, state: Int64s, kind: int, into: Int64s, rows: Int64s, few: int, window: int, changed: Int64s
    ) -> int:
        n, reuses, base, most = 0, bool(state[REUSES]), state[BASE], min(len(rows), BLOCK)
        updates = reuses and len(rows) >= few
        buffer, everything = np.empty((most, width), np.float32), np.arange(most)
        new_of = np.empty(most * (window // 2 + 1) + window if updates else 0, np.int32)
        old_of, whole = np.empty_like(new_of), np.empty(most, np.int64)
        moved, ends = np.empty(most, np.int64), np.empty(most, np.int64)
        x, hidden = _float_rows(table, of_type(kind, HIDDEN1)), _float_rows(table, HIDDEN2)
        computed = _int64s(table, COMPUTED)
        for begin in range(0, len(rows), BLOCK):
            some = rows[begin : begin + BLOCK]
            new = buffer[: len(some)]
            linear(wide, x, some, _float_rows(table, ROOT_WEIGHT), _floats(table, ROOT_BIAS), new)
            for k in range(len(into)):
                relation, source = into[k, 0], into[k, 1]
                start = _int32s(table, of_relation(relation, START))
                counts = _int32s(table, of_relation(relation, COUNTS))
                if not _any(some, counts):
                    continue
                sources = _int32s(table, of_relation(relation, SOURCE))
                projected = _float_rows(table, of_relation(relation, PROJECTED))
                target = _float_rows(table, of_relation(relation, TARGET))
                bias = _floats(table, of_relation(relation, TARGET_BIAS))
                attention = _floats(table, of_relation(relation, ATTENTION))
                slot, sums = _int32s(table, NO_SLOTS), _double_rows(table, SCRATCH)
                if reuses:
                    slot = _int32s(table, of_relation(relation, SLOT))
                    sums = _double_rows(table, of_relation(relation, SUMS))
                which = everything[: len(some)]
                if updates:
                    n_whole, n_moved = split_changed(
                        some, start, counts, sources, _int64s(table, of_type(source, CHANGED)), computed, base,
                        _int64s(table, PREVIOUS), slot, new_of, old_of, ends, whole, moved,
                    )  # fmt: skip
                    n_failed = move(
                        heads_, channels_, wide, some, moved[:n_moved], new_of, old_of, ends, projected,
                        _float_rows(table, of_relation(relation, BEFORE)), x, target, bias, attention, slot, sums, new,
                        whole[n_whole:], window,
                    )  # fmt: skip
                    state[MOVED] += n_moved
                    state[FAILED] += n_failed
                    which = whole[: n_whole + n_failed]
                attend(
                    heads_, channels_, wide, some, which, start, counts, sources, projected, x, target, bias, attention,
                    slot, _int64s(table, of_relation(relation, USED)), sums, new,
                )  # fmt: skip
            n += commit_moved(wide, some, new, hidden, np.float32(0), changed[n:])
            for row in some:
                computed[row] = state[NEXT] if reuses else -1
        # The previous projections are no longer needed.
        state[BASE], state[REUSES] = state[NEXT], window > 0
        return n

    return run


@lru_cache
def head(hidden: int) -> Kernel:
    """Return the kernel (table, rows) of the head, `hidden` wide."""
    hidden_ = size(hidden)

    @njit(cache=True, nogil=True)
    def run(table: Int64s, rows: Int64s) -> None:
        score(
            hidden_, rows, _float_rows(table, HIDDEN2), _int32_rows(table, OWN), _floats(table, GAIN),
            _float_rows(table, SUMMANDS), _int64s(table, PARTNERS), _float_rows(table, HEAD_WEIGHT),
            _floats(table, HEAD_BIAS), _floats(table, OUT_WEIGHT), _doubles(table, SKIP), _floats(table, OUT_CONSTANTS),
            _floats(table, SCORE),
        )  # fmt: skip

    return run
