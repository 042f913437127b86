"""The compiled kernels of attention, made for one shape of heads each.

What is summed over a window is summed exactly (decision 0020): in whatever order it holds its sources, and whether all
are summed up or what some of them were worth is taken away and what they are worth now is added. All arrays are
contiguous.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.types import Float32s, Float64s, Int32s, Int64s
from model.vector import AHEAD, GRAIN, LANES, affine, affine64, exp, gather, logits, prefetch, share

Kernel = Callable[..., Any]
VECTOR = 0xBB088F8A
"""The checksum of `vector.py`, as in `kernels.py`."""
_F = np.float32
_ROOM = 64
"""Neighbours for which there is room from the beginning."""
_TARGETS = 32
"""Targets whose own projections are computed together."""


@njit(cache=True, nogil=True)
def _top(logit: np.float32) -> np.float32:
    """What exponentials are taken relative to, where this logit is the largest: at most 4 above it, and on a grid, so
    that it seldom moves.
    """
    return _F(np.ceil((logit - _F(2)) * _F(0.25)) * _F(4) + _F(2))


@njit(cache=True, nogil=True)
def _most(line: Float32s, at: int, n: int) -> np.float32:
    """The `_top` of the n logits from `at` on."""
    most = line[at]
    for k in range(at + 1, at + n):
        most = max(most, line[k])
    return _top(most)


@njit(cache=True, nogil=True)
def _weights(line: Float32s, at: int, n: int, top: np.float32) -> float:
    """Turn the n logits from `at` on into exponentials; there is room for whole lanes behind them. Returns their sum.

    Each is rounded to what `gather` rounds to, so that their order does not matter.
    """
    lanes = (n + LANES - 1) // LANES * LANES
    for k in range(at + n, at + lanes):
        line[k] = top
    for block in range(at, at + lanes, LANES):
        exp(line, block, top, LANES)
    total = 0.0
    for k in range(at, at + n):
        total += (np.float64(line[k]) + GRAIN) - GRAIN
    return total


@njit(cache=True, nogil=True)
def _filled(rows: Int64s, which: Int64s, count: Int32s, begin: int, some: Int64s) -> tuple[int, int]:
    """List those of the places in rows, `which` from begin on, whose window is not empty; how many, and the end."""
    n, i = 0, begin
    while i < len(which) and n < len(some):
        if i + AHEAD < len(which):
            prefetch(count, rows[which[i + AHEAD]])
        if count[rows[which[i]]] > 0:
            some[n] = which[i]
            n += 1
        i += 1
    return n, i


@njit(cache=True, nogil=True)
def _after(rows: Int64s, some: Int64s, j: int, start: Int32s, count: Int32s) -> tuple[int, int]:
    """Where the window of target j begins, and how many of its sources are asked for; none where there is no j."""
    if j >= len(some):
        return 0, 0
    row = rows[some[j]]
    return int(start[row]), min(int(count[row]), _ROOM)


@njit(cache=True, nogil=True)
def _ask(x: NDArray[Any], at: int, numbers: int) -> None:
    """Have some numbers of a flat array brought."""
    for line in range(at, at + numbers, 64 // x.itemsize):
        prefetch(x, line)


@njit(cache=True, nogil=True)
def _fetch(source: Int32s, begin: int, end: int, x: Float32s, width: int) -> None:
    """Have the rows of some of the next target's sources brought."""
    for k in range(begin, end):
        _ask(x, int(source[k]) * width, width)


@lru_cache
def attend(heads: int, channels: int) -> Kernel:
    """The kernel of GATv2 attention: out[i] += what target rows[i] attends to in its window, softmax per head.

    Its arguments: rows, which of them; the windows (start, count, source), projected `[sources, H]`; of the target x,
    weight `[F, H]`, bias; attention `[heads, channels]`; where the sums of each row are kept (place, taken from `used`
    on), and these, `[places, H + 2 · heads]`: Σ eˡ·x, per head Σ eˡ and what l is relative to; out `[len(rows), H]`.
    """
    width = heads * channels

    @njit(cache=True, nogil=True)
    def run(
        rows: Int64s, which: Int64s, start: Int32s, count: Int32s, source: Int32s,
        projected: Float32s, x: Float32s, weight: Float32s, bias: Float32s, attention: Float32s,
        place: Int32s, used: Int64s, sums: Float64s, out: Float32s,
    ) -> None:  # fmt: skip
        room, done, inputs, size = _ROOM, 0, len(weight), width + 2 * heads
        projected_, out_, attention_ = projected.reshape(-1), out.reshape(-1), attention.reshape(-1)
        x_, weight_, sums_ = x.reshape(-1), weight.reshape(-1), sums.reshape(-1)
        line, target_ = np.empty(heads * room, np.float32), np.empty(_TARGETS * width, np.float32)
        places = np.empty(_TARGETS, np.int64)
        while done < len(which):
            filled, done = _filled(rows, which, count, done, places)
            some = places[:filled]
            for j in range(filled):
                prefetch(start, rows[some[j]])
                prefetch(place, rows[some[j]])
            for j in range(filled):
                if j + 2 < filled:
                    _ask(x_, rows[some[j + 2]] * inputs, inputs)
                affine(x_, rows[some[j]] * inputs, inputs, weight_, bias, target_, j * width, width)
            for j in range(filled):
                if j + 2 < filled:
                    prefetch(source, start[rows[some[j + 2]]])
                i, row = some[j], rows[some[j]]
                begin, n = int(start[row]), int(count[row])
                if n > room:
                    room = 2 * (n + LANES) // LANES * LANES  # whole lanes, as exponentials fill them
                    line = np.empty(heads * room, np.float32)
                if place[row] < 0:
                    place[row] = used[0]
                    used[0] += 1
                kept = int(place[row]) * size
                after, n_after = _after(rows, some, j + 1, start, count)
                shift, last = (after - begin, after + n_after - 1) if n_after else (0, begin)
                _fetch(source, after + n, after + n_after, projected_, width)
                # Of a neighbour that comes next each loop asks for one line; two heads of 32 channels have four.
                for h in range(heads):
                    at, first = h * channels, h * room
                    logits(
                        line, first - begin, projected_, at, source, width, begin, begin + n,
                        target_, j * width + at, attention_, at, shift, last, h * channels // 2, channels,
                    )  # fmt: skip
                    top = _most(line, first, n)
                    sums_[kept + width + h], sums_[kept + width + heads + h] = _weights(line, first, n, top), top
                sums_[kept : kept + width] = 0
                for h in range(heads):
                    at = h * channels
                    gather(
                        sums_, kept + at, projected_, at, source, width, begin, begin + n,
                        line, h * room - begin, shift, last, (heads + h) * channels // 2, channels,
                    )  # fmt: skip
                    share(out_, i * width + at, sums_, kept + at, sums_[kept + width + h], channels)

    return run


@njit(cache=True, nogil=True)
def sort_out(
    rows: Int64s, start: Int32s, count: Int32s, source: Int32s, changed: Int64s, computed: Int64s, base: int,
    previous: Int64s, place: Int32s, new: Int32s, old: Int32s, ends: Int64s, whole: Int64s, moved: Int64s,
) -> tuple[int, int]:  # fmt: skip
    """Sort places in rows by whether a target's sums are computed anew, or only what its changed neighbours add.

    changed: per source the number of its last change. computed: per target that of the next when it was last
    computed, −1 where it must be computed. Numbers from base on stand in the list of old projections, with what the
    number was before in previous: a target that waited may know neither this change of a source nor the one before it.
    Returns how many there are in whole and moved; the j-th of the moved has the neighbours new[ends[j - 1] : ends[j]],
    which stand in the list at old.
    """
    n_whole = n_moved = end = 0
    for i in range(len(rows)):
        if i + AHEAD < len(rows):
            ahead = rows[i + AHEAD]
            prefetch(count, ahead)
            prefetch(start, ahead)
            prefetch(computed, ahead)
            prefetch(place, ahead)
        if i + 4 < len(rows):
            prefetch(source, start[rows[i + 4]])
        row = rows[i]
        begin, n, known = start[row], count[row], computed[row]
        if n == 0:
            continue
        only, at = known >= 0 and place[row] >= 0, end
        for k in range(begin, begin + n if only else begin):
            number = changed[source[k]]
            if number >= known:
                if number < base or previous[number - base] >= known:
                    only = False
                    break
                new[at], old[at] = source[k], number - base
                at += 1
        if only and 2 * (at - end) < n:
            end = at
            moved[n_moved], ends[n_moved] = i, end
            n_moved += 1
        else:
            whole[n_whole] = i
            n_whole += 1
    return n_whole, n_moved


@njit(cache=True, nogil=True)
def _stays(line: Float32s, new: int, old: int, n: int, top: np.float32) -> bool:
    """Whether the largest logit of a window stays in the same part of the grid, as far as the changed ones tell."""
    had = has = False
    for k in range(n):
        found = _top(line[new + k])
        if not found <= top:
            return False
        has |= found == top
        had |= _top(line[old + k]) == top
    return has or not had


@lru_cache
def move(heads: int, channels: int) -> Kernel:
    """The kernel that takes from the kept sums what some neighbours were worth, and adds what they are worth now.

    Its arguments: rows; moved, new, old, ends of `sort_out`; projected, and as they were the list of old ones; of the
    target x, weight, bias; attention; place, sums, out as for `attend`; failed, which takes the places in rows of
    targets whose exponentials must be taken anew. Returns how many. window: the most neighbours of a target.
    """
    width = heads * channels

    @njit(cache=True, nogil=True)
    def run(
        rows: Int64s, moved: Int64s, new: Int32s, old: Int32s, ends: Int64s, projected: Float32s, before: Float32s,
        x: Float32s, weight: Float32s, bias: Float32s, attention: Float32s, place: Int32s, sums: Float64s,
        out: Float32s, failed: Int64s, window: int,
    ) -> int:  # fmt: skip
        room, inputs, size, n_failed = (window + LANES) // LANES * LANES, len(weight), width + 2 * heads, 0
        projected_, before_, out_ = projected.reshape(-1), before.reshape(-1), out.reshape(-1)
        x_, weight_, sums_, attention_ = x.reshape(-1), weight.reshape(-1), sums.reshape(-1), attention.reshape(-1)
        line, target_ = np.empty(2 * heads * room, np.float32), np.empty(width, np.float32)
        for j in range(len(moved)):
            if j + AHEAD < len(moved):
                prefetch(place, rows[moved[j + AHEAD]])
            if j + 2 < len(moved):
                ahead = rows[moved[j + 2]]
                _ask(sums_, int(place[ahead]) * size, size)
                _ask(x_, ahead * inputs, inputs)
                _fetch(new, ends[j + 1], ends[j + 2], projected_, width)
                _fetch(old, ends[j + 1], ends[j + 2], before_, width)
            i, row, begin, end = moved[j], rows[moved[j]], ends[j - 1] if j else 0, ends[j]
            kept, n, stays = int(place[row]) * size, end - begin, True
            if n:
                affine(x_, row * inputs, inputs, weight_, bias, target_, 0, width)
            for h in range(heads if n else 0):
                at, now, then = h * channels, 2 * h * room, (2 * h + 1) * room
                for first, values_, where in ((now, projected_, new), (then, before_, old)):
                    logits(
                        line, first - begin, values_, at, where, width, begin, end,
                        target_, at, attention_, at, 0, begin, 0, channels,
                    )  # fmt: skip
                stays &= _stays(line, now, then, n, _F(sums_[kept + width + heads + h]))
            if not stays:
                failed[n_failed] = i
                n_failed += 1
                continue
            for h in range(heads):
                at, now, then = h * channels, 2 * h * room, (2 * h + 1) * room
                if n:
                    top = _F(sums_[kept + width + heads + h])
                    sums_[kept + width + h] += _weights(line, now, n, top) - _weights(line, then, n, top)
                    line[then : then + n] *= _F(-1)
                    for first, values_, where in ((now, projected_, new), (then, before_, old)):
                        gather(
                            sums_, kept + at, values_, at, where, width, begin, end,
                            line, first - begin, 0, begin, 0, channels,
                        )  # fmt: skip
                share(out_, i * width + at, sums_, kept + at, sums_[kept + width + h], channels)
        return n_failed

    return run


@njit(cache=True, nogil=True)
def number(rows: Int64s, changed: Int64s, base: int, following: int, previous: Int64s) -> int:
    """Give each of some sources that has none from base on the following number of a change; returns the next.

    The number that it had goes to previous, at the new one less base.
    """
    for row in rows:
        if changed[row] < base:
            previous[following - base] = changed[row]
            changed[row] = following
            following += 1
    return following


@lru_cache
def replace(width: int) -> Kernel:
    """The kernel (x, rows, weight, bias, out, changed, base, first, before): out[rows] = x[rows] @ weight + bias.

    What was there is copied to before for those whose change has a number from first on, at that number less base.
    """

    @njit(cache=True, nogil=True)
    def run(
        x: Float32s, rows: Int64s, weight: Float32s, bias: Float32s, out: Float32s,
        changed: Int64s, base: int, first: int, before: Float32s,
    ) -> None:  # fmt: skip
        inputs = len(weight)
        x_, weight_, out_ = x.reshape(-1), weight.reshape(-1), out.reshape(-1)
        for i in range(len(rows)):
            if i + AHEAD < len(rows):
                _ask(x_, rows[i + AHEAD] * inputs, inputs)
                _ask(out_, rows[i + AHEAD] * width, width)
            row = rows[i]
            if changed[row] == first:  # numbered in this order; a row that comes twice is past
                before[first - base] = out[row]
                first += 1
            affine(x_, row * inputs, inputs, weight_, bias, out_, row * width, width)

    return run


@lru_cache
def attend_inputs(heads: int, channels: int) -> Kernel:
    """The same in the first layer, where sources are projected on the way: with so few inputs that takes no longer
    than reading what was projected before, and 4 · H bytes less of each source and relation are kept.

    Its arguments: rows, the windows (start, count, source), of the sources x, weight, bias, of the target x, weight,
    bias; attention; out. Weights and biases are float64s.
    """
    width = heads * channels

    @njit(cache=True, nogil=True)
    def run(
        rows: Int64s, start: Int32s, count: Int32s, source: Int32s,
        x: Float32s, project: Float64s, project_bias: Float64s, own: Float32s, weight: Float64s, bias: Float64s,
        attention: Float32s, out: Float32s,
    ) -> None:  # fmt: skip
        room, inputs, owns = _ROOM, len(project), len(weight)
        x_, own_, out_, attention_ = x.reshape(-1), own.reshape(-1), out.reshape(-1), attention.reshape(-1)
        project_, weight_ = project.reshape(-1), weight.reshape(-1)
        line, target_ = np.empty(heads * room, np.float32), np.empty(width, np.float32)
        projected_, places = np.empty(room * width, np.float32), np.arange(room).astype(np.int32)
        sums_ = np.empty(width, np.float64)
        for i in range(len(rows)):
            if i + AHEAD < len(rows):
                prefetch(count, rows[i + AHEAD])
                prefetch(start, rows[i + AHEAD])
            if i + 2 < len(rows):
                prefetch(source, start[rows[i + 2]])
            if i + 1 < len(rows):
                for k in range(start[rows[i + 1]], start[rows[i + 1]] + min(count[rows[i + 1]], _ROOM)):
                    prefetch(x_, np.int64(source[k]) * inputs)
            begin, n = int(start[rows[i]]), int(count[rows[i]])
            if n == 0:
                continue
            if n > room:
                room = 2 * (n + LANES) // LANES * LANES  # whole lanes, as softmax fills them
                line = np.empty(heads * room, np.float32)
                projected_, places = np.empty(room * width, np.float32), np.arange(room).astype(np.int32)
            affine64(own_, rows[i] * owns, owns, weight_, bias, target_, 0, width)
            for k in range(n):
                affine64(
                    x_,
                    np.int64(source[begin + k]) * inputs,
                    inputs,
                    project_,
                    project_bias,
                    projected_,
                    k * width,
                    width,
                )
            for at in range(0, width, channels):
                first = at // channels * room
                logits(
                    line, first, projected_, at, places, width, 0, n, target_, at, attention_, at, 0, 0, 0, channels
                )  # fmt: skip
                total = _weights(line, first, n, _most(line, first, n))
                sums_[at : at + channels] = 0
                gather(sums_, at, projected_, at, places, width, 0, n, line, first, 0, 0, 0, channels)
                share(out_, i * width + at, sums_, at, total, channels)

    return run
